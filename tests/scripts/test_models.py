"""`agerank models`: with nothing but the files, as at 3 a.m.; and a scorer that is told."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import redis
from click.testing import Result
from typer.testing import CliRunner

from scripts.cli import app
from service import checkpoints
from service.checkpoints import LocalStore, Manifest
from service.events import decode_announcement
from service.streams import StreamNames, entries_of

Run = Callable[..., Result]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Versions 0, 4 and 8, of which 8 is current, and 6 refused."""
    store = LocalStore(tmp_path / "data" / "checkpoints" / "default")
    for version, refused in ((0, ""), (4, ""), (6, "pcoc: 9 for each"), (8, "")):
        draft = Manifest(
            lane="default",
            version=version,
            created_at_ms=1_700_000_000_000,
            data_timestamp_ms=0,
            spec="",
            spec_hash="",
            network={},
            strategies={},
            positions={},
            metrics={"log_loss": 0.25, "pcoc": 1.0},
            click_times_ms=[],
            refused=refused,
        )
        weights = {"w": np.zeros(3, dtype=np.float32)}
        newest = checkpoints.save(store, draft, weights=weights, state={}, golden={}, graphs={}, keep=9)
    checkpoints.set_current(store, newest)
    return store


@pytest.fixture
def run(tmp_path: Path, store: LocalStore) -> Run:
    """`agerank models ARGS`."""
    config = tmp_path / "agerank.toml"
    config.write_text(f'data_dir = "{tmp_path / "data"}"\n')
    return lambda *args: CliRunner().invoke(app, ["models", *args, "--config", str(config)])


def row(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)
    return found


def test_the_list(run: Run) -> None:
    found = json.loads(run("list", "--json").stdout)
    assert [(one["version"], one["state"]) for one in found] == [
        (8, "current"),
        (6, "refused"),
        (4, "available"),
        (0, "available"),
    ]
    run("pin")
    text = run("list").stdout
    for word in ("lane default", "current, pinned", "2023-11-14 22:13:20", "0.2500", "pcoc: 9 for each"):
        assert word in text


def test_a_current_version_that_is_not_there_can_be_seen(run: Run, store: LocalStore) -> None:
    for content, word in ((b'{"version": 77}', "lane default: version 77 is"), (b"{", "lane default: no version is")):
        (store.root / "current.json").write_bytes(content)
        assert word in run("list").stdout


def test_one_is_shown(run: Run) -> None:
    assert row(run("show", "6", "--json"))["reason"] == "pcoc: 9 for each"
    text = run("show", "4").stdout
    assert "version: 4\nstate: available\n" in text
    assert "  weights.safetensors: " in text
    assert "reason:" not in text  # there is none


def test_a_night(run: Run, store: LocalStore) -> None:
    assert row(run("rollback", "--json")) == {"version": 4, "pinned": True, "before": 8}
    said = run("rollback").stdout
    assert said == "lane default serves version 0 (before: 4); the trainer's versions wait for `agerank models unpin`\n"
    assert row(run("activate", "8", "--no-pin", "--json")) == {"version": 8, "pinned": False, "before": 0}
    assert row(run("pin", "4", "--json")) == {"version": 4, "pinned": True, "before": 8}
    assert row(run("pin", "--json")) == {"version": 4, "pinned": True, "before": 4}
    assert "the trainer's next follows" in run("unpin").stdout
    assert row(run("activate", "6", "--force", "--json"))["version"] == 6
    assert checkpoints.read_current(store).pinned


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        (("activate", "5"), 1, "not_found"),
        (("show", "5"), 1, "not_found"),
        (("activate", "6"), 1, "version_refused"),
        (("activate", "4"), 1, "hash_mismatch"),
        (("rollback", "again"), 2, "unexpected extra argument"),
        (("activate", "-1"), 2, "-1"),
        (("activate",), 2, "Missing argument"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    run: Run, store: LocalStore, args: tuple[str, ...], code: int, word: str
) -> None:
    (store.root / "versions" / "000000000004" / "weights.safetensors").write_bytes(b"")
    before = store.get("current.json")
    result = run(*args)
    assert (result.exit_code, result.stdout) == (code, "")
    assert word in result.stderr
    assert store.get("current.json") == before


def test_wrong_settings_and_no_versions_are_said(tmp_path: Path) -> None:
    nowhere = CliRunner().invoke(app, ["models", "list", "--config", str(tmp_path / "nowhere.toml")])
    assert nowhere.exit_code == 2
    empty = tmp_path / "agerank.toml"
    empty.write_text(f'data_dir = "{tmp_path}"\n')
    result = CliRunner().invoke(app, ["models", "rollback", "--config", str(empty)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no_current_version" in result.stderr


def test_the_scorers_are_told_where_redis_is_up(
    run: Run, names: StreamNames, client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGERANK_REDIS_URL", redis_url)
    monkeypatch.setenv("AGERANK_REDIS_PREFIX", names.models.removesuffix(":models"))
    assert run("rollback").exit_code == 0
    (entry,) = entries_of(client.xread({names.models: "0"}))[names.models]
    assert decode_announcement(entry.payload).version == 4


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
def test_without_redis_it_is_done_all_the_same(
    run: Run, store: LocalStore, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("AGERANK_REDIS_URL", f"{scheme}://127.0.0.1:1/0")
    result = run("rollback")
    assert result.exit_code == 0
    assert "the scorers find it in 0.5 s" in result.stderr
    assert checkpoints.current(store) == 4
