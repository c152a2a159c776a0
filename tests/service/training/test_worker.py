"""The worker against a real server: drains, waits, survives, and ends with the same bits however often it is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry

from service import checkpoints
from service.appends import append_batch
from service.connections import connect
from service.events import decode_announcement, decode_dead_letter
from service.streams import StreamNames, entries_of
from service.telemetry import TrainerMetrics
from service.training.__main__ import main
from service.training.publisher import Publisher
from service.training.trainer import Outcome, Progress
from service.training.worker import Worker
from service.valkey import EmbeddedServer

PATIENCE_S = 20.0


def wait_until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.02)


class Running:
    """A worker with everything that it needs, and what can be seen of it."""

    def __init__(self, world, root: Path, client: redis.Redis, names: StreamNames, interval_s: float = 1e9) -> None:
        self.root, self.client, self.names = root, client, names
        self.trainer, self.stop = world.trainer(), threading.Event()
        self.metrics = TrainerMetrics(CollectorRegistry())
        self.outcomes: list[Outcome] = []
        graphs = {name: world.graph(strategy) for name, strategy in self.trainer.strategies.items()}
        publisher = Publisher(
            root, self.trainer, spec=world.spec_toml, graphs=graphs, keep=3, refused=self.metrics.refused
        )
        self.worker = Worker(
            trainer=self.trainer,
            publisher=publisher,
            client=client,
            names=names,
            maxlen=1_000,
            publish_interval_s=interval_s,
            metrics=self.metrics,
            stop=self.stop,
            clock=time.time,
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
    version = checkpoints.current(running.root)
    manifest = checkpoints.load_manifest(running.root, version)
    assert bits(checkpoints.load_weights(running.root, manifest)) == bits(expected.weights())
    assert manifest.positions == expected.positions
    assert manifest.metrics == pytest.approx(progress.metrics())

    announced = [decode_announcement(payload) for payload in running.payloads(names.models)]
    assert [(one.lane, one.version) for one in announced] == [("default", 0), ("default", version)]
    letters = [decode_dead_letter(payload) for payload in running.payloads(names.dead)]
    assert letters == outcome.dead_letters
    assert {letter.code for letter in letters} == {"unreadable_entry", "unknown_request"}


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
    assert running.sample("agerank_join_pending") == running.trainer.join.pending
    assert running.sample("agerank_publishes_total", result="published") == 1
    assert running.sample("agerank_publish_seconds_count") == 1
    assert running.sample("agerank_published_version") == progress.steps
    assert running.sample("agerank_trainer_log_up") == 1
    seen = [len(one.p) for outcome in running.outcomes for one in outcome.predictions]
    assert sum(seen) == progress.examples


def test_it_publishes_as_it_goes(world, tmp_path: Path, client: redis.Redis, names: StreamNames) -> None:
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
    assert len(checkpoints.versions(tmp_path)) == 3
    assert checkpoints.current(tmp_path) == running.trainer.learner.step


def test_without_redis_it_offers_version_0_and_waits(world, tmp_path: Path, names: StreamNames) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens here
        with connect(f"redis://127.0.0.1:{taken.getsockname()[1]}", name="test") as client:
            running = Running(world, tmp_path, client, names)
            with running.in_thread():
                wait_until(lambda: running.sample("agerank_trainer_log_up") == 0, "the outage to be seen")
                wait_until(lambda: checkpoints.current(tmp_path) == 0, "version 0")
            assert running.outcomes in ([], [Outcome()])


def test_it_goes_on_where_it_was_when_redis_comes_back(world, tmp_path: Path, names: StreamNames, bits) -> None:
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
            assert checkpoints.current(tmp_path / "lane") == expected.learner.step
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
    assert running.sample("agerank_stream_trimmed_total", stream=stream) == 1
    assert running.sample("agerank_stream_trimmed_total", stream=names.inputs[1]) is None
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
    assert checkpoints.current(running.root) == first < running.trainer.learner.step
    (running.root / "incoming").unlink()
    running.worker.run(burst=True)
    assert checkpoints.current(running.root) == running.trainer.learner.step


class Process:
    """`python -m service.training`, as an operator would start it."""

    def __init__(self, world, folder: Path, url: str, names: StreamNames, spec_file: Path) -> None:
        self.root, prefix = folder / "checkpoints" / "default", names.models.removesuffix(":models")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AGERANK_")},
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "OMP_NUM_THREADS": "1",
            "AGERANK_DATA_DIR": str(folder),
            "AGERANK_FEATURES": str(spec_file),
            "AGERANK_REDIS_URL": url,
            "AGERANK_REDIS_PREFIX": prefix,
            "AGERANK_PARTITIONS": "2",
            "AGERANK_STRATEGIES": json.dumps(world.strategies),
            "AGERANK_DEFAULT_STRATEGY": "age_ts",
            "AGERANK_HIDDEN": json.dumps(world.network.hidden),
            "AGERANK_GATE_HIDDEN": str(world.network.gate_hidden),
            "AGERANK_INITIAL_CTR": str(world.network.initial_ctr),
            "AGERANK_LEARNING_RATE": str(world.learning_rate),
            "AGERANK_SEED": str(world.seed),
            "AGERANK_ATTRIBUTION_WINDOW_S": str(world.window_ms / 1000),
            "AGERANK_BATCH_SIZE": str(world.batch_size),
            "AGERANK_PUBLISH_INTERVAL_S": "0.05",
            "AGERANK_KEEP_VERSIONS": "4",
            "AGERANK_LOG_FORMAT": "json",
            "AGERANK_TRAINER_PORT": "0",
        }

    @contextmanager
    def started(self) -> Iterator["subprocess.Popen[str]"]:
        with subprocess.Popen(
            [sys.executable, "-m", "service.training"], env=self.environment, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def run_another(self) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "service.training"], env=self.environment, stderr=subprocess.PIPE, text=True
        )

    @property
    def version(self) -> int:
        return checkpoints.current(self.root) or 0


def metrics_port(process: "subprocess.Popen[str]") -> int:
    """Told by its first log line. The others are read, so that the pipe never fills."""
    port = next(json.loads(line)["metrics_port"] for line in process.stderr if "metrics_port" in line)
    threading.Thread(target=process.stderr.read, daemon=True).start()
    return port


@pytest.fixture
def process(world, tmp_path: Path, redis_url: str, names: StreamNames, spec_file: Path) -> Process:
    return Process(world, tmp_path / "data", redis_url, names, spec_file)


@pytest.mark.slow
def test_the_process_publishes_answers_and_stops_well(
    world, process: Process, client: redis.Redis, names: StreamNames
) -> None:
    with process.started() as trainer:
        port = metrics_port(trainer)
        second = process.run_another()
        assert second.returncode == 1
        assert "locked" in second.stderr
        append_batch(client, world.batch(world.traffic(150), names))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez") as answer:
            assert answer.status == 200
        wait_until(lambda: process.version, "a version")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert b"agerank_published_version" in answer.read()
        trainer.send_signal(signal.SIGTERM)
        assert trainer.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("FEATURES", "nowhere.toml", "nowhere.toml"),
        ("FEATURES", "pyproject.toml", "pyproject.toml: expected [[fields]]"),
        ("STRATEGIES", '{"age_ts": {"method": "gredy"}}', "unknown method 'gredy'"),
        ("BATCH_SIZE", "0", "batch_size"),
    ],
)
def test_wrong_settings_end_the_process_with_a_sentence(
    process: Process, monkeypatch, capsys, name, value, text
) -> None:
    environment = {**process.environment, f"AGERANK_{name}": value}
    for variable, content in environment.items():
        monkeypatch.setenv(variable, content)
    assert main() == 2
    printed = capsys.readouterr()
    assert text in printed.err
    assert printed.out == ""


@pytest.mark.slow
def test_a_trainer_killed_three_times_ends_with_the_same_bits(
    world, process: Process, tmp_path: Path, client: redis.Redis, names: StreamNames, bits
) -> None:
    batch = world.batch(world.traffic(1_500), names)
    assert len(batch) > 3_000
    parts = [batch[start : start + len(batch) // 8 + 1] for start in range(0, len(batch), len(batch) // 8 + 1)]
    killed_at = []
    for _ in range(3):
        with process.started() as trainer:
            before = process.version
            append_batch(client, parts.pop(0))
            wait_until(lambda before=before: process.version > before, "a version")
            append_batch(client, parts.pop(0))  # it is at work when the signal comes
            killed_at.append(process.version)
            trainer.kill()
            assert trainer.wait() == -signal.SIGKILL
    for part in parts:
        append_batch(client, part)

    undisturbed = Running(world, tmp_path / "undisturbed", client, names)
    steps = undisturbed.burst().steps
    assert 0 < killed_at[0] < killed_at[1] < killed_at[2] < steps
    with process.started() as trainer:
        wait_until(lambda: process.version == steps, "the last step")
        trainer.send_signal(signal.SIGTERM)
        assert trainer.wait(PATIENCE_S) == 0
    manifest = checkpoints.load_manifest(process.root, steps)
    weights = bits(checkpoints.load_weights(process.root, manifest))
    state = bits(checkpoints.load_state(process.root, manifest))
    learner = undisturbed.trainer.learner
    assert bits(learner.weights()).items() <= weights.items()
    assert bits(learner.state()).items() <= state.items()

    # The last entries complete no batch, so no version has them yet; with them, all the rest is equal, too.
    rest = Running(world, process.root, client, names)
    assert rest.burst().steps == 0
    assert bits(rest.trainer.weights()) == bits(undisturbed.trainer.weights())
    assert bits(rest.trainer.state()) == bits(undisturbed.trainer.state())
    assert rest.trainer.positions == undisturbed.trainer.positions
