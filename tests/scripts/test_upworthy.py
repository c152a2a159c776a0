import csv
import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.evaluation.catalogue import read
from models.spec import FeatureSpec
from scripts.upworthy import items

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data"
SPEC = FeatureSpec.from_toml((ROOT / "scripts/specs/upworthy.toml").read_text())


def arm(number: int, test: str, place: int, headline: str, *, clicks: int = 20, valid: str = "True") -> dict[str, str]:
    known = {"item_id": str(number), "test_id": test, "arm": str(place), "headline": headline, "valid": valid}
    return known | {"week": str(201_300 + number % 50), "impressions": "1000", "clicks": str(clicks)}


def archive() -> list[dict[str, str]]:
    """Of 100 tests each has a headline with "good", clicked by 3 %, and one with "bad", clicked by 1 %."""
    arms = [arm(1, "judged", 0, "bad x"), arm(2, "judged", 1, "good x"), arm(3, "copy", 0, "good x", clicks=900)]
    arms += [arm(4, "broken", 0, "good", valid="False")]
    for n in range(100):
        pair = [("good", 30), ("bad", 10)] if n % 2 else [("bad", 10), ("good", 30)]
        for place, (word, clicks) in enumerate(pair):
            arms.append(
                arm(100 + 2 * n, f"t{n}", place, f"{word} n{n}", clicks=clicks) | {"item_id": str(100 + 2 * n + place)}
            )
    return arms


def test_the_past_shares_no_test_and_no_headline_with_the_log() -> None:
    found = {str(one["id"]): one for one in items(archive(), frozenset({"id-100002"}))}
    assert set(found) == {"id-100002", *(f"id-{100_100 + n}" for n in range(200))}
    assert "clicks" not in found["id-100002"]
    last = found["id-100299"]
    assert (last["impressions"], last["clicks"]) == (1_000, 10)
    assert last["features"]["test"] == "t99"  # type: ignore[index]
    assert last["features"]["arm"] == "1"  # type: ignore[index]


def test_a_score_is_what_words_say_of_arms_beside_those_of_their_test() -> None:
    found = items(archive(), frozenset({"id-100001", "id-100002"}))
    bad, good, *past = [one["features"]["score"] for one in found]  # type: ignore[index]
    assert good == pytest.approx(-bad, abs=2e-5)
    assert 0.1 < good < 0.5  # what is 1.5 times the mean, shrunk
    assert [score > 0.1 for score in past] == [False, True, True, False] * 50


@pytest.mark.skipif(not DATA.exists(), reason="the archive is not beside the checkout")
def test_the_archive_is_what_the_spec_reads_and_tells_nothing_of_the_log(tmp_path: Path) -> None:
    from scripts import upworthy

    app = upworthy.typer.Typer()
    app.command()(upworthy.main)
    log, out = DATA / "upworthy_60tests_seed0_r6b.txt.gz", tmp_path / "items.jsonl"
    part = tmp_path / "log.txt"
    with gzip.open(log, "rt") as file:
        part.write_text("".join(line for line, _ in zip(file, range(5_000), strict=False)))
    arms = tmp_path / "arms.csv.gz"
    shown = {one.strip() for line in part.read_text().splitlines() for one in line.split("|")[2:]}
    with gzip.open(DATA / "upworthy_arms.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    written = []
    for altered in (False, True):  # whatever the log's arms are said to have got, nothing changes
        with gzip.open(arms, "wt", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(
                row | {"clicks": "999"} if altered and f"id-{100_000 + int(row['item_id'])}" in shown else row
                for row in rows[:6_000]
                + [row for row in rows[6_000:] if f"id-{100_000 + int(row['item_id'])}" in shown]
            )
        done = CliRunner().invoke(app, ["--arms", str(arms), "--log", str(part), "--out", str(out)])
        assert done.exit_code == 0, done.output
        written.append(out.read_bytes())
    assert written[0] == written[1]
    with out.open("rb") as file:
        known, past = read(file, SPEC)
    assert shown <= set(known)
    assert not shown & {one.id for one in past}
    tests = {json.dumps(known[one]["test"]) for one in shown}
    assert not tests & {json.dumps(one.features["test"]) for one in past}
    assert len(past) > 1_000
