"""What a trainer reads: served records and clicks as they lie in the log, made from a seed."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from models.features import Encoder
from models.spec import FeatureSpec
from scripts.bench.records import record
from scripts.bench.work import SPEC, STRATEGIES, Catalogue
from service.events import Event, Served, encode
from service.streams import Entry, StreamNames

WINDOW_MS = 1_000
SHOWN = (10, 20)  # items of a request, at least and at most
_START_MS, _APART_MS = 1_700_000_000_000, 5  # of the first request, and from one to the next
_CTR, _DELAY_MS = 0.03, 300.0  # of a click, on the average; few are late
_TWICE = 0.01  # share of what is sent again


class _Logged(NamedTuple):
    time_ms: int
    stream: str
    payload: bytes


def entries(requests: int, names: StreamNames, seed: int = 0) -> list[Entry]:
    """The log of so many requests in the order in which it is read, and after them one that ends every wait."""
    logged = sorted(_logged(requests, names, seed), key=lambda one: one.time_ms)
    last = logged[-1].time_ms + 2 * WINDOW_MS
    end = encode(Event(id="end", type="impression", request_id="end", item_id="end"))
    logged.append(_Logged(last, names.feedback("end"), end))
    return [Entry(one.stream, f"{one.time_ms}-{place}", one.payload) for place, one in enumerate(logged, 1)]


def _logged(requests: int, names: StreamNames, seed: int) -> Iterator[_Logged]:
    generator = np.random.default_rng([seed, 2])
    catalogue, encoder = Catalogue(seed=seed), Encoder(FeatureSpec.from_toml(SPEC))
    for number in range(requests):
        time_ms = _START_MS + number * _APART_MS
        shown = int(generator.integers(SHOWN[0], SHOWN[1] + 1))
        served = _served(catalogue, encoder, number, shown, time_ms, generator)
        copies = 1 + int(generator.random() < _TWICE)
        yield from [_Logged(time_ms, names.served(served.request_id), encode(served))] * copies
        for row in np.flatnonzero(generator.random(shown) < _CTR).tolist():
            item_id = served.item_ids[row]
            event = Event(
                id=f"{served.request_id}-{item_id}", type="click", request_id=served.request_id, item_id=item_id
            )
            clicked_ms = time_ms + 1 + int(generator.exponential(_DELAY_MS))
            copies = 1 + int(generator.random() < _TWICE)
            yield from [_Logged(clicked_ms, names.feedback(served.request_id), encode(event))] * copies


def _served(
    catalogue: Catalogue, encoder: Encoder, number: int, shown: int, time_ms: int, generator: np.random.Generator
) -> Served:
    request = catalogue.request(number, shown)
    candidates, user = request["candidates"], request["user"]
    ids = [one["id"] for one in candidates]
    batch = encoder.batch(
        ids,
        [one["features"] for one in candidates],
        user_id=user["id"],
        user=user["features"],
        context=request["context"]["features"],
    )
    return record(
        batch,
        ids,
        generator.uniform(0.0, 2 * _CTR, shown).tolist(),
        request_id=request["request_id"],
        time_ms=time_ms,
        strategy=list(STRATEGIES)[number % len(STRATEGIES)],
        lambda_=10.0,
        seed=number,
        spec_hash=encoder.spec.hash,
        explored=(generator.random(shown) < 0.05).tolist(),
        impressions=generator.integers(6_000, size=shown).tolist(),
    )
