"""agerank chaos redis: Redis dies and stands still under load, and no accepted event is lost."""

import asyncio
import os
import random
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import httpx
import numpy as np
import typer

from scripts.bench.processes import Server, cores, pinned
from scripts.bench.report import failing
from scripts.bench.scorer import scorer, trainer
from scripts.bench.work import SMALL
from scripts.chaos.counts import Log, learned, written
from scripts.chaos.lives import metrics
from scripts.chaos.report import Advance, AsJson, ChaosError, Found, Seed, bar, show
from scripts.chaos.visitors import Visitors
from scripts.demo_processes import free_port
from service.connections import connect
from service.valkey import EmbeddedServer

WINDOW_S = 2.0
PATIENCE_S = 60.0  # for the service to take events again, and for the trainer to have read them all
POLL_S = 0.01

TITLES = {
    "kills": "kills of Redis with SIGKILL",
    "pauses": "pauses",
    "ranked": "rankings",
    "failed": "failed rankings",
    "failures": "because",
    "rank_p99_ms": "ms a ranking, p99",
    "rank_max_ms": "ms the slowest ranking",
    "events": "events reported and accepted",
    "again": "of them answered `duplicate`: Redis had them, and died before it said so",
    "refused": "reports refused, and sent again",
    "logged": "events in the log",
    "missing": "accepted and not in the log",
    "doubled": "twice in the log",
    "learned": "events that the trainer counted",
    "join": "as",
    "gaps": "gaps that the trainer found in the log",
    "dropped": "served records dropped",
    "unrecorded": "rankings of which the log has no served record",
    "kill_s": "s from a kill to the next accepted event",
    "pause_s": "s from the end of a pause to the next accepted event",
    "seconds": "seconds",
}


