"""agerank bench http: our server, exploring, against others that serve the same network without."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

from models.types import Array
from scripts.bench.contenders import PEERS, Case, installed, start
from scripts.bench.load import Outcome, closed_loop, open_loop, post
from scripts.bench.measure import Tell, ratio
from scripts.bench.processes import Cores, cores, pinned
from scripts.bench.report import (
    ENGINE,
    AsJson,
    BenchError,
    Candidates,
    Column,
    EngineKind,
    Row,
    Runs,
    failing,
    progress,
    show,
    whole_numbers,
)
from scripts.bench.rivals import RIVALS
from scripts.bench.work import Catalogue
from service.scoring.engines import Kind

CONNECTIONS = (1, 8)
BODIES = 20  # different requests, in a circle
WARM_UP_S = 0.3  # after the others' turns the caches hold their work

COLUMNS = (
    Column("candidates", "candidates", "d"),
    Column("server", "server"),
    Column("strategy", "strategy"),
    Column("features", "features"),
    Column("loop", "loop"),
    Column("connections", "connections", "d"),
    Column("rate", "requests/s", ".0f"),
    Column("p50_ms", "p50 ms", ".2f"),
    Column("p99_ms", "p99 ms", ".2f"),
    Column("over_peers", "over peers", ".2f"),
    Column("over_bare", "over bare", ".2f"),
)


def http(
    candidates: Candidates = "100,450",
    runs: Runs = 5,
    seconds: Annotated[float, typer.Option(min=0.01, help="Of one loop in one run.")] = 2.0,
    rivals: Annotated[
        str, typer.Option(help=f"Separated by commas: {', '.join(RIVALS)}; none for our server alone.")
    ] = ",".join(RIVALS),
    rivals_python: Annotated[
        Path, typer.Option(help="Interpreter in which the rivals are installed.", show_default="this one")
    ] = Path(sys.executable),
    load: Annotated[str, typer.Option(help="Open loop at so many percent of a server's rate at 8 connections.")] = "70",
    rate: Annotated[str | None, typer.Option(help="Open loop at so many requests a second in place of --load.")] = None,
    core: Annotated[int | None, typer.Option(min=0, help="The servers' core.", show_default="the last")] = None,
    engine: EngineKind = ENGINE,
    as_json: AsJson = False,
) -> None:
    """Measure our server over HTTP, exploring, against others that serve the same network without exploring.

    All run on one core, in processes of their own with one worker; while one is measured the others stand still. The
    client and the log's server have the other cores. Everybody gets the same body, encodes features with our encoder
    and answers ids and scores, best first. The rivals run the plain network in onnxruntime with its weights in the
    graph: **LitServe**, **BentoML**, **FastAPI** with pydantic, and a bare FastAPI handler with msgspec. Ours is
    `agerank serve` as it is, with metrics, limits and the served records written to the log; **full** has the features
    of each candidate in the body, **ids** has the ids alone and the features from the item store.

    **closed** loops send the next request when the last is answered. **open** loops send at the times of a Poisson
    process and measure from the time a request should have left. Figures are medians of the runs. **over peers** is the
    rate over that of the faster of LitServe and BentoML in the same run, **over bare** over bare FastAPI.

    Needs the rivals: pip install 'agerank[bench]', or elsewhere and --rivals-python.
    """
    taking_part = installed([one for one in rivals.split(",") if one and one != "none"], rivals_python)
    open_loops = (
        [Rate(one, "/s") for one in whole_numbers(rate)] if rate else [Rate(one) for one in whole_numbers(load)]
    )
    with failing(), progress(as_json=as_json, versions=("onnxruntime", "fastapi", "uvicorn")) as tell:
        found = run(
            candidates=whole_numbers(candidates),
            runs=runs,
            seconds=seconds,
            rivals=taking_part,
            python=rivals_python,
            open_loops=open_loops,
            where=cores(core),
            engine=engine,
            tell=tell,
        )
    show(found, COLUMNS, title=f"Over HTTP, one core for the server, median of {runs} runs", as_json=as_json)


class Rate(NamedTuple):
    """Of an open loop: percent of a server's own rate at 8 connections, or requests a second."""

    number: int
    unit: str = " %"

    def of(self, most: float) -> float:
        return self.number / 100 * most if self.unit == " %" else float(self.number)


