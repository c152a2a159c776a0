"""The body of a ranking: as the spec's own structs where all is well, and told what is wrong where it is not."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.features import Encoder
from models.spec import FeatureSpec
from service.errors import BadRequest, Invalid, ServiceError, TooLarge
from service.events import MAX_ID_LENGTH
from service.scoring.decoding import RankDecoder
from service.scoring.schemas import RankRequest

ENCODER = Encoder(
    FeatureSpec.from_toml(
        '[[fields]]\nname="country"\nside="user"\nkind="categorical"\nbuckets=5\n'
        '[[fields]]\nname="hour of day"\nside="context"\nkind="numeric"\n'
        '[[fields]]\nname="topics"\nside="item"\nkind="multi_hot"\nbuckets=5\nmax_values=2\n'
    )
)
DECODER = RankDecoder(ENCODER.rows)


def decode(body: bytes | dict[str, Any]) -> RankRequest:
    return DECODER.decode(body if isinstance(body, bytes) else json.dumps(body).encode(), max_candidates=3)


def test_only_candidates_are_needed() -> None:
    request = decode(b'{"candidates": [{"id": "a"}]}')
    assert request.candidates[0].id == "a"
    assert (request.user.id, request.top_k, request.strategy, request.seed, request.explain) == (None,) * 5


def test_what_may_be_left_out_may_be_null() -> None:
    optional = dict.fromkeys(["request_id", "top_k", "strategy", "explain", "seed"])
    given = {"candidates": [{"id": "a", "features": None, "bid": None}], "context": {"features": None}, **optional}
    left_out = {"candidates": [{"id": "a"}]}
    assert decode(given | {"user": {"id": None, "features": None}}) == decode(left_out)


def test_everything_that_may_be_said() -> None:
    request = decode(
        {
            "request_id": "r",
            "user": {"id": "u", "features": {"country": "de"}},
            "context": {"features": {"hour of day": 13.5}},
            "candidates": [{"id": "a", "features": {"topics": ["x", "y"]}, "bid": 0.25}, {"id": "b", "features": None}],
            "top_k": 1,
            "strategy": "greedy",
            "explain": True,
            "seed": 2**63 - 1,
        }
    )
    row = request.candidates[0].features
    assert type(row) is ENCODER.rows.item
    assert msgspec.structs.astuple(row) == (["x", "y"],)
    assert (request.candidates[0].bid, request.seed) == (0.25, 2**63 - 1)


ONE = b'{"candidates":[{"id":"a"}]'


@pytest.mark.parametrize(
    ("body", "kind", "code", "path"),
    [
        (b"", BadRequest, "malformed_json", None),
        (b"{", BadRequest, "malformed_json", None),
        (b'{"candidates":[{"id":"a","bid":NaN}]}', BadRequest, "malformed_json", None),
        (b'{"candidates":[{"id":"a","bid":Infinity}]}', BadRequest, "malformed_json", None),
        (b'{"candidates":[{"id":"\xff"}]}', BadRequest, "malformed_json", None),
        (b'{"candidates":[{"id":"\\ud800"}]}', BadRequest, "malformed_json", None),
        (b'{"candidates":[{"id":"a","features":{"a":' + b"[" * 100_000, BadRequest, "malformed_json", None),
        (b"[]", Invalid, "invalid_request", None),
        (b"{}", Invalid, "invalid_request", "candidates"),
        (b'{"candidates":[]}', Invalid, "invalid_request", "candidates"),
        (b'{"candidates":[{}]}', Invalid, "invalid_request", "candidates[0].id"),
        (b'{"candidates":[{"id":"a"},{"id":7}]}', Invalid, "invalid_request", "candidates[1].id"),
        (b'{"candidates":[{"id":""}]}', Invalid, "invalid_request", "candidates[0].id"),
        (b'{"candidates":[{"id":"a","position":1}]}', Invalid, "invalid_request", "candidates[0].position"),
        (b'{"candidates":[{"id":"a","bid":-1}]}', Invalid, "invalid_request", "candidates[0].bid"),
        (b'{"candidates":[{"id":"a","bid":1e999}]}', Invalid, "invalid_request", "candidates[0].bid"),
        (b'{"candidates":[{"id":"a"},{"id":"b"},{"id":"a"}]}', Invalid, "duplicate_candidate", "candidates[2].id"),
        (ONE + b',"top_k":0}', Invalid, "invalid_request", "top_k"),
        (ONE + b',"seed":-1}', Invalid, "invalid_request", "seed"),
        (ONE + b',"seed":1.5}', Invalid, "invalid_request", "seed"),
        (ONE + b',"request_id":""}', Invalid, "invalid_request", "request_id"),
        (ONE + b',"user":{"id":3}}', Invalid, "invalid_request", "user.id"),
        (ONE + b',"usr":{}}', Invalid, "invalid_request", "usr"),
        (ONE + b',"context":{"features":[]}}', Invalid, "invalid_request", "context.features"),
        (b'{"candidates":[' + b",".join([b'{"id":"a"}'] * 4) + b"]}", TooLarge, "too_many_candidates", "candidates"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong_and_where(
    body: bytes, kind: type[ServiceError], code: str, path: str | None
) -> None:
    with pytest.raises(ServiceError) as caught:
        decode(body)
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.path) == (code, path)
    assert "$" not in caught.value.detail


def test_the_limit_stands_in_the_refusal() -> None:
    with pytest.raises(TooLarge, match="4 candidates, at most 3"):
        decode({"candidates": [{"id": str(number)} for number in range(4)]})


@pytest.mark.parametrize("where", ["request_id", "user", "candidate"])
def test_an_id_is_as_long_as_it_may_be_and_no_longer(where: str) -> None:
    def body(length: int) -> dict[str, Any]:
        text = "\u00e9" * length  # characters count, not bytes
        ids = {"request_id": "r", "user": "u", "candidate": "c"} | {where: text}
        return {"request_id": ids["request_id"], "user": {"id": ids["user"]}, "candidates": [{"id": ids["candidate"]}]}

    decode(body(MAX_ID_LENGTH))
    with pytest.raises(Invalid):
        decode(body(MAX_ID_LENGTH + 1))


def test_what_does_not_fit_is_left_as_it_came_for_the_encoder_to_name() -> None:
    request = decode({"user": {"features": {"city": "x"}}, "candidates": [{"id": "a", "features": {"topics": 1}}]})
    assert request.user.features == {"city": "x"}
    assert request.candidates[0].features == {"topics": 1}


def test_the_last_of_two_values_counts() -> None:
    request = decode(b'{"candidates": [{"id": "a", "features": {"topics": ["x"], "topics": ["y"]}}]}')
    assert msgspec.structs.astuple(request.candidates[0].features) == (["y"],)


@given(
    st.binary() | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(lambda it: json.dumps(it).encode())
)
def test_nothing_but_our_own_errors_comes_out(body: bytes) -> None:
    with pytest.raises(ServiceError):
        decode(body)
