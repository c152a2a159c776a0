"""`agerank ope` and `agerank rerun` on what a real scorer logged, and on exported files."""

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
import pytest
import structlog
from click.testing import Result
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from models.evaluation.estimators import Logged, ips, snips
from scripts.cli import app
from scripts.served_log import read_lines
from service.connections import connect
from service.events import decode_served, encode
from service.scoring.app import create_app
from service.settings import read
from service.streams import FIELD, StreamNames

SPEC = """
[[fields]]
name = "id"
side = "item"
kind = "categorical"
source = "id"
buckets = 64

[[fields]]
name = "hour"
side = "context"
kind = "numeric"
"""
REQUESTS, POOL, EPSILON, WINDOW_S = 200, 4, 0.5, 0.2

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Path:
    """A lane with one version, and what its scorer logged: REQUESTS of one shown item, and some others."""
    folder = tmp_path_factory.mktemp("lane")
    (folder / "features.toml").write_text(SPEC)
    (folder / "agerank.toml").write_text(
        f"""
        redis_url = "{redis_url}"
        redis_prefix = "test-{uuid4().hex}"
        data_dir = "{folder}/data"
        features = "{folder}/features.toml"
        hidden = [8, 4, 4]
        trainer_port = 0
        default_strategy = "coin"
        attribution_window_s = {WINDOW_S}
        [strategies.coin]
        method = "epsilon_greedy"
        epsilon = {EPSILON}
        [strategies.age]
        method = "age"
        rate = 0.1
        lambda = 1000.0
        gate = "none"
        [strategies.age_ucb]
        method = "age"
        uncertainty = "ucb"
        """
    )
    handlers = logging.root.handlers[:]
    trained = command(folder)("train", "--burst", "--json")
    assert trained.exit_code == 0, trained.output
    structlog.reset_defaults()  # the command's log went to what stood for stderr then
    logging.root.handlers[:] = handlers
    with TestClient(create_app(read(folder / "agerank.toml"))) as client:
        until = time.monotonic() + 60
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.05)
        generator = np.random.default_rng(0)
        for number in range(REQUESTS):
            ask(client, f"r{number}", clicked=generator.random() < 0.3)
        for strategy in ("coin", "age", "age_ucb"):
            ask(client, f"slate-{strategy}", strategy=strategy, top_k=3)
        ask(client, "age-1", strategy="age")
        time.sleep(2 * WINDOW_S)
        ask(client, "last")
    return folder


def ask(client: TestClient, request_id: str, *, clicked: bool = False, **options: Any) -> None:
    items = [{"id": f"item-{number}"} for number in range(POOL)]
    body = {"request_id": request_id, "user": {}, "context": {"features": {"hour": 3}}, "candidates": items, "top_k": 1}
    answer = client.post("/v1/rank", json={**body, **options})
    assert answer.status_code == 200, answer.text
    if clicked:
        item = answer.json()["items"][0]["id"]
        click = {"id": f"click-{request_id}", "type": "click", "request_id": request_id, "item_id": item}
        event = click | {"time": datetime.now(UTC).isoformat()}
        assert client.post("/v1/events", json={"events": [event]}).status_code == 202


def command(folder: Path) -> Command:
    config = "--config", str(folder / "agerank.toml")
    return lambda name, *arguments: CliRunner().invoke(app, [name, *map(str, arguments), *config])


