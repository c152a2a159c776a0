import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import Result
from typer.testing import CliRunner

from models.registry import METHODS, build
from scripts.cli import app
from scripts.report_tables import TABLES

Invoke = Callable[..., Result]
SMALL = ("--visits", 600, "--seeds", 2, "--jobs", 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results that the tests of this module share."""
    return tmp_path_factory.mktemp("report") / "runs.jsonl"


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Path) -> Invoke:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["report", *map(str, (*arguments, "--runs", runs))])


@pytest.mark.parametrize("name", TABLES)
def test_every_row_is_a_strategy_that_can_be_built(name: str) -> None:
    table = TABLES[name]
    labels = [row.label for row in table.rows]
    assert len(set(labels)) == len(labels)
    assert table.reference in labels
    for row in table.rows:
        if row.options["method"] in METHODS:
            build(row.options["method"], row.options)


def test_json_has_all_that_is_needed_to_get_it_again(invoke: Invoke, runs: Path) -> None:
    done = invoke("glm", *SMALL, "--only", "greedy,AGE-TS", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["seeds"] == [100, 101]
    assert document["visits"] == 600
    assert document["world"] == "glm"
    assert document["command"].startswith("agerank")
    assert document["version"]
    rows = {row["label"]: row for row in document["rows"]}
    assert list(rows) == ["greedy", "epsilon-greedy", "AGE-TS"], "the reference is always there"
    kept = [json.loads(line) for line in runs.read_text().splitlines()]
    for row in rows.values():
        mine = [one["result"] for one in kept if one["settings"]["strategy"] == row["strategy"]]
        assert row["clicks"] == [one["clicks"] for one in mine]
        assert row["clicks_mean"] == sum(row["clicks"]) / 2
        assert sum(age["shown"] for age in row["ages"]) == 2 * 600
        assert len(row["regret"]) == len(row["ctr"])
    base, other = (rows[label]["expected_clicks"] for label in ("epsilon-greedy", "AGE-TS"))
    found = rows["AGE-TS"]["against_reference"]
    assert found["mean"] == pytest.approx(sum(other) / sum(base) - 1.0)
    assert found["low"] < found["mean"] < found["high"]
    assert rows["epsilon-greedy"]["against_reference"]["mean"] == 0.0


def test_a_report_goes_on_where_it_was(invoke: Invoke, runs: Path) -> None:
    arguments = ("glm", *SMALL, "--only", "greedy,AGE-TS", "--json")
    first = invoke(*arguments)
    lines = runs.read_text()
    again = invoke(*arguments)
    assert runs.read_text() == lines
    assert again.stdout == first.stdout
    invoke("glm", "--visits", 600, "--seeds", 3, "--jobs", 1, "--only", "greedy,AGE-TS")
    assert len(runs.read_text().splitlines()) == len(lines.splitlines()) + 3, "one more seed is three more runs"


def test_markdown_and_plot(invoke: Invoke, tmp_path: Path) -> None:
    plot = tmp_path / "curves.svg"
    done = invoke("glm", *SMALL, "--only", "greedy,AGE-TS", "--markdown", "--plot", plot)
    head, rule, *body = done.stdout.splitlines()
    assert head.startswith("| strategy | clicks | against epsilon-greedy |")
    assert set(rule) <= set("|-: ")
    assert [line.split("|")[1].strip() for line in body] == ["greedy", "epsilon-greedy", "AGE-TS"]
    assert all(line.count("|") == head.count("|") for line in body)
    root = ElementTree.parse(plot).getroot()
    paths = root.findall(".//{http://www.w3.org/2000/svg}path")
    assert len(paths) == 3 + 3 * 3 + 3, "an axis and three lines a panel, and the legend"
    assert "nan" not in plot.read_text()


def test_the_paper_stands_beside_our_figures(invoke: Invoke) -> None:
    done = invoke("table3", "--visits", 300, "--seeds", 1, "--jobs", 1, "--only", "PGD", "--markdown")
    assert done.exit_code == 0, done.output
    assert "paper: against FGM" in done.stdout
    assert "| PGD | 50,111 | +2.9% |" in done.stdout


def test_throughput_tells_what_crossed(invoke: Invoke) -> None:
    done = invoke("throughput", "--world", "glm", *SMALL, "--only", "random", "--markdown")
    assert "| crossed | their CTR |" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("glm", "--first-seed", 0), "for tuning"),
        (("glm", "--first-seed", 98), "for tuning"),
        (("glm", "--only", "grandiose"), "no row grandiose; there are greedy"),
        (("glm", "--world", "mars"), "no world 'mars'"),
        (("glm", "--plot", "nowhere/curves.svg"), "there is no folder nowhere"),
        (("throughput", "--world", "glm", "--only", "UCB on counts"), "UCB on counts: items are told apart by"),
        (("table9",), "table9"),
    ],
)
def test_what_cannot_be_reported_is_refused(invoke: Invoke, arguments: tuple[object, ...], message: str) -> None:
    done = invoke(*arguments, *SMALL)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("\u2502", " ").split())


def test_a_folder_is_no_place_for_runs(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", "glm", "--runs", str(tmp_path)])
    assert done.exit_code == 2
    assert "is a folder" in " ".join(done.stderr.replace("\u2502", " ").split())


def test_a_label_may_hold_a_comma(invoke: Invoke) -> None:
    rows = ("--only", "epsilon-greedy, decayed", "--only", "greedy, AGE-TS")
    done = invoke("glm", *SMALL, *rows, "--markdown")
    assert done.exit_code == 0, done.output
    labels = [line.split("|")[1].strip() for line in done.stdout.splitlines()[2:]]
    assert labels == ["greedy", "epsilon-greedy", "epsilon-greedy, decayed", "AGE-TS"]


def test_rows_that_cannot_live_in_the_world_are_left_out_and_named(invoke: Invoke, tmp_path: Path) -> None:
    plot = tmp_path / "few.svg"
    size = ("--visits", 20, "--seeds", 1, "--jobs", 1)
    done = invoke("throughput", "--world", "glm", *size, "--json", "--plot", plot)
    assert done.exit_code == 0, done.output
    assert done.stderr.count("left out") == 2
    assert "left out UCB on counts: items are told apart by an item field" in done.stderr
    labels = [row["label"] for row in json.loads(done.stdout)["rows"]]
    assert "AGE-TS" in labels
    assert "UCB on counts" not in labels
    titles = [text.text for text in ElementTree.parse(plot).getroot().findall(".//{http://www.w3.org/2000/svg}text")]
    assert "CTR by impressions of the item" in titles, "of items shown too seldom to have one, axes alone"


def test_a_file_that_is_no_world_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "world.npz").write_bytes(b"PK nothing")
    done = invoke("glm", "--world", tmp_path / "world.npz", *SMALL)
    assert done.exit_code == 2
    assert "is not a file of" in " ".join(done.stderr.replace("\u2502", " ").split())


def test_a_frontier_is_a_line_a_method(invoke: Invoke, tmp_path: Path) -> None:
    plot = tmp_path / "frontier.svg"
    rows = "AGE-TS at 5%,AGE-TS at 20%,PlugTS at 10%"
    done = invoke("frontier", "--world", "glm", *SMALL, "--only", rows, "--plot", plot, "--json")
    assert done.exit_code == 0, done.output
    budgets = {row["label"]: row["strategy"]["budget"] for row in json.loads(done.stdout)["rows"]}
    assert budgets == {"greedy": None, "AGE-TS at 5%": 0.05, "AGE-TS at 20%": 0.2, "PlugTS at 10%": 0.1}
    drawn = ElementTree.parse(plot).getroot()
    legend = [text.text for text in drawn.findall("{http://www.w3.org/2000/svg}text")]
    assert legend == ["AGE-TS", "PlugTS"]


def test_strategies_may_learn_anew_from_a_window(invoke: Invoke, runs: Path) -> None:
    done = invoke("glm", *SMALL, "--only", "greedy", "--protocol", "window", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["protocol"]["window"] == document["protocol"]["warm_up"] == 500
    assert json.loads(runs.read_text().splitlines()[-1])["settings"]["protocol"]["window"] == 500
