"""The worker against a real server: drains, waits, survives, and ends with the same bits however often it is killed."""

import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry

from service import checkpoints
from service.appends import append_batch
from service.checkpoints import LocalStore
from service.connections import connect
from service.errors import CheckpointError
from service.events import decode_announcement, decode_dead_letter
from service.streams import StreamNames, entries_of
from service.telemetry import TrainerMetrics
from service.training.guard import UNGUARDED, Bounds, Guard
from service.training.outcome import Outcome, Progress
from service.training.publisher import Publisher
from service.training.worker import Worker
from service.valkey import EmbeddedServer

PATIENCE_S = 20.0


class Running:
    """A worker with everything that it needs, and what can be seen of it."""

    def __init__(
        self, world, root: Path, client: redis.Redis, names: StreamNames, interval_s=1e9, bounds: Bounds = UNGUARDED
    ) -> None:
        self.set_back_s = 0.0  # the clock
        self.root, self.client, self.names = root, client, names
        self.trainer, self.stop = world.trainer(), threading.Event()
        self.metrics = TrainerMetrics(CollectorRegistry())
        self.outcomes: list[Outcome] = []
        graphs = {name: world.graph(strategy) for name, strategy in self.trainer.strategies.items()}
        given = {"spec": world.spec_toml, "graphs": graphs, "guard": Guard(bounds), "refused": self.metrics.refused}
        publisher = Publisher(LocalStore(root), self.trainer, keep=3, **given)
        self.worker = Worker(
            trainer=self.trainer,
            publisher=publisher,
            client=client,
            names=names,
            window_ms=world.window_ms,
            maxlen=1_000,
            publish_interval_s=interval_s,
            metrics=self.metrics,
            stop=self.stop,
            clock=lambda: time.time() - self.set_back_s,
            observe=self.outcomes.append,
        )

    @contextmanager
    def in_thread(self) -> Iterator[None]:
        thread = threading.Thread(target=self.worker.run)
        thread.start()
        try:
            yield
        finally:
            self.stop.set()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def burst(self) -> Progress:
        return self.worker.run(burst=True)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def payloads(self, stream: str) -> list[bytes]:
        return [entry.payload for entry in entries_of(self.client.xread({stream: "0"})).get(stream, [])]


@pytest.fixture
def running(world, tmp_path: Path, client: redis.Redis, names: StreamNames) -> Running:
    return Running(world, tmp_path, client, names)


def test_a_burst_reads_the_log_to_its_end_and_publishes(world, running: Running, names: StreamNames, bits) -> None:
    logged = world.traffic(300)
    append_batch(running.client, world.batch(logged, names))
    progress = running.burst()
    expected = world.trainer()
    outcome = expected.feed(world.entries(logged, names))
    assert progress.steps == expected.learner.step > 20
    version = checkpoints.current(LocalStore(running.root))
    manifest = checkpoints.load_manifest(LocalStore(running.root), version)
    assert bits(checkpoints.load_weights(LocalStore(running.root), manifest)) == bits(expected.weights())
    assert manifest.positions == expected.positions
    assert manifest.metrics == pytest.approx(progress.metrics())

    announced = [decode_announcement(payload) for payload in running.payloads(names.models)]
    assert [(one.lane, one.version) for one in announced] == [("default", 0), ("default", version)]
    letters = [decode_dead_letter(payload) for payload in running.payloads(names.dead)]
    assert letters == outcome.dead_letters
    assert {letter.code for letter in letters} == {"unreadable_entry", "unknown_request"}


def test_a_clock_that_is_set_back_holds_up_no_version(world, running: Running, names, wait_until) -> None:
    with running.in_thread():
        append_batch(running.client, world.batch(world.traffic(200), names))
        wait_until(lambda: running.trainer.learner.step > 3, "a step")
        assert checkpoints.current(LocalStore(running.root)) == 0
        running.set_back_s = 86_400.0
        wait_until(lambda: checkpoints.current(LocalStore(running.root)), "a version")


def test_the_sums_of_a_run_keep_nothing_that_grows(world, running: Running, names: StreamNames) -> None:
    append_batch(running.client, world.batch(world.traffic(200), names))
    progress = running.burst()
    assert progress.clicks > 0
    assert progress.click_times_ms == []


def test_weights_that_are_not_finite_are_not_published_and_said(world, running: Running, names: StreamNames) -> None:
    running.worker.run(burst=True)
    running.trainer.learner.params["mlp.0.item"].data.fill_(float("nan"))
    append_batch(running.client, world.batch(world.traffic(200), names))
    with pytest.raises(CheckpointError, match="training diverged"):
        running.burst()
    assert running.sample("agerank_publishes_total", result="failed") == 1
    assert checkpoints.versions(LocalStore(running.root)) == [0]


