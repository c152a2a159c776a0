"""A short form of `agerank chaos trainer`: real kills of real trainers. And what it is told by can tell."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from scripts.chaos.lives import Scene, phase
from scripts.chaos.traffic import make
from scripts.chaos.trainer import holds
from scripts.chaos.versions import differing
from scripts.cli import app
from service import checkpoints
from service.checkpoints import LocalStore, Manifest
from service.streams import StreamNames, order

NAMES = StreamNames("test", 3)


@pytest.mark.parametrize("ranks", ["1", "2"])
def test_a_trainer_killed_over_and_over_ends_with_the_same_bits(ranks: str) -> None:
    given = ["--kills", "4", "--events", "8000", "--seed", "1", "--ranks", ranks]
    run = CliRunner().invoke(app, ["chaos", "trainer", *given, "--json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert found["equal"] is True
    assert found["differing"] == []
    assert (found["kills"], found["unusable"], sum(found["phases"].values())) == (4, 0, 4)
    assert found["events"] >= 8_000
    assert found["resumed"] > 0  # there was something to lose
    assert found["steps"] > 30
    assert min(found["join"][one] for one in ("matched", "duplicate", "late", "unknown_request")) > 0


def test_the_log_has_what_it_says_and_depends_on_the_seed_alone() -> None:
    log = make(3_000, NAMES, seed=4)
    assert log == make(3_000, NAMES, seed=4)
    assert log != make(3_000, NAMES, seed=5)
    served = [one for one in log.entries if one.stream.endswith(":served")]
    assert len(log.entries) == len(served) + log.events
    assert {one.stream for one in log.entries} == set(NAMES.inputs)
    assert len(log.entries) - len({(one.stream, one.payload) for one in log.entries}) >= log.repeated > 0
    assert log.disordered > 0
    places = [order(one.position) for one in log.entries]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("died", "expected"),
    [
        (Scene(None, 4, "1-0", 4), "starting"),
        (Scene((1, 1), 4, "1-0", 4), "starting"),  # what another left behind
        (Scene(None, 4, "2-0", 4), "learning"),
        (Scene((1, 1), 6, "3-0", 6), "learning"),
        (Scene((1, 2), 4, "2-0", 4), "saving"),
        (Scene((2, 1), 4, "2-0", 4), "saving"),
        (Scene(None, 6, "2-0", 4), "announcing"),
        (Scene((1, 2), 6, "2-0", 4), "announcing"),  # it was deleting an old version
    ],
)
def test_a_death_tells_what_it_interrupted(died: Scene, expected: str) -> None:
    assert phase(Scene((1, 1), 4, "1-0", 4), died) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"equal": True, "unusable": 0, "resumed": 1}, True),
        ({"equal": False, "unusable": 0, "resumed": 1}, False),
        ({"equal": True, "unusable": 1, "resumed": 1}, False),
        ({"equal": True, "unusable": 0, "resumed": 0}, False),
    ],
)
def test_a_difference_and_a_death_that_left_nothing_break_the_promise(found: dict[str, object], expected: bool) -> None:
    assert holds(found) is expected


def test_one_bit_is_a_difference(tmp_path: Path) -> None:
    stores = [LocalStore(tmp_path / name) for name in ("one", "other")]
    weights = {"w": np.zeros(3, np.float32), "v": np.ones(2, np.float32)}
    for store, sign in zip(stores, (1.0, -1.0), strict=True):
        manifest = checkpoints.save(
            store,
            _manifest(),
            weights=weights | {"w": np.float32(sign) * weights["w"]},
            state={"s": np.arange(3)},
            golden={},
            graphs={},
            keep=1,
        )
        checkpoints.set_current(store, manifest)
    assert differing(*stores) == ["w"]  # 0.0 == -0.0, but for the sign
    assert differing(stores[0], stores[0]) == []


def _manifest() -> Manifest:
    return Manifest(
        lane="default",
        version=3,
        created_at_ms=0,
        data_timestamp_ms=0,
        spec="",
        spec_hash="",
        network={},
        strategies={},
        positions={},
        metrics={},
        click_times_ms=[],
    )
