"""Each benchmark, once and small: it runs as it is typed, and its rows are what docs/benchmarks.md says they are."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from scripts.bench.report import Column, machine, show, whole_numbers
from scripts.cli import COMMANDS, app

pytestmark = pytest.mark.slow

DOCUMENT = (Path(__file__).parents[2] / "docs/benchmarks.md").read_text()
Rows = list[dict[str, Any]]


def bench(*arguments: str) -> Rows:
    """The rows of `agerank bench ARGUMENTS --json`, their keys compared with what is documented."""
    run = CliRunner().invoke(app, ["bench", *arguments, "--json"])
    assert run.exit_code == 0, run.output
    assert "Python 3" in run.stderr.splitlines()[0]
    assert len(run.stderr.splitlines()) > 1, "it should say what it is at"
    rows: Rows = json.loads(run.stdout)
    for row in rows:
        assert list(row) == documented(arguments[0])
    return rows


def documented(command: str) -> list[str]:
    section = re.split(r"^## ", DOCUMENT, flags=re.MULTILINE)
    (text,) = (one for one in section if one.startswith(f"{command}\n"))
    table = text[text.index("| key |") :].split("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


@pytest.mark.parametrize("command", [name.removeprefix("bench ") for name in COMMANDS if name.startswith("bench ")])
def test_every_benchmark_is_documented(command: str) -> None:
    assert len(documented(command)) >= 4


def test_engine() -> None:
    rows = bench("engine", "--runs", "2", "--seconds", "0", "--candidates", "10,30")
    methods = ["plain", "greedy", "age_ts", "age_ucb", "naive age_ts", "naive age_ucb"]
    assert [(row["candidates"], row["method"]) for row in rows] == [(one, name) for one in (10, 30) for name in methods]
    for row in rows:
        assert row["error"] < 1e-5
        assert min(row["ms"], row["over_greedy"], row["over_plain"]) > 0
        assert (row["faster_than_naive"] is None) == (row["method"] not in ("age_ts", "age_ucb"))
        assert row["method"] != "greedy" or row["over_greedy"] == 1


def test_http() -> None:
    options = ("--runs", "2", "--seconds", "0.2", "--candidates", "5", "--rivals", "pydantic,bare", "--load", "20")
    rows = bench("http", *options)
    cases = {(row["server"], row["strategy"], row["features"]) for row in rows}
    ours = {
        ("agerank", *one) for one in (("greedy", "full"), ("age_ts", "full"), ("age_ucb", "full"), ("age_ts", "ids"))
    }
    assert cases == ours | {("pydantic", "greedy", "full"), ("bare", "greedy", "full")}
    assert len(rows) == len(cases) * 3
    for row in rows:
        assert row["rate"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert (row["loop"], row["connections"]) in {("closed", 1), ("closed", 8), ("open 20 %", None)}
        assert row["over_peers"] is None
        assert (row["over_bare"] is None) == (row["loop"] != "closed")


def test_swap() -> None:
    rows = bench("swap", "--runs", "1", "--seconds", "2", "--every", "0.5", "--candidates", "5", "--load", "20")
    assert [(row["loop"], row["phase"]) for row in rows] == [
        (loop, phase) for loop in ("closed", "open") for phase in ("steady", "swapping")
    ]
    for row in rows:
        assert row["failed"] == row["inconsistent"] == 0
        assert row["answers"] > 10
        assert (row["swaps"] > 1) == (row["phase"] == "swapping")


def test_freshness(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WARM_S", 1.0), ("TAIL_S", 5.0), ("ITEMS", 500)):
        monkeypatch.setattr(f"scripts.bench.freshness.{name}", value)
    options = ("--rate", "40", "--seconds", "2", "--interval", "0.5", "--full-every", "3", "--runs", "1")
    rows = bench("freshness", *options, "--items", "20000", "--candidates", "20")
    cases = [("loop", None), ("loop", "full"), ("loop", "delta"), ("20,000 items", "full"), ("20,000 items", "delta")]
    assert [(row["case"], row["versions"]) for row in rows] == cases
    loop, *kinds = rows
    assert 0.5 < loop["answer_p50_s"] <= loop["answer_p99_s"]
    assert 0.5 < loop["click_p50_s"] <= loop["click_p99_s"]
    assert min(loop["rate"], loop["p99_ms"], loop["age_p99_s"]) > 0
    assert min(row[key] for row in kinds for key in ("number", "kilobytes", "publish_ms")) > 0
    assert [row["load_ms"] is not None for row in kinds] == [False, True, True, True]  # who has the delta needs no more
    assert 0.001 < kinds[-1]["touched"] < 0.01
    assert kinds[-1]["of_full"] < kinds[-2]["of_full"] == 1.0


def test_memory() -> None:
    rows = bench("memory", "--runs", "1", "--items", "1500")
    assert [(row["state"], row["items"]) for row in rows] == [("started", 0), ("filled", 1500), ("restarted", 1500)]
    assert all(row["seconds"] > 0 for row in rows)
    assert all(20 < row["resident_mib"] < 1500 for row in rows)


def test_swap_does_not_pass_where_nothing_is_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.bench.swap.set_current", lambda root, manifest: None)
    options = ("--runs", "1", "--seconds", "0.3", "--every", "0.1", "--candidates", "5", "--load", "20")
    run = CliRunner().invoke(app, ["bench", "swap", *options])
    assert run.exit_code == 1
    assert "all answers are of one version" in run.stderr


def test_what_the_machine_lacks_is_said_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.scoring.engines.kernel.LIBRARY", Path("nowhere.so"))
    run = CliRunner().invoke(app, ["bench", "engine", "--engine", "native", "--candidates", "5"])
    assert run.exit_code == 1
    assert "the benchmark cannot go on: nowhere.so" in run.stderr


def test_a_rival_that_is_missing_is_named_and_can_be_left_out() -> None:
    run = CliRunner().invoke(app, ["bench", "http", "--rivals-python", "/bin/false"])
    assert run.exit_code == 2
    assert "needs litserve: pip install 'agerank[bench]'" in run.stderr
    assert "leave litserve out of --rivals" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["http", "--rivals", "ray"], "no rival ray; known are litserve, bentoml, pydantic, bare"),
        (["engine", "--candidates", "ten"], "'ten' is no list of positive whole numbers"),
        (["engine", "--candidates", "0"], "'0' is no list of positive whole numbers"),
        (["engine", "--core", "4096"], "core 4096 is not one of ours"),
        (["http", "--rivals-python", "/nowhere"], "/nowhere cannot be run: No such file"),
        (["swap", "--core", "4096"], "core 4096 is not one of ours"),
        (["engine", "--engine", "abacus"], "'abacus' is not one of"),
    ],
)
def test_a_wrong_option_is_refused(arguments: list[str], complaint: str) -> None:
    run = CliRunner().invoke(app, ["bench", *arguments])
    assert run.exit_code == 2
    assert complaint in run.output


def test_a_table_is_headed_by_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    show(
        [{"name": "one", "value": 0.123}, {"name": "two", "value": None}],
        [Column("name", "name"), Column("value", "milliseconds", ".2f")],
        title="What it is",
        as_json=False,
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "What it is"
    assert [line.strip("\u2502 ").split() for line in lines if "\u2502" in line] == [
        ["one", "\u2502", "0.12"],
        ["two", "\u2502", "-"],
    ]


def test_the_machine_is_named_with_what_is_installed() -> None:
    text = machine(["numpy", "no-such-distribution"])
    assert re.search(r", \d+ cores \| Python 3\.\d+\.\d+, agerank \d", text)
    assert ", numpy 2." in text
    assert "no-such" not in text
    assert whole_numbers("1,20") == [1, 20]
