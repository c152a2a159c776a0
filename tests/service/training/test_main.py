"""The training process as an operator runs it: told what is wrong, and stopped well. `agerank chaos` kills it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from service import checkpoints, ports
from service.appends import append_batch
from service.checkpoints import LocalStore
from service.streams import StreamNames
from service.training.__main__ import main

PATIENCE_S = 20.0


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

    @property
    def version(self) -> int:
        return checkpoints.current(LocalStore(self.root)) or 0


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
    world, process: Process, client: redis.Redis, names: StreamNames, wait_until, monkeypatch, capsys
) -> None:
    with process.started() as trainer:
        port = metrics_port(trainer)
        for variable, content in process.environment.items():
            monkeypatch.setenv(variable, content)
        assert main() == 1  # a second one
        assert "locked" in capsys.readouterr().err
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


IPV6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=IPV6)])
def test_a_taken_port_is_said_with_its_setting(process: Process, monkeypatch, capsys, host: str) -> None:
    with ports.listening("trainer_port", host, 0) as taken:
        port = taken.getsockname()[1]
        given = {"AGERANK_TRAINER_HOST": host, "AGERANK_TRAINER_PORT": str(port)}
        for variable, content in {**process.environment, **given}.items():
            monkeypatch.setenv(variable, content)
        assert main() == 1
    assert f"trainer_port: cannot listen on {host} port {port}: Address already in use" in capsys.readouterr().err
