import csv
import gzip
import json
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from models.evaluation.catalogue import read
from models.spec import FeatureSpec
from scripts.upworthy import items, main
from scripts.upworthy_arms import Arm, archive

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data"
SPEC = FeatureSpec.from_toml((ROOT / "scripts/specs/upworthy.toml").read_text())

APP = typer.Typer()
APP.command()(main)


def arm(number: int, test: str, place: int, headline: str, *, clicks: int = 20, valid: bool = True) -> Arm:
    week = 201_300 + number % 50
    return Arm(
        item_id=number, test_id=test, arm=str(place), headline=headline, week=week, impressions=1_000, clicks=clicks,
        valid=valid,
    )  # fmt: skip


def arms() -> list[Arm]:
    """Of 100 tests each has a headline with "good", clicked by 3 %, and one with "bad", clicked by 1 %."""
    found = [arm(1, "judged", 0, "bad x"), arm(2, "judged", 1, "good x"), arm(3, "copy", 0, "Good -- X!", clicks=900)]
    found += [arm(4, "broken", 0, "bad y", valid=False), arm(5, "broken", 1, "good y"), arm(6, "z", 0, "bad y")]
    for n in range(100):
        pair = [("good", 30), ("bad", 10)] if n % 2 else [("bad", 10), ("good", 30)]
        for place, (word, clicks) in enumerate(pair):
            one = arm(100 + 2 * n, f"t{n}", place, f"{word} n{n}", clicks=clicks)
            found.append(msgspec.structs.replace(one, item_id=one.item_id + place))
    return found


def test_the_past_shares_no_test_and_no_headline_with_the_log() -> None:
    found = {str(one["id"]): one for one in items(arms(), frozenset({"id-100002", "id-100004"}))}
    assert set(found) == {"id-100002", *(f"id-{100_100 + n}" for n in range(200))}
    assert "clicks" not in found["id-100002"]
    last = found["id-100299"]
    assert (last["impressions"], last["clicks"]) == (1_000, 10)
    assert last["features"]["test"] == "t99"  # type: ignore[index]
    assert last["features"]["arm"] == "1"  # type: ignore[index]


def test_a_score_is_what_words_say_of_arms_beside_those_of_their_test() -> None:
    found = items(arms(), frozenset({"id-100001", "id-100002"}))
    bad, good, *past = [one["features"]["score"] for one in found]  # type: ignore[index]
    assert good == pytest.approx(-bad, abs=2e-5)
    assert 0.1 < good < 0.5  # what is 1.5 times the mean, shrunk
    assert [score > 0.1 for score in past[-200:]] == [False, True, True, False] * 50


HEADER = "item_id,test_id,arm,n_arms,week,impressions,clicks,valid,headline"
ROW = '7,t,0,3,201303,1020,29,True,"So, that"'


def test_rows_of_the_archive_become_arms() -> None:
    (one,) = archive([HEADER, ROW])
    assert one == msgspec.structs.replace(arm(7, "t", 0, "So, that", clicks=29), week=201_303, impressions=1_020)
    assert one.id == "id-100007"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1317513291 id-560620 0 |user 1"], "line 1: no column item_id, test_id"),
        ([HEADER, ROW, ROW.replace("1020", "some")], "line 3: .*impressions"),
        ([HEADER, ROW.replace("29", "-1")], "line 2: .*clicks"),
        ([HEADER, ROW.replace("29", "1021")], "line 2: 1021 clicks on 1020 impressions"),
        ([HEADER, ROW, ROW.replace("So", "Or")], "line 3: item_id 7 for the second time"),
        ([HEADER, ROW, '"' + "x" * 200_000 + '"'], "after line 2: field larger"),
        ([HEADER, ROW.replace("29", "1e30")], "line 2: .*clicks"),
        ([HEADER, ROW.replace("True", "maybe")], "line 2: .*valid"),
        ([HEADER, "7,t,0"], "line 2"),
        ([HEADER, ROW + ",more"], "line 2"),
    ],
)
def test_what_is_no_archive_is_an_error_with_the_line(lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        archive(lines)


def test_an_archive_of_another_log_is_an_error() -> None:
    with pytest.raises(ValueError, match="has the id of one of the items of the log"):
        items(arms(), frozenset({"id-7"}))


def test_a_past_that_could_only_foretell_itself_is_an_error() -> None:
    log, past = frozenset({"id-100001", "id-100002"}), arms()
    for same in (past[:3], [msgspec.structs.replace(one, week=201_301) for one in past]):
        with pytest.raises(ValueError, match="too few weeks"):
            items(same, log)
    past[-1] = msgspec.structs.replace(past[-1], week=201_401)
    with pytest.raises(ValueError, match="arms of several weeks"):
        items(past, log)


def write(tmp_path: Path) -> tuple[Path, Path]:
    """A log of two arms, and an archive that has them."""
    log, packed = tmp_path / "log.txt", tmp_path / "arms.csv.gz"
    log.write_text("1317513291 id-100001 0 |user 1 |id-100001 |id-100002\n")
    with gzip.open(packed, "wt", newline="") as file:
        writer = csv.DictWriter(file, Arm.__struct_fields__)
        writer.writeheader()
        writer.writerows(msgspec.structs.asdict(one) for one in arms())
    return log, packed


@pytest.mark.parametrize(
    ("log", "arms", "message"),
    [
        ("none", "arms.csv.gz", "--log: cannot read none"),
        ("log.txt", "none", "--arms: cannot read none"),
        ("log.txt", "log.txt", "--arms: log.txt is not an intact gzip file"),
        ("arms.csv.gz", "log.txt", "--log: arms.csv.gz has no usable line"),
        ("log.txt", "latin.gz", "--arms: latin.gz: after line"),
        ("log.txt", "cut.gz", "--arms: cut.gz is not an intact gzip file"),
    ],
)
def test_files_that_are_not_what_they_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, arms: str, message: str
) -> None:
    packed = write(tmp_path)[1]
    (tmp_path / "latin.gz").write_bytes(gzip.compress(f"{HEADER}\n{ROW}é".encode("latin1")))
    (tmp_path / "cut.gz").write_bytes(packed.read_bytes()[:-20])
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(APP, ["--arms", arms, "--log", log, "--out", "items.jsonl"])
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("\u2502", " ").split())
    assert not Path("items.jsonl").exists()


@pytest.mark.skipif(not DATA.exists(), reason="the archive is not beside the checkout")
def test_the_archive_is_what_the_spec_reads_and_tells_nothing_of_the_log(tmp_path: Path) -> None:
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
        done = CliRunner().invoke(APP, ["--arms", str(arms), "--log", str(part), "--out", str(out)])
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
