import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.evaluation.catalogue import read
from models.spec import FeatureSpec
from scripts.upworthy import items, words

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data"
SPEC = FeatureSpec.from_toml((ROOT / "scripts/specs/upworthy.toml").read_text())


def arm(number: int, test: str, headline: str, *, valid: str = "True") -> dict[str, str]:
    counts = {"impressions": str(1_000 + number), "clicks": str(number)}
    return {"item_id": str(number), "test_id": test, "headline": headline, "valid": valid} | counts


def test_words_stand_alone_and_in_pairs() -> None:
    assert words("It's GOOD. It's") == [".", ". it's", "^ it's", "good", "good .", "it's", "it's $", "it's good"]


def test_the_past_shares_no_test_and_no_headline_with_the_log() -> None:
    arms = [arm(1, "judged", "same words"), arm(2, "judged", "Other"), arm(3, "copy", "same words")]
    arms += [arm(4, "broken", "some words", valid="False")]
    arms += [arm(100 + n, f"t{n}", f"words n{n}") for n in range(20)]
    found = {str(one["id"]): one for one in items(arms, frozenset({"id-100001"}))}
    assert set(found) == {"id-100001", *(f"id-{100_100 + n}" for n in range(20))}
    assert found["id-100001"] == {"id": "id-100001", "features": {"words": ["words"], "test": "judged"}}
    assert found["id-100107"] == {
        "id": "id-100107",
        "features": {"words": ["^ words", "words"], "test": "t7"},
        "impressions": 1_107,
        "clicks": 107,
    }


@pytest.mark.skipif(not DATA.exists(), reason="the archive is not beside the checkout")
def test_the_archive_is_what_the_spec_reads_and_tells_nothing_of_the_log(tmp_path: Path) -> None:
    from scripts import upworthy

    app = upworthy.typer.Typer()
    app.command()(upworthy.main)
    log, out = DATA / "upworthy_60tests_seed0_r6b.txt.gz", tmp_path / "items.jsonl"
    part = tmp_path / "log.txt"
    with gzip.open(log, "rt") as file:
        part.write_text("".join(line for line, _ in zip(file, range(5_000), strict=False)))
    arguments = ["--arms", str(DATA / "upworthy_arms.csv.gz"), "--log", str(part), "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    with out.open("rb") as file:
        known, past = read(file, SPEC)
    shown = {one.strip() for line in part.read_text().splitlines() for one in line.split("|")[2:]}
    assert shown <= set(known)
    assert not shown & {one.id for one in past}
    tests = {json.dumps(known[one]["test"]) for one in shown}
    assert not tests & {json.dumps(one.features["test"]) for one in past}
    assert len(past) > 15_000
