"""agerank chaos trainer: a trainer that is killed over and over ends with the bits of one that never was."""

import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NamedTuple

import redis
import typer

from scripts.bench.report import failing
from scripts.chaos.lane import NAMES, Lane
from scripts.chaos.lives import POLL_S, Life, Scene, Watch, phase
from scripts.chaos.report import Advance, AsJson, Found, Seed, bar, show
from scripts.chaos.traffic import Log, make
from scripts.chaos.versions import differing, usable
from service import checkpoints
from service.appends import append_batch
from service.connections import connect
from service.streams import Entry
from service.valkey import EmbeddedServer

APPENDED = 1_000  # entries at a time
START_S = 60.0  # for a trainer to announce the version that it goes on from
PATIENCE_S = 5.0  # from there on for the moment to strike; one with nothing left to learn publishes nothing

TITLES = {
    "ranks": "ranks, one of which is killed",
    "kills": "kills with SIGKILL",
    "phases": "while it was",
    "restarts": "restarts",
    "resumed": "of them from a version that had learned something",
    "versions": "versions published",
    "events": "events in the log",
    "repeated": "entries sent twice",
    "disordered": "events before their served record",
    "join": "made of the events",
    "steps": "optimiser steps",
    "unusable": "deaths after which no whole version was current",
    "equal": "same bits as the undisturbed trainer",
    "seconds": "seconds",
}


class Moment(NamedTuple):
    """When to strike: some time after something was seen."""

    seen: Callable[[Watch, Scene], bool]  # Scene: at the birth of the one to be killed
    within_s: float  # of it


#: They follow each other in a drawn order. What a trainer was really at is found out after its death.
MOMENTS = (
    Moment(lambda watch, born: True, 1.0),  # from the birth on
    Moment(lambda watch, born: watch.announced()[0] != born.announced, 0.3),  # it learns
    Moment(lambda watch, born: watch.incoming() not in (born.incoming, None), 0.005),  # a version is being written
    Moment(lambda watch, born: watch.newest() != born.newest, 0.003),  # a version stands in its place
)


