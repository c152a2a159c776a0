"""agerank bench freshness: from a click to the first answer by a model that learned from it, and what versions cost."""

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from models.types import Array
from scripts.bench import sizes
from scripts.bench.gauges import Samples, grown, mean, quantile, samples
from scripts.bench.load import Outcome, open_loop, post
from scripts.bench.measure import Tell
from scripts.bench.processes import Cores, Server, cores, pinned
from scripts.bench.report import ENGINE, AsJson, BenchError, Column, EngineKind, Row, Runs, failing, progress, show
from scripts.bench.scorer import RANK, checkpoints, log_server, put_items, scorer, trainer
from scripts.bench.users import Users, users
from scripts.bench.work import Catalogue
from scripts.demo_processes import free_port
from service.checkpoints import LocalStore, deltas, load_manifest, versions
from service.connections import connect
from service.events import decode_event
from service.scoring.engines import Kind
from service.streams import FIELD, StreamNames, order

STRATEGY, OPTIMIZER, PREFIX = "age_ts", "sparse_adam", "agerank"
ITEMS = 10_000  # that the requests name by their ids
SHOWN, CTR = 10, 0.05  # items of an answer, and the share of them that is clicked
#: Before and after what is counted: caches fill; the last clicks are learned from, and served.
WARM_S, TAIL_S = 5.0, 5.0
CLICK = "agerank_click_to_serving_seconds"
#: How many of the clicks must have been served in the end.
SERVED = 0.99

COLUMNS = (
    Column("case", "case"),
    Column("versions", "versions"),
    Column("rate", "requests/s", ".0f"),
    Column("p99_ms", "p99 ms", ".1f"),
    Column("click_p50_s", "click to serving p50 s", ".2f"),
    Column("click_p99_s", "p99 s", ".2f"),
    Column("answer_p50_s", "click to answer p50 s", ".2f"),
    Column("answer_p99_s", "p99 s", ".2f"),
    Column("age_p99_s", "newest event p99 s", ".2f"),
    Column("number", "number", ".0f"),
    Column("touched", "rows touched", ".2%"),
    Column("kilobytes", "KB", ",.0f"),
    Column("of_full", "of full", ".2%"),
    Column("publish_ms", "publish ms", ".0f"),
    Column("load_ms", "load ms", ".0f"),
)


class Traffic(NamedTuple):
    """What the client does."""

    rate: float
    seconds: float
    candidates: int


def freshness(
    rate: Annotated[float, typer.Option(min=1.0, help="Rank requests a second.")] = 200.0,
    candidates: Annotated[int, typer.Option(min=SHOWN, max=1_000, help="Of a request.")] = 100,
    seconds: Annotated[float, typer.Option(min=1.0, help="Counted of one run.")] = 20.0,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds from one version to the next.")] = 1.0,
    window: Annotated[float, typer.Option(min=0.05, help="Attribution window in seconds.")] = 0.5,
    full_every: Annotated[int, typer.Option(min=1, help="Versions from one full one to the next.")] = 20,
    items: Annotated[int, typer.Option(min=1_000, help="Of the model whose versions are measured alone.")] = 1_000_000,
    runs: Runs = 3,
    core: Annotated[int | None, typer.Option(min=0, help="The server's core.", show_default="the last")] = None,
    engine: EngineKind = ENGINE,
    as_json: AsJson = False,
) -> None:
    """Measure how soon a click is served, with a version every second, and what versions of a million items cost.

    `agerank serve` has one core; `agerank train`, the log's server and the client share the others. The client asks for
    rankings at the times of a Poisson process, is shown the best 10 of 100 items, and clicks on 5 % of them at once.
    A click is learned from when the attribution window of its impression closes, so that the window is part of every
    figure: that is why it is short here.

    **click to serving** is the scorer's own metric, from a click to the swap that brought it. **click to answer** is
    from the moment that the client posts a click to the first answer, as it gets it, by a model that learned from it.
    **newest event** is the age of the newest event in the model of an answer, over all answers.

    Below, by itself: a model with a million items, of whose rows 0.5 % are touched from one version to the next. **KB**
    is what is written of one version, **publish** the time to write it, **load** to verify and load it.
    """
    with failing(), progress(as_json=as_json, versions=("numpy", "torch")) as tell:
        traffic, where = Traffic(rate, seconds, candidates), cores(core)
        settings = {"publish_interval_s": interval, "attribution_window_s": window, "full_every": full_every}
        found = run(traffic, settings, runs=runs, where=where, engine=engine, tell=tell)
        with pinned([where.server]):
            alone = sizes.run(items=items, runs=runs, engine=engine, tell=tell)
    found += [_row(**row) for row in alone]
    show(found, COLUMNS, title=f"A version every {interval:g} s, median of {runs} runs", as_json=as_json)


