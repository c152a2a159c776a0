"""agerank bench train: the whole trainer against a bare loop over the batches that it makes of the log."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from prometheus_client import CollectorRegistry

from models.denormals import without_denormals
from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.optimizers import OPTIMIZERS
from models.spec import FeatureSpec
from models.types import Array, Batch
from scripts.bench import train_ranks
from scripts.bench.bare import BareLoop, BareNetwork, Ready
from scripts.bench.learning import LEARNING_RATE, new_learner, new_trainer
from scripts.bench.measure import Tell, interleave, ratio
from scripts.bench.processes import Cores, cores, pinned
from scripts.bench.report import AsJson, BenchError, Column, Core, Row, Runs, failing, progress, show, whole_numbers
from scripts.bench.traffic import entries
from scripts.bench.work import SPEC, Model
from service.appends import append_batch
from service.checkpoints import LocalStore
from service.connections import connect
from service.streams import Entry, LogReader, StreamNames
from service.telemetry import TrainerMetrics
from service.training.guard import UNGUARDED, Guard
from service.training.heap import settle
from service.training.outcome import Progress
from service.training.publisher import Publisher
from service.training.trainer import Trainer
from service.valkey import EmbeddedServer

FED = 1_000  # entries at a time, as the log is read
BARE = "bare loop"
NAMES = StreamNames("bench", partitions=1)

COLUMNS = (
    Column("batch_size", "batch size", "d"),
    Column("way", "way"),
    Column("examples_per_s", "examples/s", ",.0f"),
    Column("over_bare", "over bare loop", ".2f"),
    Column("ms", "ms a batch", ".2f"),
)


def train(
    batch_sizes: Annotated[str, typer.Option(help="Several are separated by commas.")] = "256,1024",
    requests: Annotated[int, typer.Option(min=200, help="In the log; 15 items each.")] = 1_500,
    runs: Runs = 5,
    core: Core = None,
    ranks: Annotated[
        int, typer.Option(min=1, help="More than 1: instead, so many processes, each on a core, against one of them.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure the whole trainer, on one thread: it decodes, checks and joins entries in memory, predicts and learns.

    **bare loop** is what everybody writes: the same network as torch modules, forward, backward and Adam over the
    very batches that the trainer makes of this log, ready in memory. It reads no log, and does not predict what it is
    about to learn. **adam** is the trainer with the optimiser of the bare loop, **sparse_adam** with the one that
    moves only what a batch reads. **adam, Redis** reads the log from an embedded Valkey on another core. **publish**
    is one version with its state, on disk.

    **examples/s** is a median of the runs, and **over bare loop** the median of the ratios within a run.

    With `--ranks 2`, two trainers share every batch (`agerank train --ranks`), and one is the measure: **over one** is
    the ratio of their examples a second, and the **largest difference of a weight** is over all weights of all ranks,
    after they and one with as many `gradient_parts` have learned the log once. **each alone** is two that share
    nothing and learn the whole log each: what the machine's cores give when all are busy.
    """
    if ranks > 1:
        _train_ranks(ranks, whole_numbers(batch_sizes), requests=requests, runs=runs, as_json=as_json)
        return
    with failing(), progress(as_json=as_json, versions=("numpy", "torch")) as tell:
        found = run(batch_sizes=whole_numbers(batch_sizes), requests=requests, runs=runs, where=cores(core), tell=tell)
    show(found, COLUMNS, title=f"Learning from a log, one thread, median of {runs} runs", as_json=as_json)


def _train_ranks(ranks: int, batch_sizes: Sequence[int], *, requests: int, runs: int, as_json: bool) -> None:
    with failing(), progress(as_json=as_json, versions=("numpy", "torch")) as tell:
        found = train_ranks.run(ranks, batch_sizes=batch_sizes, requests=requests, runs=runs, tell=tell)
    title = f"Learning from a log, one thread a rank, median of {runs} runs"
    show(found, train_ranks.COLUMNS, title=title, as_json=as_json)