@pytest.fixture
def invoke(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("AGERANK_CONFIG", "")  # which --config sets for the whole process
    return command(folder)


def test_the_streams_say_what_the_greedy_order_would_have_earned(invoke: Command, tmp_path: Path) -> None:
    done = invoke("ope", "--json", "--export", tmp_path / "log.jsonl")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    lines = read_lines(tmp_path / "log.jsonl")
    assert len(lines) == found["support"]["impressions"] == REQUESTS
    assert {line.strategy for line in lines} == {"coin"}
    shown_by_greedy, others = 1 - EPSILON + EPSILON / POOL, EPSILON / POOL
    for line in lines:
        assert line.propensity == pytest.approx(shown_by_greedy if line.target else others)
    assert 0.15 < np.mean([line.reward for line in lines]) < 0.45
    columns = {name: np.array([getattr(line, name) for line in lines]) for name in ("reward", "propensity", "target")}
    assert found["estimates"]["IPS"]["value"] == pytest.approx(ips(Logged(**columns)).value)
    assert found["estimates"]["SNIPS"]["low"] == pytest.approx(snips(Logged(**columns)).low)
    assert found["estimates"]["as logged"]["value"] == pytest.approx(columns["reward"].mean())
    assert sum(row["impressions"] for row in found["overlap"]) == REQUESTS
    told = done.stderr
    assert "left out 3 impressions: shown together with others" in told
    assert "left out 4 impressions: no propensity: strategy age\n" in told
    assert "left out 3 impressions: no propensity: strategy age_ucb" in told
    assert "left out 1 impressions: still waits for its click" in told


def test_an_exported_file_takes_another_target_and_a_model(invoke: Command, tmp_path: Path) -> None:
    invoke("ope", "--export", tmp_path / "log.jsonl")
    lines = [msgspec.structs.replace(line, target=0.25) for line in read_lines(tmp_path / "log.jsonl")]
    modelled = [msgspec.structs.replace(line, model=0.3, value=0.3) for line in lines]
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, modelled)))
    done = invoke("ope", "--log", tmp_path / "log.jsonl", "--json")
    found = json.loads(done.stdout)["estimates"]
    assert found["DR"]["high"] - found["DR"]["low"] < found["IPS"]["high"] - found["IPS"]["low"]
    table = invoke("ope", "--log", tmp_path / "log.jsonl", "--strategy", "coin").stdout
    for word in ("IPS", "SNIPS", "DR", "as logged", "effective sample", "largest weight", "overlap"):
        assert word in table
    none = invoke("ope", "--log", tmp_path / "log.jsonl", "--strategy", "greedy")
    assert none.exit_code == 1
    assert f"left out {REQUESTS} impressions: of another strategy" in none.stderr


@pytest.mark.parametrize("request_id", ["r0", "r150", "slate-coin", "slate-age", "slate-age_ucb", "age-1", "last"])
def test_a_logged_decision_comes_out_again_to_the_bit(invoke: Command, request_id: str) -> None:
    done = invoke("rerun", request_id, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["to_the_bit"]
    assert found["request_id"] == request_id
    assert found["largest_difference"] == {"p_click": 0.0, "score": 0.0}
    assert "the same to the bit" in invoke("rerun", request_id).stdout


def test_a_record_that_was_tampered_with_is_told(invoke: Command, folder: Path) -> None:
    settings = read(folder / "agerank.toml")
    stream = StreamNames(settings.redis_prefix, 1).served("slate-age")
    assert settings.redis_url
    with connect(settings.redis_url.get_secret_value(), name="test") as client:
        records = [decode_served(fields[FIELD]) for _, fields in client.xrange(stream)]
        (one,) = [record for record in records if record.request_id == "slate-age"]
        for change in ({"lambda_": 999.0}, {"score": [*one.score[:-1], one.score[-1] / 2]}, {"seed": one.seed + 1}):
            forged = msgspec.structs.replace(one, request_id="forged", **change)
            client.xadd(stream, {FIELD: encode(forged)})
            done = invoke("rerun", "forged")
            assert done.exit_code == 1
            assert "differs by up to" in done.stdout
        client.xadd(stream, {FIELD: encode(msgspec.structs.replace(one, request_id="old", version=77))})
        done = invoke("rerun", "old")
        assert done.exit_code == 1
        assert "version 77 cannot be loaded" in done.stderr


def test_an_unknown_request_is_told(invoke: Command) -> None:
    done = invoke("rerun", "nobody")
    assert done.exit_code == 1
    assert "does not hold request 'nobody'" in done.stderr