def trainer(
    kills: Annotated[int, typer.Option(min=1, help="How often.")] = 200,
    events: Annotated[
        int, typer.Option(min=1_000, help="Impressions and clicks in the log; served records come on top.")
    ] = 200_000,
    full_every: Annotated[int, typer.Option(min=1, help="Versions from one full one to the next; deltas between.")] = 2,
    ranks: Annotated[int, typer.Option(min=1, help="Processes that train together; one of them is killed.")] = 1,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Kill a trainer over and over, and compare what it ends with to one that was left alone, bit for bit.

    An embedded Valkey holds a log of three partitions with all that a network does to events: some come twice, before
    their served record, before their impression, after the window, for requests that nobody served, or broken. The
    trainer of `agerank train` reads it while it is written, publishes as often as it can, full versions and deltas, and
    is killed with SIGKILL: at random moments, and on purpose while a version is being written, and between its rename
    and its announcement. After every death the version that current.json names is verified as a scorer would. Then the
    trainer is started again. When the last one has read the log to its end, another, which nobody disturbs, reads the
    same log from its start.

    **same bits** weights, optimiser, join, half-filled batch, random generator, budgets, positions: every array of the
    two last versions. **while it was** what each had left when it died: `starting` (it had not announced the version
    that it went on from), `learning`, `saving` (a version not yet renamed), `announcing` (renamed, and nobody told).

    With `--ranks 2` two processes train together; one of them is killed, and the other a moment later. The one that
    nobody disturbs is a single process with `gradient_parts` 2. The log then grows between lives alone: ranks go by the
    server's clock, and these entries bring older times of their own.

    A trainer here is a fork of a process that has imported torch, which saves three seconds a start and nothing else:
    it is a process of its own, with its own lock and connections, and SIGKILL leaves it as dead as any.

    Exits with 1 where a bit differs, a death left no version to serve, or no restart had anything to go on from. 200
    kills take about ten minutes.
    """
    with failing(), bar("trainers", kills + 2) as advance:
        found = run(kills=kills, events=events, full_every=full_every, ranks=ranks, seed=seed, advance=advance)
    show(found, TITLES, title="A trainer that was killed, and one that was not", as_json=as_json)
    if not found["resumed"]:
        typer.echo(
            "nothing is proved: no restart had anything to go on from. Give it more --events or --kills", err=True
        )
    raise typer.Exit(0 if holds(found) else 1)


def holds(found: Found) -> bool:
    """Whether the promise does."""
    return bool(found["equal"] and not found["unusable"] and found["resumed"])


def run(*, kills: int, events: int, full_every: int, ranks: int, seed: int, advance: Advance) -> Found:
    """What TITLES names; `differing` lists the arrays that differ."""
    started = time.monotonic()
    draw, log = random.Random(seed), make(events, NAMES, seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agerank-chaos-")))
        server = stack.enter_context(EmbeddedServer(folder / "redis"))
        client = stack.enter_context(connect(server.url, name="agerank-chaos"))
        lane = Lane(folder / "killed", server.url, client, full_every, ranks=ranks, parts=ranks)
        killed = _killed(lane, log.entries, kills, draw, advance)
        resumed = killed.resumed + lane.has_learned()
        lane.finish()
        versions = lane.watch.announcements()
        advance("the last one has read the log")
        alone = Lane(folder / "alone", server.url, client, full_every, ranks=1, parts=ranks)
        join = alone.finish()
        advance("the undisturbed one has read the log")
        names = differing(lane.store, alone.store)
        return {
            **_said(log),
            "ranks": ranks,
            "kills": kills,
            "phases": dict(killed.phases),
            "restarts": kills,
            "resumed": resumed,
            "versions": versions,
            "join": join,
            "steps": checkpoints.current(alone.store),
            "unusable": killed.unusable,
            "equal": not names,
            "differing": names,
            "seconds": time.monotonic() - started,
        }


def _said(log: Log) -> Found:
    return {
        "entries": len(log.entries),
        "events": log.events,
        "repeated": log.repeated,
        "disordered": log.disordered,
    }


class _Killed(NamedTuple):
    """What came of all that were killed."""

    phases: Counter[str]
    unusable: int
    resumed: int


def _killed(lane: Lane, entries: Sequence[Entry], kills: int, draw: random.Random, advance: Advance) -> _Killed:
    """The log is written on: a part before each life and one while it lasts, the rest after all of them."""
    size = len(entries) // (2 * kills + 1)
    parts = iter([entries[start : start + size] for start in range(0, 2 * kills * size, size)])
    phases: Counter[str] = Counter()
    unusable = resumed = 0
    for _ in range(kills):
        before, meanwhile = next(parts), next(parts)
        if lane.ranks > 1:  # they cannot know that entries will come under older ids than the clock has
            before, meanwhile = [*before, *meanwhile], []
        _append(lane.client, before)
        resumed += lane.has_learned()
        born = lane.watch.look()
        life = lane.begin()
        left = _strike(life, draw.choice(MOMENTS), lane, born, meanwhile, draw)
        died = lane.watch.look()
        _append(lane.client, left)
        phases[phase(born, died)] += 1
        unusable += died.told is not None and not usable(lane.store)
        advance(f"killed while {phase(born, died)}")
    _append(lane.client, entries[2 * kills * size :])
    return _Killed(phases, unusable, resumed)


def _strike(
    life: Life, moment: Moment, lane: Lane, born: Scene, part: Sequence[Entry], draw: random.Random
) -> Sequence[Entry]:
    """Kills it when the moment has come. The part arrives as soon as it has begun; returns it where it did not."""
    end_s, strike_s = time.monotonic() + START_S, math.inf
    while time.monotonic() < min(strike_s, end_s):
        if part and lane.watch.announced()[0] != born.announced:
            _append(lane.client, part)
            part, end_s = (), time.monotonic() + PATIENCE_S
        if strike_s == math.inf and moment.seen(lane.watch, born):
            strike_s = time.monotonic() + draw.uniform(0.0, moment.within_s)
        time.sleep(POLL_S)
    life.kill(draw)
    return part


def _append(client: redis.Redis, entries: Sequence[Entry]) -> None:
    for start in range(0, len(entries), APPENDED):
        append_batch(client, [(one.stream, one.payload, one.position) for one in entries[start : start + APPENDED]])