def redis(
    kills: Annotated[int, typer.Option(min=0, help="How often the server dies.")] = 20,
    pauses: Annotated[int, typer.Option(min=0, help="How often it stands still.")] = 10,
    pause: Annotated[float, typer.Option(min=0.1, help="Seconds of one pause.")] = 5.0,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds of peace after each, on the average.")] = 4.0,
    rate: Annotated[float, typer.Option(min=1, help="Rankings a second.")] = 50.0,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Kill and pause Redis under load, count every event, and see that ranking goes on.

    An embedded Valkey with its append-only file, `agerank train` and `agerank serve` run as processes of their own.
    Visitors ask for rankings and report what was shown and clicked; a report that is not answered 202 is sent again
    until it is. Meanwhile the server is killed with SIGKILL, and started again from its file, and stopped for a while
    by SIGSTOP, in a drawn order.

    **in the log** every event that was accepted must be there, and once: a report whose answer was lost with the server
    is sent again and answered `duplicate`. So must be a served record of every ranking. **the trainer counted** exactly
    these events, whatever became of each. **failed** rankings must be none: ranking does not wait for Redis; the
    records of what was served wait in the scorer.

    Exits with 1 where an event was lost or doubled, a ranking failed, its served record was lost or the trainer found
    a gap. The guarantee rests on `appendfsync always`; docs/operations.md says what other settings lose. It takes about
    four minutes.
    """
    with failing(), bar("faults", kills + pauses) as advance:
        found = run(kills=kills, pauses=pauses, pause_s=pause, every_s=every, rate=rate, seed=seed, advance=advance)
    show(found, TITLES, title="Redis that dies and stands still under load", as_json=as_json)
    raise typer.Exit(0 if holds(found) else 1)


def holds(found: Found) -> bool:
    """Whether the promise does."""
    counted = found["events"] == found["logged"] == found["learned"]
    wrong = ("failed", "missing", "doubled", "rejected", "gaps", "dropped", "unrecorded")
    return counted and found["ranked"] > 0 and not any(found[one] for one in wrong)


def run(*, kills: int, pauses: int, pause_s: float, every_s: float, rate: float, seed: int, advance: Advance) -> Found:
    """What TITLES names."""
    started, where, draw = time.monotonic(), cores(None), random.Random(seed)
    faults = ["kill"] * kills + ["pause"] * pauses
    draw.shuffle(faults)
    with ExitStack() as stack:
        stack.enter_context(pinned(where.others))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agerank-chaos-")))
        server = stack.enter_context(EmbeddedServer(folder / "data" / "redis"))
        settings: dict[str, float | list[int]] = {
            "trainer_port": free_port(0),
            "hidden": [32, 16, 8],
            "attribution_window_s": WINDOW_S,
            "publish_interval_s": 2.0,
            "deadline_s": 10.0,
        }
        serve = stack.enter_context(scorer(folder, server.url, where, spec=SMALL, **settings))
        train = stack.enter_context(trainer(folder, where)).wait()
        serve.wait()
        plan = _Plan(faults, [every_s * draw.uniform(0.5, 1.5) for _ in faults], pause_s)
        visitors, recoveries = asyncio.run(_under_load(serve, server, plan, rate, seed, advance))
        written(serve, patience_s=PATIENCE_S)
        log = Log.read(server)
        return {
            "kills": kills,
            "pauses": pauses,
            **_of(visitors),
            **log.compared(visitors.accepted, visitors.ranked),
            **learned(train, log, patience_s=PATIENCE_S),
            "dropped": int(metrics(serve.port).get(("agerank_served_records_total", "dropped"), 0)),
            **{f"{kind}_s": _summary(taken) for kind, taken in recoveries.items()},
            "seconds": time.monotonic() - started,
        }


class _Plan(NamedTuple):
    """What is done to the server: each fault after so many seconds of peace."""

    faults: list[str]
    peace_s: list[float]
    pause_s: float


async def _under_load(
    serve: Server, server: EmbeddedServer, plan: _Plan, rate: float, seed: int, advance: Advance
) -> tuple[Visitors, dict[str, list[float]]]:
    """The visitors, when all that they had to say is accepted, and by fault how long each took to be over."""
    recoveries: dict[str, list[float]] = {"kill": [], "pause": []}
    limits, done = httpx.Limits(max_connections=None), asyncio.Event()
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{serve.port}", timeout=PATIENCE_S, limits=limits, trust_env=False
    ) as client:
        visitors = Visitors(client, rate=rate, seed=seed)
        async with asyncio.timeout(None) as patience, asyncio.TaskGroup() as tasks:
            tasks.create_task(visitors.run(done))
            for fault, peace_s in zip(plan.faults, plan.peace_s, strict=True):
                await asyncio.sleep(peace_s)
                since = await (_kill(server) if fault == "kill" else _pause(server, plan.pause_s))
                recoveries[fault].append(await _recovered(visitors, since))
                advance(f"{fault}, over after {recoveries[fault][-1]:.2f} s")
            await asyncio.sleep(max(plan.peace_s))
            done.set()
            patience.reschedule(asyncio.get_running_loop().time() + PATIENCE_S)
    return visitors, recoveries


async def _kill(server: EmbeddedServer) -> float:
    """Kills the server and starts it again from its file. Returns when it died."""
    os.kill(await asyncio.to_thread(_pid, server), signal.SIGKILL)
    died = time.monotonic()
    await asyncio.to_thread(server.stop)  # which only takes note of its death
    await asyncio.to_thread(server.start)
    return died


async def _pause(server: EmbeddedServer, seconds: float) -> float:
    """Returns when the server went on."""
    pid = await asyncio.to_thread(_pid, server)
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)
    return time.monotonic()


def _pid(server: EmbeddedServer) -> int:
    with connect(server.url, name="agerank-chaos") as client:
        return int(client.info("server")["process_id"])


async def _recovered(visitors: Visitors, since: float) -> float:
    """Seconds until a report was accepted that was sent after that moment."""
    while visitors.accepted_at <= since:
        if time.monotonic() > since + PATIENCE_S:
            raise ChaosError(f"no event was accepted for {PATIENCE_S:g} s; {dict(visitors.refused)}")
        await asyncio.sleep(POLL_S)
    return time.monotonic() - since


def _of(visitors: Visitors) -> Found:
    return {
        "ranked": len(visitors.ranked),
        "failed": visitors.failures.total(),
        "failures": dict(visitors.failures),
        "rank_p99_ms": 1e3 * float(np.quantile(visitors.seconds, 0.99)),
        "rank_max_ms": 1e3 * max(visitors.seconds),
        "events": len(visitors.accepted),
        "again": visitors.results["duplicate"],
        "rejected": visitors.results["rejected"],
        "refused": dict(visitors.refused),
    }


def _summary(taken: Sequence[float]) -> dict[str, float]:
    return {"median": median(taken), "longest": max(taken)} if taken else {}
