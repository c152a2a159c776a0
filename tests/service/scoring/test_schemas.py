"""What the API understands, and how it says that it does not."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Invalid, ServiceError, TooLarge
from service.scoring import schemas
from service.scoring.schemas import Model, RankedItem, RankResponse


@given(
    st.binary() | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(lambda it: json.dumps(it).encode())
)
def test_nothing_but_our_own_errors_comes_out(body: bytes) -> None:
    with pytest.raises(ServiceError):
        schemas.decode_events(body, max_events=3)


def test_events_are_kept_apart_until_each_is_read() -> None:
    first, second = schemas.decode_events(b'{"events": [{"id": 1}, null]}', max_events=2)
    assert (bytes(first), bytes(second)) == (b'{"id": 1}', b"null")
    with pytest.raises(TooLarge, match="2 events, at most 1"):
        schemas.decode_events(b'{"events": [1, 2]}', max_events=1)
    with pytest.raises(Invalid, match="array"):
        schemas.decode_events(b'[{"id": "a"}]', max_events=1)


def test_an_answer_leaves_out_what_it_does_not_have() -> None:
    answer = RankResponse(
        request_id="r",
        model=Model(name="default", version=3, data_timestamp=datetime(2026, 5, 1, tzinfo=UTC)),
        strategy="greedy",
        items=[RankedItem("a", 1, 0.5, 0.5, False)],
        took_ms=1.0,
    )
    assert json.loads(schemas.encode(answer)) == {
        "request_id": "r",
        "model": {"name": "default", "version": 3, "data_timestamp": "2026-05-01T00:00:00Z"},
        "strategy": "greedy",
        "items": [{"id": "a", "rank": 1, "score": 0.5, "p_click": 0.5, "explored": False}],
        "took_ms": 1.0,
    }
