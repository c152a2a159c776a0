"""agerank bench memory: how soon the scorer is ready, and what it holds in memory."""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from scripts.bench.load import post, send_all
from scripts.bench.measure import Tell
from scripts.bench.processes import Cores, Server, cores, pinned, read
from scripts.bench.report import ENGINE, AsJson, BenchError, Column, EngineKind, Row, Runs, failing, progress, show
from scripts.bench.scorer import RANK, checkpoints, log_server, put_items, scorer
from scripts.bench.work import CANDIDATES, STRATEGIES, Catalogue, Model, publishing
from service.scoring.engines import Kind

REQUESTS = 30  # of each strategy, before the memory is looked at
COMPLETE_TIMEOUT_S = 300.0
DEADLINE_S = 30.0  # for a thousand items at a time, beside a log's server that syncs each to disk
MIB = 1024 * 1024

COLUMNS = (
    Column("state", "state"),
    Column("items", "items", "d"),
    Column("seconds", "seconds", ".2f"),
    Column("resident_mib", "resident MiB", ".0f"),
)


def memory(
    items: Annotated[int, typer.Option(min=1, help="In the store.")] = 1_000_000,
    runs: Runs = 5,
    core: Annotated[int | None, typer.Option(min=0, help="The server's core.", show_default="the last")] = None,
    engine: EngineKind = ENGINE,
    as_json: AsJson = False,
) -> None:
    """Measure how soon `agerank serve` is ready, and its resident memory without and with a million items.

    **started** is the time from the start of the process to the first 200 of GET /readyz, with a version on disk, a
    median of the runs. **filled** is the time that it takes to put the items, a thousand in a request. **restarted** is
    the time from the start to GET /readyz answering 200 with all items read back, that is without `items_loading`.

    Memory is looked at after requests of every strategy for 1,000 candidates. It is that of the process alone, without
    the log's server.
    """
    with failing(), progress(as_json=as_json, versions=("onnxruntime", "fastapi", "uvicorn")) as tell:
        found = run(items=items, runs=runs, where=cores(core), engine=engine, tell=tell)
    show(found, COLUMNS, title="The scorer with the benchmark's network", as_json=as_json)


def run(*, items: int, runs: int, where: Cores, engine: Kind, tell: Tell) -> list[Row]:
    """A row for each state; docs/benchmarks.md explains the keys."""
    catalogue = Catalogue(max(items, max(CANDIDATES)))
    with ExitStack() as stack:
        stack.enter_context(pinned(where.others))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agerank-bench-")))
        with publishing(checkpoints(folder), Model()) as versions:
            versions.publish()
        url = stack.enter_context(log_server(folder, where))
        taken = []
        for number in range(1, runs + 1):
            tell(f"start {number} of {runs}")
            with _started(folder, url, where, engine) as (server, seconds):
                taken.append(seconds)
        with _started(folder, url, where, engine) as (server, _):
            found = [_row("started", 0, float(np.median(taken)), _used(server, catalogue))]
            tell(f"putting {items} items")
            started = time.perf_counter()
            put_items(server, catalogue, items)
            filled = time.perf_counter() - started
            found.append(_row("filled", items, filled, _used(server, catalogue)))
        tell("starting again")
        started = time.perf_counter()
        with _started(folder, url, where, engine) as (server, _):
            _complete(server)
            found.append(_row("restarted", items, time.perf_counter() - started, _used(server, catalogue)))
    return found


@contextmanager
def _started(folder: Path, url: str, where: Cores, engine: Kind) -> Iterator[tuple[Server, float]]:
    """A scorer that is ready, and the seconds it took."""
    began = time.perf_counter()
    with scorer(folder, url, where, engine=engine, deadline_s=DEADLINE_S) as server:
        server.wait()
        yield server, time.perf_counter() - began


def _complete(server: Server) -> None:
    """Waits for all items. Raises BenchError where that takes too long."""
    deadline = time.monotonic() + COMPLETE_TIMEOUT_S
    while time.monotonic() < deadline:
        status, body = read(server.port, "/readyz")
        if status == 200 and "items_loading" not in json.loads(body)["degraded"]:
            return
        time.sleep(0.05)
    raise BenchError(f"the items were not all there after {COMPLETE_TIMEOUT_S:g} s")


def _used(server: Server, catalogue: Catalogue) -> int:
    """Resident bytes after it has ranked. Raises BenchError."""
    numbers = range(REQUESTS)
    bodies = (catalogue.body(one, max(CANDIDATES), strategy=name) for name in STRATEGIES for one in numbers)
    outcome = send_all(server.port, (post(RANK, body) for body in bodies))
    if outcome.failures:
        raise BenchError(f"requests failed: {dict(outcome.failures)}")
    return server.resident()


def _row(state: str, items: int, seconds: float, resident: int) -> dict[str, Any]:
    return {"state": state, "items": items, "seconds": seconds, "resident_mib": resident / MIB}