def run(
    traffic: Traffic, settings: Mapping[str, Any], *, runs: int, where: Cores, engine: Kind, tell: Tell
) -> list[Row]:
    """A row for the whole loop and one for each kind of version; docs/benchmarks.md explains the keys."""
    with ExitStack() as stack:
        stack.enter_context(pinned(where.others))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agerank-bench-")))
        url = stack.enter_context(log_server(folder, where))
        given = {"engine": engine, "optimizer": OPTIMIZER, "trainer_port": free_port(0), **settings}
        server = stack.enter_context(scorer(folder, url, where, **given))
        learner = stack.enter_context(trainer(folder, where)).wait()
        catalogue = Catalogue(ITEMS)
        put_items(server.wait(), catalogue, ITEMS)
        before = samples(learner), samples(server)
        found = []
        for number in range(1, runs + 1):
            tell(f"run {number} of {runs}")
            found.append(_run(server, LocalStore(checkpoints(folder)), url, traffic, catalogue, number))
        after = samples(learner), samples(server)
    return [_loop(found), *_kinds(before, after)]


class _Run(NamedTuple):
    """What one run came to, in seconds."""

    outcome: Outcome
    click: tuple[float, float]  # p50 and p99 of the scorer's metric
    answer: Array  # (N,) from a click to an answer by who knows it
    ages: Array  # (N,) of the newest event at each answer


def _run(server: Server, store: LocalStore, url: str, traffic: Traffic, catalogue: Catalogue, number: int) -> _Run:
    generator = np.random.default_rng(number)
    numbers = count(number * 1_000_000)  # no request comes twice
    phases = [_requests(catalogue, traffic, seconds, numbers) for seconds in (WARM_S, traffic.seconds, TAIL_S)]
    with users(server.port, ctr=CTR, generator=generator) as who:

        def send(requests: Sequence[bytes]) -> Outcome:
            seconds = len(requests) / traffic.rate
            return open_loop(
                server.port,
                requests,
                rate=traffic.rate,
                seconds=seconds,
                generator=generator,
                answered=who.answered,
            )

        warm = send(phases[0])
        before, begun, skipped = samples(server), time.time(), len(who.ages)
        outcome = send(phases[1])
        ended, ages = time.time(), who.ages[skipped:]
        tail = send(phases[2])
        after = samples(server)
    failures = warm.failures + outcome.failures + tail.failures + who.failures
    if failures:
        raise BenchError(f"{server.name} failed: {dict(failures)}")
    click = quantile(before, after, CLICK, 0.5), quantile(before, after, CLICK, 0.99)
    return _Run(outcome, click, _answers(store, url, who, begun, ended), np.array(ages))


def _requests(catalogue: Catalogue, traffic: Traffic, seconds: float, numbers: Iterator[int]) -> list[bytes]:
    options: dict[str, Any] = {"strategy": STRATEGY, "top_k": SHOWN, "ids_only": True}
    wanted = islice(numbers, round(traffic.rate * seconds))
    return [post(RANK, catalogue.body(number, traffic.candidates, **options)) for number in wanted]


def _answers(store: LocalStore, url: str, who: Users, begun: float, ended: float) -> Array:
    """From each click posted between these times to the first answer by a version that learned from it.

    Raises BenchError: too many were never learned from, or not served.
    """
    waiting = defaultdict(list)  # when it was logged, ms -> when it was posted
    with connect(url, name="bench") as client:
        for position, fields in client.xrange(StreamNames(PREFIX, 1).feedback("")):
            event = decode_event(fields[FIELD])
            if event.time is not None and begun <= event.time.timestamp() < ended:
                waiting[order(position.decode())[0]].append(event.time.timestamp())
    posted = sum(map(len, waiting.values()))
    seen, served = [], sorted(who.served.items())
    for version in sorted({*versions(store), *deltas(store)}):
        came = next((at for other, at in served if other >= version), None)
        if came is None:  # the newest, of which no answer came
            break
        learned = load_manifest(store, version).click_times_ms
        seen += [came - waiting[click_ms].pop() for click_ms in learned if waiting[click_ms]]
    if len(seen) < SERVED * posted:
        raise BenchError(f"of {posted} clicks {posted - len(seen)} were not served {TAIL_S:g} s later")
    return np.array(seen)


def _loop(found: Sequence[_Run]) -> Row:
    return _row(
        case="loop",
        rate=median(one.outcome.rate for one in found),
        p99_ms=1e3 * median(one.outcome.quantile(0.99) for one in found),
        click_p50_s=median(one.click[0] for one in found),
        click_p99_s=median(one.click[1] for one in found),
        answer_p50_s=median(float(np.quantile(one.answer, 0.5)) for one in found),
        answer_p99_s=median(float(np.quantile(one.answer, 0.99)) for one in found),
        age_p99_s=median(float(np.quantile(one.ages, 0.99)) for one in found),
    )


def _kinds(before: tuple[Samples, Samples], after: tuple[Samples, Samples]) -> list[Row]:
    """What the trainer and the server tell of each kind of version, between two readings of both."""
    rows = []
    for kind in ("full", "delta"):
        publish_s = mean(before[0], after[0], "agerank_publish_seconds", kind=kind)
        load_s = mean(before[1], after[1], "agerank_swap_seconds", kind=kind)
        number = grown(before[0], after[0], "agerank_publish_seconds_count", kind=kind)
        size = grown(before[0], after[0], "agerank_published_bytes_total", kind=kind)
        rows.append(
            _row(
                case="loop",
                versions=kind,
                number=number,
                kilobytes=size / number / 1e3 if number else None,
                publish_ms=_ms(publish_s),
                load_ms=_ms(load_s),
            )
        )
    return rows


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def _row(**given: Any) -> Row:
    return {column.key: None for column in COLUMNS} | given