def run(*, batch_sizes: Sequence[int], requests: int, runs: int, where: Cores, tell: Tell) -> list[Row]:
    """Rows for each batch size and one for publishing; docs/benchmarks.md explains the keys."""
    torch.set_num_threads(1)
    tell("making the log")
    log = entries(requests, NAMES)
    found: list[Row] = []
    settle()  # as the trainer does; the bare loop gains by it, too
    with pinned([where.server]), _filled(log, where) as reader:
        for batch_size in batch_sizes:
            batches = _batches(log, batch_size)
            if not batches:
                raise BenchError(f"{requests} requests do not make a batch of {batch_size}: take more of them")
            ways: dict[str, Callable[[], object]] = {BARE: _bare(batches)}
            ways |= {optimizer: partial(_feed, log, batch_size, new_learner(optimizer)) for optimizer in OPTIMIZERS}
            ways["adam, Redis"] = partial(_follow, reader, log[-1], batch_size, new_learner())
            taken = interleave(ways, runs=runs, seconds=0.0, tell=tell)
            found += [_row(way, batch_size, len(batches), taken) for way in taken]
        tell("publishing")
        return [*found, _publish(log, runs)]


def _feed(log: Sequence[Entry], batch_size: int, learner: Learner) -> Trainer:
    """The log from its start to its end, by a trainer that knows nothing of it. The learner goes on learning."""
    trainer = new_trainer(learner, batch_size)
    for start in range(0, len(log), FED):
        trainer.feed(log[start : start + FED])
    return trainer


class _Recorder(Learner):
    """Learns nothing and keeps what it was given."""

    batches: list[Ready]

    def learn(self, batch: Batch, label: Array, context_row: Array | None = None) -> Array:
        index = batch.context_index if context_row is None else batch.context_index[context_row]
        self.batches.append(Ready(*(torch.from_numpy(one.copy()) for one in (index, batch.item_index, label))))
        return np.zeros(len(label), dtype=np.float32)


def _batches(log: Sequence[Entry], batch_size: int) -> list[Ready]:
    recorder = _Recorder(ClickNetwork(FeatureSpec.from_toml(SPEC), NetworkConfig()), learning_rate=1.0, seed=0)
    recorder.batches = []
    _feed(log, batch_size, recorder)
    return recorder.batches


def _bare(batches: Sequence[Ready]) -> Callable[[], None]:
    spec = FeatureSpec.from_toml(SPEC)
    context, item = ((side.slots, sum(table.rows for table in side.tables)) for side in (spec.context, spec.item))
    network = BareNetwork(context=context, item=item, dropout=NetworkConfig().dropout)
    loop = BareLoop(network, LEARNING_RATE)

    def call() -> None:
        with without_denormals():  # as our learner does: it would otherwise become ten times slower within the hour
            loop(batches)

    return call


@contextmanager
def _filled(log: Sequence[Entry], where: Cores) -> Iterator[LogReader]:
    """A server on another core that holds the log."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agerank-bench-")))
        with pinned(where.others):
            server = stack.enter_context(EmbeddedServer(folder))
        client = stack.enter_context(connect(server.url, name="bench"))
        for start in range(0, len(log), FED):
            append_batch(client, [(one.stream, one.payload, one.position) for one in log[start : start + FED]])
        yield LogReader(client, NAMES, count=FED)


def _follow(reader: LogReader, last: Entry, batch_size: int, learner: Learner) -> None:
    """As `_feed`, but read from Redis."""
    trainer = new_trainer(learner, batch_size)
    while trainer.positions.get(last.stream) != last.position:
        trainer.feed(reader.read(trainer.positions, block_ms=100))


def _publish(log: Sequence[Entry], runs: int) -> Row:
    taken = []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="agerank-bench-"))
        store = LocalStore(Path(folder))
        trainer = _feed(log[: len(log) // 2], 256, new_learner())  # so that some of it waits
        stack.enter_context(store.lock())
        refused = TrainerMetrics(CollectorRegistry()).refused
        publisher = Publisher(
            store, trainer, spec=SPEC, graphs=Model().graphs, keep=2, guard=Guard(UNGUARDED), refused=refused
        )
        for _ in range(runs):
            trainer.learner.step += 1
            started = time.perf_counter()
            publisher.publish(Progress(), now_ms=0)
            taken.append(time.perf_counter() - started)
    return {"way": "publish", "batch_size": None, "examples_per_s": None, "over_bare": None, "ms": 1e3 * median(taken)}


def _row(way: str, batch_size: int, batches: int, taken: Mapping[str, Array]) -> Row:
    return {
        "way": way,
        "batch_size": batch_size,
        "examples_per_s": batches * batch_size / median(taken[way]),
        "over_bare": 1.0 / ratio(taken[way], taken[BARE]),
        "ms": 1e3 * median(taken[way]) / batches,
    }