class Setting(NamedTuple):
    """What a row is of, besides its case."""

    candidates: int
    loop: str
    connections: int | None


Samples = dict[tuple[Case, Setting], list[tuple[float, float, float]]]  # a run each: rate, p50 and p99 in seconds


def run(
    *,
    candidates: Sequence[int],
    runs: int,
    seconds: float,
    rivals: Mapping[str, str],
    python: Path,
    open_loops: Sequence[Rate],
    where: Cores,
    engine: Kind,
    tell: Tell,
) -> list[Row]:
    """A row for each case and setting; docs/benchmarks.md explains the keys.

    Args:
        rivals: name -> version, of those that take part.
        python: their interpreter.
        where: the servers and the client run.
    """
    samples: Samples = {}
    with ExitStack() as stack:
        stack.enter_context(pinned(where.others))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agerank-bench-")))
        tell("starting the servers")
        cases = start(stack, folder, rivals, python, where, engine)
        servers = list(dict.fromkeys(case.running for case in cases))
        for number in range(1, runs + 1):
            for count in candidates:
                requests = {case: _requests(case, count) for case in cases}
                for case in cases:
                    tell(f"run {number} of {runs}: {case.server} {case.strategy} {case.features}, {count} candidates")
                    with case.running.alone(servers):
                        for loop, outcome in _loops(case, requests[case], open_loops, seconds, seed=number).items():
                            sample = outcome.rate, outcome.quantile(0.5), outcome.quantile(0.99)
                            samples.setdefault((case, Setting(count, *loop)), []).append(sample)
    return _rows(samples)


def _requests(case: Case, count: int) -> list[bytes]:
    catalogue, ids_only = Catalogue(), case.features == "ids"
    bodies = (catalogue.body(one, count, ids_only=ids_only, strategy=case.strategy) for one in range(BODIES))
    return [post(case.path, body) for body in bodies]


def _loops(
    case: Case, requests: Sequence[bytes], open_loops: Sequence[Rate], seconds: float, *, seed: int
) -> dict[tuple[str, int | None], Outcome]:
    """(loop, connections) -> what came of it. Raises BenchError where anything but 200 is answered."""
    port, found = case.running.port, dict[tuple[str, int | None], Outcome]()
    closed_loop(port, requests, connections=1, seconds=min(seconds, WARM_UP_S))
    most = 0.0
    for connections in CONNECTIONS:
        outcome = _answered(case, closed_loop(port, requests, connections=connections, seconds=seconds))
        found["closed", connections], most = outcome, outcome.rate
    for one in open_loops:
        generator = np.random.default_rng(seed)  # the same arrivals for everybody
        outcome = open_loop(port, requests, rate=one.of(most), seconds=seconds, generator=generator)
        found[f"open {one.number}{one.unit}", None] = _answered(case, outcome)
    return found


def _answered(case: Case, outcome: Outcome) -> Outcome:
    if outcome.failures:
        raise BenchError(f"{case.server} failed: {dict(outcome.failures)}")
    return outcome


def _rows(samples: Samples) -> list[Row]:
    rates = {(case.server, case.strategy, setting): _column(found, 0) for (case, setting), found in samples.items()}
    rows = []
    for (case, setting), found in sorted(samples.items(), key=lambda one: (one[0][1].candidates, str(one[0][1]))):
        own, closed = _column(found, 0), setting.loop == "closed"
        peers = [rates[name, "greedy", setting] for name in PEERS if (name, "greedy", setting) in rates]
        bare = rates.get(("bare", "greedy", setting))
        rows.append(
            {
                "candidates": setting.candidates,
                "server": case.server,
                "version": case.version,
                "strategy": case.strategy,
                "features": case.features,
                "loop": setting.loop,
                "connections": setting.connections,
                "rate": float(np.median(own)),
                "p50_ms": float(np.median(_column(found, 1))) * 1e3,
                "p99_ms": float(np.median(_column(found, 2))) * 1e3,
                "over_peers": ratio(own, np.max(peers, axis=0)) if closed and peers else None,
                "over_bare": ratio(own, bare) if closed and bare is not None else None,
            }
        )
    return rows


def _column(found: Sequence[tuple[float, float, float]], number: int) -> Array:
    return np.array([sample[number] for sample in found])
