"""Posted events: accepted only when Redis has them, each with a result of its own."""

import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client import CollectorRegistry

from service import events
from service.connections import connect, connect_async
from service.errors import TooLarge, Unavailable
from service.events import Event
from service.scoring.feedback import Feedback
from service.streams import StreamNames
from service.telemetry import ScorerMetrics
from service.valkey import EmbeddedServer


@pytest.fixture
async def feedback(redis_url: str, names: StreamNames) -> AsyncIterator[Feedback]:
    client = connect_async(redis_url, name="test-feedback")
    yield made(client, names)
    await client.aclose()


def made(client: Any, names: StreamNames, timeout_s: float = 5.0) -> Feedback:
    metrics = ScorerMetrics(CollectorRegistry())
    return Feedback(client, names, max_events=10, remember_s=60.0, timeout_s=timeout_s, maxlen=1_000, metrics=metrics)


def event(**changes: Any) -> dict[str, Any]:
    return {"id": "e1", "type": "click", "request_id": "r1", "item_id": "a"} | changes


async def post(feedback: Feedback, *items: Any) -> list[dict[str, Any]]:
    return json.loads(await feedback.post(json.dumps({"events": list(items)}).encode()))["results"]


def logged(client: redis.Redis, names: StreamNames) -> list[Event]:
    entries = [fields[b"e"] for stream in names.inputs for _, fields in client.xrange(stream)]
    return [events.decode_event(entry) for entry in entries]


async def test_an_accepted_event_is_in_the_log(client: redis.Redis, names: StreamNames, feedback: Feedback) -> None:
    sent = event(type="impression", time="2026-05-01T12:00:00+02:00", value=0.5)
    assert await post(feedback, sent) == [{"id": "e1", "result": "accepted"}]
    time = datetime(2026, 5, 1, 10, tzinfo=UTC)
    assert logged(client, names) == [
        Event(id="e1", type="impression", request_id="r1", item_id="a", time=time, value=0.5)
    ]


async def test_an_id_counts_once(client: redis.Redis, names: StreamNames, feedback: Feedback) -> None:
    """Within a batch, and when the batch is sent again."""
    results = await post(feedback, event(), event(item_id="b"), event(id="e2"))
    assert [one["result"] for one in results] == ["accepted", "duplicate", "accepted"]
    assert [one["result"] for one in await post(feedback, event(), event(id="e3"))] == ["duplicate", "accepted"]
    assert sorted((one.id, one.item_id) for one in logged(client, names)) == [("e1", "a"), ("e2", "a"), ("e3", "a")]


WRONG = {
    "no object": (7, None, "invalid_event"),
    "no id": ({"type": "click"}, None, "invalid_event"),
    "an id of another type": (event(id=7), None, "invalid_event"),
    "an empty id": (event(id=""), "", "invalid_event"),
    "an overlong item": (event(item_id="x" * 257), "e1", "invalid_event"),
    "an unknown type": (event(type="share"), "e1", "invalid_event"),
    "an unknown field": (event(user="u"), "e1", "invalid_event"),
    "a time without zone": (event(time="2026-05-01T12:00:00"), "e1", "invalid_event"),
    "a time to come": (event(time=(datetime.now(UTC) + timedelta(days=1)).isoformat()), "e1", "event_time"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_event_is_rejected_alone(
    client: redis.Redis, names: StreamNames, feedback: Feedback, case: str
) -> None:
    wrong, identity, code = WRONG[case]
    first, rejected, last = await post(feedback, event(id="before"), wrong, event(id="after"))
    assert [first["result"], last["result"]] == ["accepted", "accepted"]
    assert (rejected["id"], rejected["result"], rejected["code"]) == (identity, "rejected", code)
    assert len(rejected["detail"]) > 10
    assert {one.id for one in logged(client, names)} == {"before", "after"}


async def test_a_clock_that_is_a_little_fast_is_forgiven(feedback: Feedback) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=4)).isoformat()
    assert (await post(feedback, event(time=soon)))[0]["result"] == "accepted"


async def test_text_that_is_no_text_is_rejected(feedback: Feedback) -> None:
    body = b'{"events": [{"id": "\xff", "type": "click", "request_id": "r", "item_id": "a"}]}'
    (result,) = json.loads(await feedback.post(body))["results"]
    assert (result["id"], result["code"]) == (None, "invalid_event")


async def test_results_are_counted_by_type(feedback: Feedback) -> None:
    await post(feedback, event(), event(), event(id="e2", type="impression"), {})
    value = feedback._metrics.registry.get_sample_value
    counted = {
        (kind, result): value("agerank_events_total", {"type": kind, "result": result})
        for kind, result in [
            ("click", "accepted"),
            ("click", "duplicate"),
            ("impression", "accepted"),
            ("unknown", "rejected"),
        ]
    }
    assert set(counted.values()) == {1.0}


async def test_nothing_is_done_for_nothing_and_too_much_is_refused(feedback: Feedback) -> None:
    assert await post(feedback) == []
    with pytest.raises(TooLarge, match="at most 10"):
        await post(feedback, *[event()] * 11)


@pytest.mark.parametrize("down", ["refused", "silent"])
async def test_nothing_is_accepted_while_redis_is_away(names: StreamNames, down: str) -> None:
    """Whether it refuses connections or takes them and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if down == "refused":
            silent.close()
        client = connect_async(f"redis://127.0.0.1:{port}/0", name="test-feedback")
        with pytest.raises(Unavailable) as caught:
            await post(made(client, names, timeout_s=0.2), event())
        assert (caught.value.code, caught.value.retry_after_s) == ("log_unavailable", 1)
        await client.aclose()


async def test_a_server_without_room_says_so_and_what_is_sent_again_counts_once(
    tmp_path: Path, names: StreamNames
) -> None:
    with EmbeddedServer(tmp_path) as server, connect(server.url, name="test") as admin:
        client = connect_async(server.url, name="test-feedback")
        feedback = made(client, names)
        assert [one["result"] for one in await post(feedback, event())] == ["accepted"]
        admin.config_set("maxmemory", 1)
        with pytest.raises(Unavailable) as caught:
            await post(feedback, event(), event(id="e2"))
        assert (caught.value.code, caught.value.retry_after_s) == ("log_full", 1)
        admin.config_set("maxmemory", 0)
        assert [one["result"] for one in await post(feedback, event(), event(id="e2"))] == ["duplicate", "accepted"]
        assert [one.id for one in logged(admin, names)] == ["e1", "e2"]
        await client.aclose()
    failed = feedback._metrics.registry.get_sample_value("agerank_log_errors_total", {"reason": "out_of_memory"})
    assert failed == 1


async def test_after_a_failover_who_sends_again_is_served(failover: Any, names: StreamNames) -> None:
    client = connect_async(failover.url, name="test-feedback")
    feedback = made(client, names)
    await post(feedback, event())
    failover.happens()
    with pytest.raises(Unavailable, match="send the same again"):
        await post(feedback, event(id="e2"))
    assert [one["result"] for one in await post(feedback, event(id="e2"))] == ["accepted"]
    assert [one.id for one in logged(failover.second, names)] == ["e2"]
    await client.aclose()