def test_what_it_did_can_be_seen(world, running: Running, names: StreamNames) -> None:
    logged = world.traffic(200)
    append_batch(running.client, world.batch(logged, names))
    progress = running.burst()
    for stream in names.inputs:
        count = sum(entry[0] == stream for entry in world.batch(logged, names))
        assert running.sample("agerank_stream_entries_total", stream=stream) == count
        assert running.sample("agerank_stream_lag_entries", stream=stream) == 0
    outcome = world.trainer().feed(world.entries(logged, names))
    for result, count in outcome.join.items():
        assert running.sample("agerank_join_total", result=result) == count
    assert outcome.join.keys() == {"matched", "duplicate", "late", "ignored", "unknown_request"}
    sums = outcome.slices["age_ts", "new"]
    labels = {"lane": "default", "strategy": "age_ts", "item_age": "new"}
    assert running.sample("agerank_impressions_total", **labels) == sums.impressions > 0
    assert running.sample("agerank_clicks_total", **labels) == sums.clicks > 0
    assert running.sample("agerank_predicted_clicks_total", **labels) == pytest.approx(sums.predicted_clicks)
    assert running.sample("agerank_score_sum_total", **labels) == pytest.approx(sums.score)
    assert running.sample("agerank_examples_total") == progress.examples
    assert running.sample("agerank_steps_total") == progress.steps
    assert running.sample("agerank_loss") > 0
    assert running.sample("agerank_join_pending") == running.trainer.joins.pending
    assert running.sample("agerank_publishes_total", result="published") == 1
    assert running.sample("agerank_publish_seconds_count", kind="full") == 1
    assert running.sample("agerank_published_version") == progress.steps
    assert running.sample("agerank_trainer_log_up") == 1
    seen = [len(one.p) for outcome in running.outcomes for one in outcome.predictions]
    assert sum(seen) == progress.examples
    append_batch(running.client, [(names.inputs[1], b"", f"{(int(time.time()) + 10**6) * 1000}-0")])
    running.burst()
    assert running.sample("agerank_stream_redated_total", stream=names.inputs[1]) == 1


def test_it_publishes_as_it_goes(world, tmp_path: Path, client: redis.Redis, names: StreamNames, wait_until) -> None:
    running = Running(world, tmp_path, client, names, interval_s=0.05)
    logged = world.traffic(400)
    batch = world.batch(logged, names)
    with running.in_thread():
        for part in (batch[:500], batch[500:800], batch[800:]):
            before = running.sample("agerank_publishes_total", result="published") or 0
            append_batch(client, part)
            wait_until(
                lambda before=before: (running.sample("agerank_publishes_total", result="published") or 0) > before,
                "a version",
            )
    assert len(checkpoints.versions(LocalStore(tmp_path))) == 3
    assert checkpoints.current(LocalStore(tmp_path)) == running.trainer.learner.step


def test_a_restart_from_a_refused_version_calls_it_published_to_nobody(
    world, tmp_path: Path, client: redis.Redis, names: StreamNames
) -> None:
    append_batch(client, world.batch(world.traffic(300), names))
    nothing_passes = Bounds(1_000, 1, 0.0, math.inf, 0.0)
    for _ in range(2):
        running = Running(world, tmp_path, client, names, bounds=nothing_passes)
        running.burst()
    assert running.trainer.learner.step in checkpoints.versions(LocalStore(tmp_path), refused=True)
    assert {decode_announcement(payload).version for payload in running.payloads(names.models)} == {0}
    assert running.sample("agerank_published_version") == 0


def test_without_redis_it_offers_version_0_and_waits(world, tmp_path: Path, names: StreamNames, wait_until) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens here
        with connect(f"redis://127.0.0.1:{taken.getsockname()[1]}", name="test") as client:
            running = Running(world, tmp_path, client, names)
            with running.in_thread():
                wait_until(lambda: running.sample("agerank_trainer_log_up") == 0, "the outage to be seen")
                wait_until(lambda: checkpoints.current(LocalStore(tmp_path)) == 0, "version 0")
            assert running.outcomes in ([], [Outcome()])


def test_it_goes_on_where_it_was_when_redis_comes_back(
    world, tmp_path: Path, names: StreamNames, bits, wait_until
) -> None:
    logged = world.traffic(300)
    batch = world.batch(logged, names)
    server = EmbeddedServer(tmp_path / "redis").start()
    try:
        with connect(server.url, name="test") as client:
            running = Running(world, tmp_path / "lane", client, names)
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


def test_entries_removed_unread_are_counted_once_and_reading_goes_on(world, running: Running, names) -> None:
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


def test_a_version_that_cannot_be_written_is_counted_and_training_goes_on(world, running: Running, names) -> None:
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


def test_a_server_without_room_stops_no_learning(world, tmp_path: Path, names: StreamNames) -> None:
    """It takes neither dead letters nor announcements, and what is in it can be read."""
    with EmbeddedServer(tmp_path / "redis") as server, connect(server.url, name="test") as client:
        running = Running(world, tmp_path / "lane", client, names)
        append_batch(client, world.batch(world.traffic(300), names))
        client.config_set("maxmemory", 1)
        assert running.burst().steps > 20
        assert running.sample("agerank_dead_letters_total", code="unreadable_entry") > 0
        assert client.exists(names.dead, names.models) == 0
        assert running.sample("agerank_trainer_log_errors_total", reason="out_of_memory") >= 3
        assert running.sample("agerank_trainer_log_up") == 1
