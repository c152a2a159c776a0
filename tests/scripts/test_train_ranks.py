"""`agerank train --ranks` as it is typed: it takes over from one, and one from it, also after a kill."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import redis
from typer.testing import CliRunner

from scripts.bench.traffic import entries
from scripts.bench.work import SPEC
from scripts.cli import app
from service import checkpoints
from service.appends import append_batch
from service.checkpoints import LocalStore
from service.streams import Entry, StreamNames

PATIENCE_S = 180.0


class Lane:
    """A log in parts, and the settings of those who train on it."""

    def __init__(self, folder: Path, client: redis.Redis, names: StreamNames, redis_url: str) -> None:
        self.client, self.root = client, LocalStore(folder / "checkpoints" / "default")
        folder.mkdir()
        (folder / "features.toml").write_text(SPEC)
        prefix = names.inputs[0].partition(":")[0]
        given = {
            "data_dir": folder,
            "features": folder / "features.toml",
            "redis_url": redis_url,
            "redis_prefix": prefix,
            "partitions": len(names.inputs) // 2,
            "attribution_window_s": 0.2,
            "batch_size": 64,
            "publish_interval_s": 0.2,
            "trainer_port": 0,
            "strategies": '{"greedy": {"method": "greedy"}}',
            "optimizer": "sparse_adam",
            "gradient_parts": 2,
            "hidden": "[16, 8, 8]",
        }
        self.environment = {f"AGERANK_{name.upper()}": str(value) for name, value in given.items()}

    def append(self, log: list[Entry]) -> None:
        append_batch(self.client, [(one.stream, one.payload, one.position) for one in log])

    def weights(self) -> dict[str, np.ndarray]:
        manifest = checkpoints.load_manifest(self.root, checkpoints.current(self.root))
        return checkpoints.load_weights(self.root, manifest)

    @contextmanager
    def two_ranks(self) -> Iterator["subprocess.Popen[str]"]:
        command = [sys.executable, "-m", "scripts.cli", "train", "--ranks", "2"]
        environment = {**os.environ, **self.environment, "PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(PATIENCE_S)
            process.stderr.close()


def burst(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rank alone, to the end of the log."""
    for name, value in lane.environment.items():
        monkeypatch.setenv(name, value)
    run = CliRunner().invoke(app, ["train", "--burst"])
    assert run.exit_code == 0, run.output


def children(process: "subprocess.Popen[str]") -> list[int]:
    return [int(one) for one in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.slow
def test_one_then_two_that_are_killed_then_one_again_learn_what_one_learns(
    tmp_path: Path, client: redis.Redis, names: StreamNames, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = entries(300, names)
    third = len(log) // 3
    lane = Lane(tmp_path / "lane", client, names, redis_url)
    lane.append(log[:third])
    burst(lane, monkeypatch)
    first = checkpoints.current(lane.root)
    assert first
    with lane.two_ranks() as process:
        lane.append(log[third : 2 * third])
        deadline = time.monotonic() + PATIENCE_S
        while checkpoints.current(lane.root) == first:
            assert time.monotonic() < deadline, "no version of the two"
            time.sleep(0.05)
        lane.append(log[2 * third :])
        ranks = children(process)
        assert len(ranks) == 2
        os.kill(ranks[1], signal.SIGKILL)
        assert process.wait(PATIENCE_S) == 1
        assert "another rank is gone" in process.stderr.read()
        assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    second = checkpoints.current(lane.root)
    burst(lane, monkeypatch)

    undisturbed = Lane(tmp_path / "undisturbed", client, names, redis_url)
    burst(undisturbed, monkeypatch)
    last = checkpoints.current(undisturbed.root)
    assert first < second <= last == checkpoints.current(lane.root)
    found, expected = lane.weights(), undisturbed.weights()
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
