"""The runs of `agerank replay`: each strategy under each seed, in parallel, with a progress bar."""

import gzip
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import partial
from importlib import resources
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from models.evaluation.driver import Protocol
from models.evaluation.r6b import Event, Tally, events
from models.evaluation.replay import Result, replay
from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.registry import Strategy
from models.spec import FeatureSpec

#: Ours: small and fast to learn, since a policy keeps only one visit of |A|.
NETWORK = NetworkConfig(hidden=(64, 32))
LEARNING_RATE = 0.003

FOLLOW_EVERY = 1_000  # visits
REDRAW_EVERY_S = 0.2


class Work(NamedTuple):
    """One run."""

    strategy: Strategy
    seed: int
    log: Path
    limit: int | None  # visits
    protocol: Protocol


Outcome = tuple[Result, Tally]
Follow = Callable[[float], None]  # is told now and then which share of a run is done

_shares: Any = None  # in a worker: the share of each run that is done, in memory that all processes see


def read_log(log: Path, tally: Tally, limit: int | None = None, follow: Follow = lambda share: None) -> Iterator[Event]:
    """The first `limit` visits of a log."""
    size = log.stat().st_size
    with log.open("rb") as raw, _text(raw, packed=log.suffix == ".gz") as lines:
        for number, event in enumerate(islice(events(lines, tally), limit)):
            if number % FOLLOW_EVERY == 0:
                follow(max(raw.tell() / size, number / limit if limit else 0.0))
            yield event


def run_all(work: Sequence[Work], *, processes: int, quiet: bool) -> list[Outcome]:
    """All the work, in its order, under a progress bar if somebody sees it."""
    console = Console(stderr=True)
    columns = TextColumn("replay"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("replay", total=len(work))

        def show(before: int, done: float) -> None:
            bar.update(task, completed=before + done)

        if processes == 1:
            torch.set_num_threads(1)
            return [_run(one, partial(show, before)) for before, one in enumerate(work)]
        return _run_parallel(work, processes, partial(show, 0))


def _run(work: Work, follow: Follow) -> Outcome:
    spec = FeatureSpec.from_toml(resources.files("scripts").joinpath("specs/r6b.toml").read_text())
    tally = Tally()
    visits = read_log(work.log, tally, work.limit, follow)

    def make(round_: int) -> Learner:
        return Learner(ClickNetwork(spec, NETWORK), learning_rate=LEARNING_RATE, seed=work.seed + round_)

    result = replay(visits, strategy=work.strategy, make=make, seed=work.seed, protocol=work.protocol)
    follow(1.0)
    return result, tally


def _run_parallel(work: Sequence[Work], processes: int, show: Follow) -> list[Outcome]:
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    shares = context.Array("d", len(work), lock=False)
    with ProcessPoolExecutor(processes, context, _start_worker, (shares,)) as pool:
        futures = [pool.submit(_run_in_worker, number, one) for number, one in enumerate(work)]
        pending = set(futures)
        try:
            while pending:
                done, pending = wait(pending, timeout=REDRAW_EVERY_S, return_when=FIRST_COMPLETED)
                show(sum(shares))
                for future in done:
                    future.result()  # a failed run is known at once, not when all have ended
        except BaseException:
            for worker in multiprocessing.active_children():  # else Ctrl-C would wait for what has begun
                worker.terminate()
            raise
    return [future.result() for future in futures]


def _start_worker(shares: Any) -> None:
    global _shares
    _shares = shares
    torch.set_num_threads(1)


def _run_in_worker(number: int, work: Work) -> Outcome:
    def follow(share: float) -> None:
        _shares[number] = share

    return _run(work, follow)


def _text(raw: BinaryIO, *, packed: bool) -> TextIOWrapper:
    # What is no ASCII is a broken line, which the parser counts.
    return TextIOWrapper(gzip.GzipFile(fileobj=raw) if packed else raw, encoding="ascii", errors="replace")
