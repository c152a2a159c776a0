"""The worker when Redis is gone, full or trimmed, or the folder is not to be written: it goes on where it was."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service import checkpoints
from service.appends import append_batch
from service.checkpoints import LocalStore
from service.connections import connect
from service.streams import StreamNames
from service.training.outcome import Outcome
from service.valkey import EmbeddedServer

Start = Callable[..., Any]


def test_without_redis_it_offers_version_0_and_waits(
    world, start: Start, tmp_path: Path, names: StreamNames, wait_until
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens here
        with connect(f"redis://127.0.0.1:{taken.getsockname()[1]}", name="test") as client:
            running = start(tmp_path, client, names)
            with running.in_thread():
                wait_until(lambda: running.sample("agerank_trainer_log_up") == 0, "the outage to be seen")
                wait_until(lambda: checkpoints.current(LocalStore(tmp_path)) == 0, "version 0")
            assert running.outcomes in ([], [Outcome()])


def test_it_goes_on_where_it_was_when_redis_comes_back(
    world, start: Start, tmp_path: Path, names: StreamNames, bits, wait_until
) -> None:
    logged = world.traffic(300)
    batch = world.batch(logged, names)
    server = EmbeddedServer(tmp_path / "redis").start()
    try:
        with connect(server.url, name="test") as client:
            running = start(tmp_path / "lane", client, names)
            append_batch(client, batch[:500])
            with running.in_thread():
                wait_until(lambda: sum(len(one.predictions) for one in running.outcomes) > 5, "steps")
                server.stop()
                wait_until(lambda: running.sample("agerank_trainer_log_up") == 0, "the outage to be seen")
                server.start()
                with connect(server.url, name="other") as other:
                    append_batch(other, batch[500:])
                expected = world.trainer()
                expected.feed(world.entries(logged, names))
                wait_until(lambda: running.trainer.positions == expected.positions, "the rest of the log")
                assert running.sample("agerank_trainer_log_up") == 1
            assert bits(running.trainer.weights()) == bits(expected.weights())
            assert checkpoints.current(LocalStore(tmp_path / "lane")) == expected.learner.step
    finally:
        server.stop()


def test_entries_removed_unread_are_counted_once_and_reading_goes_on(world, running, names) -> None:
    logged = world.traffic(100)
    batch = world.batch(logged, names)
    append_batch(running.client, batch[:150])
    running.burst()
    append_batch(running.client, batch[150:])
    stream = names.inputs[0]
    running.client.xtrim(stream, maxlen=1, approximate=False)
    running.burst()
    running.burst()
    assert running.sample("agerank_stream_lost_total", stream=stream, reason="trimmed") == 1
    assert running.sample("agerank_stream_lost_total", stream=names.inputs[1], reason="trimmed") is None
    last = running.client.xinfo_stream(stream)["last-generated-id"].decode()
    assert running.trainer.positions[stream] == last


def test_a_version_that_cannot_be_written_is_counted_and_training_goes_on(world, running, names) -> None:
    batch = world.batch(world.traffic(300), names)
    append_batch(running.client, batch[:500])
    running.burst()
    first = running.trainer.learner.step
    append_batch(running.client, batch[500:])
    (running.root / "incoming").write_text("a file where a folder must be")
    with pytest.raises(OSError, match="could not be written"):
        running.burst()
    assert running.sample("agerank_publishes_total", result="failed") == 1
    assert checkpoints.current(LocalStore(running.root)) == first < running.trainer.learner.step
    (running.root / "incoming").unlink()
    running.worker.run(burst=True)
    assert checkpoints.current(LocalStore(running.root)) == running.trainer.learner.step


def test_a_server_without_room_stops_no_learning(world, start: Start, tmp_path: Path, names: StreamNames) -> None:
    """It takes neither dead letters nor announcements, and what is in it can be read."""
    with EmbeddedServer(tmp_path / "redis") as server, connect(server.url, name="test") as client:
        running = start(tmp_path / "lane", client, names)
        append_batch(client, world.batch(world.traffic(300), names))
        client.config_set("maxmemory", 1)
        assert running.burst().steps > 20
        assert running.sample("agerank_dead_letters_total", code="unreadable_entry") > 0
        assert client.exists(names.dead, names.models) == 0
        assert running.sample("agerank_trainer_log_errors_total", reason="out_of_memory") >= 3
        assert running.sample("agerank_trainer_log_up") == 1


def test_after_a_failover_it_writes_where_the_name_leads(
    world, start: Start, tmp_path: Path, names: StreamNames, failover, wait_until
) -> None:
    """And reads there: both servers have the same log."""
    batch = world.batch(world.traffic(100), names)
    with connect(failover.url, name="test") as client:
        running = start(tmp_path / "lane", client, names)
        append_batch(failover.first, batch)
        append_batch(failover.second, batch)
        client.ping()
        failover.happens()
        with running.in_thread():
            wait_until(lambda: failover.second.xlen(names.dead), "dead letters")
        assert failover.second.xlen(names.models) > 0
        assert running.sample("agerank_trainer_log_errors_total", reason="read_only") == 1
