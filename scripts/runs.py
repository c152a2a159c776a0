"""Many runs in parallel: under a progress bar, and each kept when it is done, so that an interrupted command goes on.

A run is known by its settings: everything that its result depends on, but for the code. The file of results therefore
names the revision of the code in every line, and whoever changes a method starts another file.
"""

import json
import multiprocessing
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from models.registry import Strategy

REDRAW_EVERY_S = 0.2

Follow = Callable[[float], None]  # is told now and then which share of a run is done
Row = dict[str, Any]  # as JSON has it

_shares: Any = None  # in a worker: the share of each run that is done, in memory that all processes see


class Run(Protocol):
    """One run. Goes to another process, so it must be picklable."""

    @property
    def settings(self) -> Row:
        """All that the result depends on."""
        ...

    def __call__(self, follow: Follow) -> Row:
        """The result. No NaN."""
        ...


class Record(NamedTuple):
    """A run that is done."""

    settings: Row
    result: Row
    seconds: float  # wall time
    revision: str  # of the code


def revision() -> str:
    """What git says of the source this runs from, or the version of the package."""
    version = metadata.version("agerank")
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--tags"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return version
    return f"{version}+{found.stdout.strip()}"


def strategy_settings(strategy: Strategy) -> Row:
    """What a strategy does, whatever it is called."""
    return {
        "method": strategy.method,
        "options": strategy.options,
        "lambda": strategy.lambda_,
        "budget": strategy.budget,
    }


class Results:
    """A file of JSON lines, one a finished run.

    Args:
        path: of the file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._revision = path, revision()
        lines = path.read_text().splitlines() if path and path.exists() else []
        self._known = {_key(record.settings): record for record in map(_record, lines) if record}

    def find(self, run: Run) -> Record | None:
        return self._known.get(_key(run.settings))

    def add(self, run: Run, result: Row, seconds: float) -> Record:
        record = Record(run.settings, result, seconds, self._revision)
        if self._path:
            with self._path.open("a") as file:  # the first line break ends what a killed command left
                file.write("\n" * bool(file.tell()) + json.dumps(record._asdict(), allow_nan=False))
        return record


def run_all(runs: Sequence[Run], *, title: str, processes: int, quiet: bool, results: Results) -> list[Record]:
    """All runs, in their order, under a progress bar if somebody sees it. Those that are in `results` are not repeated.

    Every process computes with one thread.
    """
    records: list[Record | None] = [results.find(run) for run in runs]
    left = [number for number, record in enumerate(records) if record is None]
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(title, total=len(left))

        def show(before: int, done: float) -> None:
            bar.update(task, completed=before + done)

        def keep(place: int, result: Row, seconds: float) -> None:
            number = left[place]
            records[number] = results.add(runs[number], result, seconds)

        if processes == 1:
            torch.set_num_threads(1)
            for place, number in enumerate(left):
                keep(place, *_timed(runs[number], partial(show, place)))
        elif left:
            _run_parallel([runs[number] for number in left], processes, partial(show, 0), keep)
    return [record for record in records if record is not None]


def _run_parallel(runs: Sequence[Run], processes: int, show: Follow, keep: Callable[[int, Row, float], None]) -> None:
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    shares = context.Array("d", len(runs), lock=False)
    with ProcessPoolExecutor(min(processes, len(runs)), context, _start_worker, (shares,)) as pool:
        places = {pool.submit(_run_in_worker, place, run): place for place, run in enumerate(runs)}
        pending = set(places)
        try:
            while pending:
                done, pending = wait(pending, timeout=REDRAW_EVERY_S, return_when=FIRST_COMPLETED)
                show(sum(shares))
                for future in done:
                    keep(places[future], *future.result())  # a failed run is known at once, not when all have ended
        except BaseException:
            for worker in multiprocessing.active_children():  # else Ctrl-C would wait for what has begun
                worker.terminate()
            raise


def _timed(run: Run, follow: Follow) -> tuple[Row, float]:
    begin = time.perf_counter()
    result = run(follow)
    follow(1.0)
    return result, time.perf_counter() - begin


def _start_worker(shares: Any) -> None:
    global _shares
    _shares = shares
    torch.set_num_threads(1)


def _run_in_worker(number: int, run: Run) -> tuple[Row, float]:
    def follow(share: float) -> None:
        _shares[number] = share

    return _timed(run, follow)


def _key(settings: Row) -> str:
    return json.dumps(settings, sort_keys=True)


def _record(line: str) -> Record | None:
    """None for the torn last line of a command that was killed."""
    try:
        return Record(**json.loads(line))
    except (json.JSONDecodeError, TypeError):
        return None
