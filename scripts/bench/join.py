"""agerank bench join: what the impressions that wait for their clicks add to a checkpoint, in bytes and in seconds."""

import time
from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
import typer

from scripts.bench.measure import Tell
from scripts.bench.processes import Cores, cores, pinned
from scripts.bench.records import record
from scripts.bench.report import AsJson, Column, Core, Row, Runs, failing, progress, show, whole_numbers
from scripts.bench.work import Catalogue, rows
from service.events import Event, Served, encode
from service.streams import Entry, StreamNames
from service.training.join import Join

WINDOW_MS = 600_000
TEMPLATES = 100  # records that differ in more than their ids
CTR = 0.05
NAMES = StreamNames("bench", partitions=1)

COLUMNS = (
    Column("slate", "items shown", "d"),
    Column("pending", "pending", ",d"),
    Column("mib", "MiB", ".1f"),
    Column("bytes_each", "bytes each", ".0f"),
    Column("record_bytes_each", "of them record", ".0f"),
    Column("state_s", "state s", ".2f"),
    Column("restore_s", "restore s", ".2f"),
)


def join(
    pending: Annotated[int, typer.Option(min=1, help="Impressions that wait.")] = 1_000_000,
    slates: Annotated[
        str, typer.Option(help="Items shown in a request; several are separated by commas.")
    ] = "1,10,100",
    runs: Runs = 3,
    core: Core = None,
    as_json: AsJson = False,
) -> None:
    """Measure the state of a join with a million pending impressions, one in twenty clicked: it is in every checkpoint.

    **MiB** is its size, **bytes each** the same for one impression; **of them record** are the served records, as they
    are in the log. **state** makes it, beside which nothing is learned, and **restore** is what a restart waits for;
    both are medians of the runs.
    """
    with failing(), progress(as_json=as_json, versions=("numpy", "msgspec")) as tell:
        found = run(slates=whole_numbers(slates), pending=pending, runs=runs, where=cores(core), tell=tell)
    show(found, COLUMNS, title="The state of a join", as_json=as_json)


def run(*, slates: Sequence[int], pending: int, runs: int, where: Cores, tell: Tell) -> list[Row]:
    """A row for each slate; docs/benchmarks.md explains the keys."""
    with pinned([where.server]):
        return [_row(slate, pending, runs, tell) for slate in slates]


def _row(slate: int, pending: int, runs: int, tell: Tell) -> Row:
    tell(f"{pending} impressions, {slate} at a time")
    templates = [_served(number, slate) for number in range(TEMPLATES)]
    full, again = _join(pending), _join(pending)
    _fill(full, templates, pending)
    state_s, restore_s = [], []
    for number in range(1, runs + 1):
        tell(f"run {number} of {runs}")
        started = time.perf_counter()
        state = full.state()
        made = time.perf_counter()
        again.restore(state)
        state_s.append(made - started)
        restore_s.append(time.perf_counter() - made)
    size = sum(array.nbytes for array in state.values())
    return {
        "slate": slate,
        "pending": again.pending,
        "mib": size / 2**20,
        "bytes_each": size / again.pending,
        "record_bytes_each": state["payload"].nbytes / again.pending,
        "state_s": float(np.median(state_s)),
        "restore_s": float(np.median(restore_s)),
    }


def _join(pending: int) -> Join:
    return Join(window_ms=WINDOW_MS, mode="served", max_pending=pending)


def _fill(into: Join, templates: Sequence[Served], pending: int) -> None:
    """With so many impressions, a request and its click, if there is one, in each millisecond or some of them."""
    slate = len(templates[0].item_ids)
    requests = pending // slate
    clicked = np.random.default_rng(0).random((requests, slate)) < CTR
    for number, clicks in enumerate(clicked):
        time_ms = 1 + number * WINDOW_MS // requests
        served = msgspec.structs.replace(templates[number % TEMPLATES], request_id=f"request-{number:026d}")
        into.serve(Entry(NAMES.served(served.request_id), f"{time_ms}-{number}", encode(served)), served)
        for row in np.flatnonzero(clicks).tolist():
            event = Event(
                id=f"{number:032d}-{row}", type="click", request_id=served.request_id, item_id=served.item_ids[row]
            )
            into.feedback(Entry(NAMES.feedback(served.request_id), f"{time_ms}-{number}", encode(event)), event)


def _served(number: int, slate: int) -> Served:
    """A record of the benchmark's work: 12 fields an item."""
    request = Catalogue().request(number, slate)
    return record(
        rows(request),
        [one["id"] for one in request["candidates"]],
        np.random.default_rng(number).random(slate).tolist(),
        request_id="r",
        time_ms=1_700_000_000_000,
        strategy="age_ts",
        version=1_000_000,
        lambda_=10.0,
        seed=2**63 + number,
        impressions=[10_000] * slate,
    )
