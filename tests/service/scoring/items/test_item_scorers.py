"""Scorers and their item store: who has which items when, and what they do to rankings."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import redis

from service import events
from service.checkpoints import Manifest
from service.settings import Settings
from service.streams import StreamNames
from service.valkey import EmbeddedServer

Call = Callable[..., Any]
Publish = Callable[..., Manifest]
Serving = Callable[..., AbstractContextManager[httpx.Client]]
Until = Callable[..., None]

RED = {"topics": ["red", 7]}


def test_an_id_ranks_as_its_features_do_to_the_last_bit(
    settings: Settings, publish: Publish, serving: Serving, client: redis.Redis, put_batch: Call
) -> None:
    """In the answer, and in the record from which the trainer learns; alone and among others with features."""
    publish(settings.checkpoints)
    items = {f"i-{number}": {"topics": [f"t-{number % 7}", number][: number % 3]} for number in range(50)}
    whole = [{"id": one, "features": features} for one, features in items.items()]
    ask = {"request_id": "r", "strategy": "age_ts", "explain": True, "seed": 5}
    with serving(settings) as api:
        put_batch(api, *whole)
        answers = []
        for candidates in (
            whole,
            [{"id": one} for one in items],
            [{"id": one["id"]} if number % 2 else one for number, one in enumerate(whole)],
        ):
            answers.append(api.post("/v1/rank", json=ask | {"candidates": candidates}).json())
            answers[-1].pop("took_ms")
        assert answers[0] == answers[1] == answers[2]
        assert "warnings" not in answers[0]
    served = [fields[b"e"] for _, fields in client.xrange(StreamNames(settings.redis_prefix, 1).served("r"))]
    records = [events.decode_served(entry) for entry in served]
    assert len({(one.item_index, one.item_weight, tuple(one.score)) for one in records}) == 1
    assert len(records) == 3


def test_features_in_the_request_count_alone(
    settings: Settings, publish: Publish, serving: Serving, put_batch: Call
) -> None:
    publish(settings.checkpoints)
    candidates = [{"id": "a", "features": {"topics": []}}, {"id": "b"}]
    ask = {"request_id": "r", "strategy": "greedy", "candidates": candidates}
    with serving(settings) as api:
        before = api.post("/v1/rank", json=ask).json()["items"]
        put_batch(api, {"id": "a", "features": RED})
        answer = api.post("/v1/rank", json=ask).json()
        assert (answer["items"], answer["warnings"]) == (before, ["item_unknown"])  # of b
        candidates[0].pop("features")
        assert api.post("/v1/rank", json=ask).json()["items"] != before


def test_an_object_without_features_is_as_good_as_none(
    settings: Settings, publish: Publish, serving: Serving, put_batch: Call
) -> None:
    """Many a serializer sends one; alone, among its like, and among candidates with features."""
    publish(settings.checkpoints)
    with serving(settings) as api:
        put_batch(api, {"id": "a", "features": RED})
        for others in ([], [{"id": "b"}], [{"id": "b", "features": RED}], [{"id": "b", "features": {}}]):
            answers = []
            for nothing in ({}, {"features": None}, {"features": {}}, {"features": {"topics": None}}):
                ask = {"request_id": "r", "strategy": "greedy", "candidates": [*others, {"id": "a", **nothing}]}
                answers.append(api.post("/v1/rank", json=ask).json())
                answers[-1].pop("took_ms")
            assert answers == [answers[0]] * 4
            assert ("warnings" in answers[0]) == any(not one.get("features") for one in others)


def test_what_no_scorer_wrote_is_not_told(
    settings: Settings, publish: Publish, serving: Serving, client: redis.Redis
) -> None:
    publish(settings.checkpoints)
    names = StreamNames(settings.redis_prefix, settings.partitions)
    entries = {"broken": b'{"topics": [', "empty": b"", "list": b"[]", "bytes": b"\xff"}
    entries = {one: b"\x01" + features for one, features in entries.items()} | {"later": b"\x02{}"}
    client.hset(names.items, mapping=entries)
    with serving(settings) as api:
        assert {api.get(f"/v1/items/{one}").status_code for one in entries} == {404}


def test_every_scorer_has_what_one_was_given_and_so_has_the_next(
    settings: Settings, publish: Publish, serving: Serving, until: Until, put_batch: Call, knows: Call, metric: Call
) -> None:
    publish(settings.checkpoints)
    with serving(settings) as one, serving(settings) as other:
        put_batch(one, {"id": "a", "features": RED}, {"id": "b", "features": RED})
        until(lambda: metric(other, "agerank_items") == 2 and knows(other, "a", "b"))
        other.delete("/v1/items/a")
        until(lambda: not knows(one, "a"))
    with serving(settings) as later:
        assert knows(later, "b")
        assert not knows(later, "a")
        assert metric(later, 'agerank_items_rebuild_seconds_count{reason="start"}') == 1
        publish(settings.checkpoints, 2)
        until(lambda: later.get("/readyz").json()["version"] == 2)
        assert knows(later, "b")  # the next version has them, too
        assert metric(later, 'agerank_items_rebuild_seconds_count{reason="start"}') == 1


def test_while_redis_is_away_nothing_is_put_and_ranking_goes_on(
    settings: Settings, publish: Publish, serving: Serving, until: Until, tmp_path: Path, put: Call, knows: Call
) -> None:
    publish(settings.checkpoints)
    server = EmbeddedServer(tmp_path / "redis").start()
    mine = Settings(**settings.model_dump(exclude={"redis_url"}), redis_url=server.url)
    try:
        with serving(mine) as api:
            put(api, "a", RED)
            server.stop()
            batch = api.post("/v1/items:batch", json={"items": [{"id": "b", "features": RED}]})
            for answer in (put(api, "b", RED), batch, api.get("/v1/items/a"), api.delete("/v1/items/a")):
                assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
                assert answer.headers["retry-after"] == "1"
            assert knows(api, "a")
            assert not knows(api, "a", "b")
            server.start()
            until(lambda: api.get("/readyz").json()["degraded"] == [])
            assert put(api, "b", RED).json()["result"] == "created"
            assert knows(api, "a", "b")
    finally:
        server.stop()


def test_items_have_a_limit_of_their_own(
    settings: Settings, publish: Publish, serving: Serving, until: Until, tmp_path: Path, put: Call, metric: Call
) -> None:
    """A Redis that hangs keeps no ranking from being answered."""
    publish(settings.checkpoints)
    changes = {"max_in_flight": 1, "deadline_s": 30.0}
    with EmbeddedServer(tmp_path / "redis") as server, redis.Redis.from_url(server.url) as log:
        mine = Settings(**settings.model_dump(exclude={"redis_url"}) | changes, redis_url=server.url)
        with serving(mine) as api, ThreadPoolExecutor(1) as pool:
            log.client_pause(20_000, all=False)
            first = pool.submit(put, api, "a", RED)
            until(lambda: any(one["cmd"] == "eval" and "b" in one["flags"] for one in log.client_list()))
            answer = put(api, "b", RED)
            assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
            assert metric(api, 'agerank_requests_total{route="/v1/items/{id}",status="503"}') == 1
            assert api.post("/v1/rank", json={"candidates": [{"id": "b"}]}).status_code == 200
            log.client_unpause()
            assert first.result().status_code == 200
            assert put(api, "b", RED).status_code == 200
