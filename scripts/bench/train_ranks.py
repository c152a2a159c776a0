"""agerank bench train --ranks N: the trainer as several processes, each on a core, against one of them alone."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed

from models.learner import Learner
from models.types import Array
from scripts.bench.learning import new_learner, new_trainer
from scripts.bench.measure import Tell, interleave, ratio
from scripts.bench.report import Column, Row
from scripts.bench.traffic import entries
from service.streams import Entry, StreamNames, partition_of
from service.training.heap import settle
from service.training.ranks import Ranks

OPTIMIZERS = "adam", "sparse_adam"
FED = 1_500  # entries of a partition in a round, where a trainer is behind: a thousand of its busier stream

COLUMNS = (
    Column("batch_size", "batch size", "d"),
    Column("way", "way"),
    Column("processes", "processes", "d"),
    Column("examples_per_s", "examples/s", ",.0f"),
    Column("over_one", "over one", ".2f"),
    Column("difference", "largest difference of a weight", ".1e"),
)


def run(ranks: int, *, batch_sizes: Sequence[int], requests: int, runs: int, tell: Tell) -> list[Row]:
    """Three rows for each batch size and optimiser; docs/benchmarks.md explains the keys."""
    found: list[Row] = []
    log = _Log(ranks, requests)
    with ExitStack() as stack:
        tell("starting the ranks")
        one, together = (stack.enter_context(_group(size, log)) for size in (1, ranks))
        others = [stack.enter_context(_group(1, log, first=place)) for place in range(1, ranks)]
        alone = _Group([pipe for group in (one, *others) for pipe in group.pipes])
        for batch_size in batch_sizes:
            for optimizer in OPTIMIZERS:
                begin = _Begin(optimizer, batch_size, ranks)
                difference = _difference(_weights(one, begin)[0], _weights(together, begin))
                alone.ask(begin._replace(parts=1))  # as it is where nobody asks for parts
                alone.learn()
                ways = {optimizer: one, f"{optimizer}, ranks": together, f"{optimizer}, each alone": alone}
                calls: dict[str, Callable[[], object]] = {way: group.learn for way, group in ways.items()}
                taken = interleave(calls, runs=runs, seconds=0.0, tell=tell)
                for way, group in ways.items():
                    logs = ranks if group is alone else 1  # that are learned
                    row = {"batch_size": batch_size, "way": way, "processes": len(group.pipes)}
                    row["examples_per_s"] = logs * group.examples / float(median(taken[way]))
                    row["over_one"] = logs / ratio(taken[way], taken[optimizer])
                    row["difference"] = difference if group is together else None
                    found.append(row)
    return found


class _Log(NamedTuple):
    partitions: int
    requests: int


class _Begin(NamedTuple):
    """A word to a rank: anew."""

    optimizer: str
    batch_size: int
    parts: int


class _Group:
    """Ranks in processes of their own, which wait for a word."""

    def __init__(self, pipes: "Sequence[Connection[object, object]]") -> None:
        self.pipes = pipes
        self.examples = 0  # of a pass

    def ask(self, word: object) -> list[Any]:
        """What each answers."""
        for pipe in self.pipes:
            pipe.send(word)
        return [pipe.recv() for pipe in self.pipes]

    def learn(self) -> None:
        """All ranks learn the log once more."""
        self.examples, *_ = self.ask("learn")


def _weights(group: _Group, begin: _Begin) -> list[dict[str, Array]]:
    """Of each of its processes, after they have learned the log once."""
    group.ask(begin)
    group.learn()
    return group.ask("weights")


@contextmanager
def _group(size: int, log: _Log, *, first: int = 0) -> Iterator[_Group]:
    """Args: first: which of our cores its rank 0 gets; the others get the next ones."""
    context = multiprocessing.get_context("spawn")
    ours = islice(cycle(sorted(os.sched_getaffinity(0))), first, first + size)
    with tempfile.TemporaryDirectory(prefix="agerank-bench-") as folder:
        pipes, processes = [], []
        for rank, core in enumerate(ours):
            pipe, theirs = context.Pipe()
            process = context.Process(target=_rank, args=(theirs, log, Path(folder), rank, size, core), daemon=True)
            process.start()
            theirs.close()  # so that its end is seen here
            pipes.append(pipe)
            processes.append(process)
        try:
            yield _Group(pipes)
        finally:
            for pipe in pipes:
                pipe.close()
            for process in processes:
                process.join()


def _rank(pipe: "Connection[object, object]", log: _Log, folder: Path, rank: int, size: int, core: int) -> None:
    """Answers until the pipe is closed."""
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    ranks = Ranks()
    if size > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=size)
        ranks = Ranks(torch.distributed.group.WORLD)
    everything, fed = entries(log.requests, StreamNames("bench", log.partitions)), FED * log.partitions
    rounds = [
        [one for one in everything[start : start + fed] if ranks.owns(partition_of(one.stream))]
        for start in range(0, len(everything), fed)
    ]
    learner, batch_size = new_learner(OPTIMIZERS[0], ranks), 1
    settle()  # as the trainer does
    with suppress(EOFError):
        while True:
            word = pipe.recv()
            if isinstance(word, _Begin):
                learner, batch_size = new_learner(word.optimizer, ranks, parts=word.parts), word.batch_size
                pipe.send(None)
            elif word == "learn":
                pipe.send(_learn(learner, batch_size, ranks, rounds))
            else:
                learner.level()
                pipe.send(learner.weights())


def _learn(learner: Learner, batch_size: int, ranks: Ranks, rounds: Sequence[Sequence[Entry]]) -> int:
    """How many examples."""
    trainer, before = new_trainer(learner, batch_size, ranks), learner.step
    for part in rounds:
        trainer.feed(part)
    return (learner.step - before) * batch_size


def _difference(expected: Mapping[str, Array], found: Sequence[Mapping[str, Array]]) -> float:
    """The largest of a weight, over all of them and all ranks."""
    return max(float(np.abs(one[name] - array).max()) for one in found for name, array in expected.items())
