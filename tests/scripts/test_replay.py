import gzip
import json
import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from models.evaluation.r6b import Tally, events
from models.evaluation.worlds.r6b import R6bWorld
from scripts.cli import app

UPWORTHY = Path(__file__).parents[2].parent / "shared/data/upworthy_60tests_seed0_r6b.txt.gz"
STRATEGIES = ("random", "greedy", "epsilon_greedy", "age_ts", "age_ucb")

EXPECTED = ("expected_random_matches", "expected_random_clicks")

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """`agerank replay` in this process, in a folder without settings."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["replay", "--jobs", "1", *map(str, arguments)])


def lines(count: int, *, seed: int = 0) -> list[str]:
    """R6B lines of a simulated world with uniformly random display."""
    world, generator = R6bWorld(seed=seed, pool=10, users=200), np.random.default_rng(seed)
    written = []
    for number in range(count):
        visit = world.visit(30.0 * number)
        displayed = int(generator.integers(len(visit.candidates)))
        click = int(visit.click([displayed], generator)[0])
        ids = [candidate.replace("item", "id") for candidate in visit.candidates]
        user, pool = " ".join(map(str, visit.features)), " ".join(f"|{one}" for one in ids)
        written.append(f"{1317513291 + 30 * number} {ids[displayed]} {click} |user {user} {pool}\n")
    return written


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.txt.gz"
    path.write_bytes(gzip.compress("".join(lines(4_000)).encode()))
    return path


def test_json_is_a_flat_row_for_each_strategy_and_seed(log: Path, invoke: Invoke) -> None:
    done = invoke("--log", log, "--strategies", ",".join(STRATEGIES), "--seeds", 2, "--warm-up", 1_000, "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [(row["strategy"], row["seed"]) for row in rows] == [(name, seed) for name in STRATEGIES for seed in (0, 1)]
    with gzip.open(log, "rt") as file:
        judged = list(events(file, Tally()))[1_000:]
    for row in rows:
        assert list(row) == ["strategy", "seed", "events", "matched", "clicks", "ctr", *EXPECTED]
        assert row["events"] == len(judged)
        assert row["expected_random_matches"] == pytest.approx(sum(1 / len(one.candidates) for one in judged))
        assert row["expected_random_clicks"] == pytest.approx(sum(one.click / len(one.candidates) for one in judged))
        assert row["ctr"] == row["clicks"] / row["matched"]
        assert abs(row["matched"] - row["expected_random_matches"]) < 4 * math.sqrt(row["expected_random_matches"])
    assert done.stderr == ""


def test_the_same_command_gives_the_same_json_with_any_number_of_jobs(log: Path, invoke: Invoke) -> None:
    arguments = ("--log", log, "--strategies", "random,age_ts", "--warm-up", 500, "--limit", 1_500, "--json")
    one, two = invoke(*arguments), invoke(*arguments, "--jobs", 2)
    assert one.stdout == two.stdout
    assert json.loads(one.stdout)[0]["events"] == 1_000


def test_the_table_shows_means_over_the_seeds_and_what_random_display_would_get(log: Path, invoke: Invoke) -> None:
    done = invoke("--log", log, "--strategies", "random,greedy", "--seeds", 3, "--warm-up", 1_000, "--limit", 2_000)
    assert done.exit_code == 0, done.output
    assert "1000 visits" in done.stdout
    for name in ("random", "greedy"):
        (row,) = [line for line in done.stdout.splitlines() if name in line and "\u00b1" in line]
        assert row.count("\u00b1") == 4
        assert row.count("%") >= 3


def test_unusable_lines_are_counted_on_stderr(tmp_path: Path, invoke: Invoke) -> None:
    path = tmp_path / "log.txt"
    good = lines(400)
    broken = ["\n", "1317513291 id-1 7 |user 1 |id-1\n", "1317513291 id-1 0 |user 1 |id-2\n", "\xe9\xfc\n", "\xe9\n"]
    path.write_text("".join([*good[:200], *broken, *good[300:], *good[200:300]]), encoding="latin-1")
    done = invoke("--log", path, "--strategies", "random", "--warm-up", 100, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["events"] == 300
    assert "skipped 5 lines: 2 incomplete_line, 1 empty_line, 1 bad_click, 1 displayed_not_in_pool" in done.stderr
    assert "1 visits that are earlier" in done.stderr


def test_strategies_come_from_the_settings(log: Path, tmp_path: Path, invoke: Invoke) -> None:
    settings = tmp_path / "mine.toml"
    settings.write_text(
        '[strategies.coin]\nmethod = "epsilon_greedy"\nepsilon = 1.0\n[strategies.plain]\nmethod = "greedy"\n'
    )
    arguments = ("--log", log, "--warm-up", 500, "--limit", 1_000, "--json", "--config", settings)
    done = invoke(*arguments, "--strategies", "coin,plain")
    assert [row["strategy"] for row in json.loads(done.stdout)] == ["coin", "plain"]
    unknown = invoke(*arguments, "--strategies", "random")
    assert unknown.exit_code == 2
    assert "coin, plain" in unknown.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "No such file"),
        ("plain.gz", b"1317513291 id-1 0 |user 1 |id-1\n", "not an intact gzip file"),
        ("cut.gz", gzip.compress("".join(lines(3_000)).encode())[:20_000], "not an intact gzip file"),
        ("empty.txt", b"", "no usable line"),
        ("prose.txt", b"Dear all,\nplease find attached\n", "no usable line"),
        ("short.txt", "".join(lines(50)).encode(), "none is left"),
    ],
)
def test_a_log_that_cannot_be_judged_on_is_an_error(
    tmp_path: Path, invoke: Invoke, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    done = invoke("--log", path, "--strategies", "random", "--warm-up", 50, "--json")
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("\u2502", " ").split())
    assert done.stdout == ""


def test_half_of_the_log_is_half_of_its_visits(log: Path, invoke: Invoke, tmp_path: Path) -> None:
    plain = tmp_path / "log.txt"
    plain.write_bytes(gzip.decompress(log.read_bytes()))
    arguments = ("--log", plain, "--strategies", "random", "--warm-up", 100, "--json", "--share", 0.5)
    (row,) = json.loads(invoke(*arguments).stdout)
    assert 1_800 <= row["events"] + 100 <= 3_000  # the share is looked at once in a thousand visits


def test_a_finished_run_is_not_repeated_and_another_setting_is_another_run(
    log: Path, invoke: Invoke, tmp_path: Path
) -> None:
    runs = tmp_path / "runs.jsonl"
    arguments = ("--log", log, "--warm-up", 500, "--limit", 900, "--json", "--runs", runs)
    first = invoke(*arguments, "--strategies", "random")
    (line,) = runs.read_text().splitlines()
    done = json.loads(line)
    assert done["revision"]
    assert done["seconds"] > 0
    assert done["settings"]["strategy"]["method"] == "random"
    done["result"]["clicks"] = 12_345
    runs.write_text(json.dumps(done) + "\n" + line[:50])  # and a torn line, as a killed command leaves it
    again = json.loads(invoke(*arguments, "--strategies", "random,greedy").stdout)
    assert [row["clicks"] for row in again][0] == 12_345 != json.loads(first.stdout)[0]["clicks"]
    (other,) = json.loads(invoke(*arguments, "--strategies", "random", "--window", 100).stdout)
    assert other["clicks"] != 12_345


def test_a_folder_is_no_log(tmp_path: Path, invoke: Invoke) -> None:
    done = invoke("--log", tmp_path, "--strategies", "random")
    assert done.exit_code == 2
    assert "directory" in done.stderr


def test_a_run_that_fails_in_another_process_is_the_same_error(tmp_path: Path, invoke: Invoke) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress("".join(lines(3_000)).encode())[:20_000])
    done = invoke("--log", path, "--strategies", "random,greedy", "--warm-up", 50, "--jobs", 2)
    assert done.exit_code == 2
    assert "not an intact gzip file" in " ".join(done.stderr.replace("\u2502", " ").split())


@pytest.mark.skipif(not UPWORTHY.exists(), reason="the Upworthy log is not beside the checkout")
def test_random_earns_on_a_real_log_what_it_must(invoke: Invoke) -> None:
    """Random keeps each click of the log with probability q = 1 / |A|, independently: its variance is sum q (1 - q)."""
    arguments = ("--log", UPWORTHY, "--warm-up", 2_000, "--limit", 20_000, "--strategies", "random", "--seeds", 2)
    rows = json.loads(invoke(*arguments, "--json").stdout)
    with gzip.open(UPWORTHY, "rt") as file:
        judged = list(islice(events(file, Tally()), 2_000, 20_000))
    q = np.array([1 / len(one.candidates) for one in judged if one.click])
    for row in rows:
        assert row["events"] == 18_000
        assert row["expected_random_clicks"] == pytest.approx(q.sum())
        assert abs(row["clicks"] - q.sum()) < 3 * math.sqrt(np.sum(q * (1 - q)))


SPEC = """
fields = [
  {name = "features", side = "user", kind = "multi_hot", buckets = 64, max_values = 136, width = 2},
  {name = "kind", side = "item", kind = "categorical", buckets = 64, width = 4},
]
"""


@pytest.fixture
def known(log: Path, tmp_path: Path) -> list[str]:
    """Arguments of a replay whose items are good or bad, as earlier traffic has shown of others of the same kind."""
    with gzip.open(log, "rt") as file:
        visits = list(events(file, Tally()))
    shown, clicked = ({one: 0 for visit in visits for one in visit.candidates} for _ in range(2))
    for visit in visits:
        shown[visit.candidates[visit.displayed]] += 1
        clicked[visit.candidates[visit.displayed]] += visit.click
    middle = float(np.median([clicked[one] / shown[one] for one in shown if shown[one]]))
    kinds = {one: "good" if shown[one] and clicked[one] / shown[one] > middle else "bad" for one in shown}
    items: list[dict[str, object]] = [{"id": one, "features": {"kind": kind}} for one, kind in kinds.items()]
    for kind, clicks in (("good", 9_000), ("bad", 1_000)):
        items.append({"id": kind, "features": {"kind": kind}, "impressions": 100_000, "clicks": clicks})
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (tmp_path / "spec.toml").write_text(SPEC)
    return ["--items", str(tmp_path / "items.jsonl"), "--features", str(tmp_path / "spec.toml")]


def test_the_past_of_other_items_is_worth_clicks(log: Path, known: list[str], invoke: Invoke) -> None:
    arguments = ("--log", log, "--strategies", "greedy", "--warm-up", 0, "--json", "--learning-rate", 0.01)
    (row,) = json.loads(invoke(*arguments, *known).stdout)
    (blind,) = json.loads(invoke(*arguments).stdout)
    assert row["ctr"] > 1.2 * row["expected_random_clicks"] / row["expected_random_matches"]
    assert row["clicks"] != blind["clicks"]


def test_a_run_is_known_by_its_items_and_its_learning_rate(
    log: Path, known: list[str], tmp_path: Path, invoke: Invoke
) -> None:
    runs = tmp_path / "runs.jsonl"
    arguments = ("--log", log, "--strategies", "random", "--warm-up", 0, "--limit", 50, "--json", "--runs", runs)
    for more in ((), known, known, (*known, "--learning-rate", 0.01)):
        assert invoke(*arguments, *more).exit_code == 0
    assert len(runs.read_text().splitlines()) == 3
    items = Path(known[1])
    items.write_text(items.read_text().replace('"clicks": 9000', '"clicks": 9001'))
    assert invoke(*arguments, *known).exit_code == 0
    assert len(runs.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("items.jsonl", '\n{"id": "good"', '\n{"impressions": 9, "id": "SHOWN"', "SHOWN for the second time"),
        ("items.jsonl", '{"id": "good"', '{"nod": "good"', "items.jsonl: line"),
        ("items.jsonl", '"kind": "good"}}', '"colour": "red"}}', "items.jsonl: line"),
        ("spec.toml", '"features"', '"others"', 'need a multi_hot field "features"'),
        ("spec.toml", "fields", "felder", "expected [[fields]]"),
        ("spec.toml", "max_values = 136", "max_values = 1", 'of "features", whose max_values are fewer'),
    ],
)
def test_what_cannot_be_known_is_an_error(
    log: Path, known: list[str], tmp_path: Path, invoke: Invoke, name: str, old: str, new: str, message: str
) -> None:
    path = tmp_path / name
    with gzip.open(log, "rt") as file:
        first = next(events(file, Tally())).candidates[0]
    path.write_text(path.read_text().replace(old, new.replace("SHOWN", first), 1))
    done = invoke("--log", log, "--strategies", "random", "--warm-up", 0, "--limit", 20, *known)
    assert done.exit_code == 2
    assert message.replace("SHOWN", first) in " ".join(done.stderr.replace("\u2502", " ").split())


def test_items_and_spec_belong_together_and_to_the_log(log: Path, known: list[str], invoke: Invoke) -> None:
    def refused(*arguments: object) -> str:
        done = invoke("--log", log, "--strategies", "random", "--warm-up", 0, "--limit", 20, *arguments)
        assert done.exit_code == 2
        return " ".join(done.stderr.replace("\u2502", " ").split())

    assert "the log says nothing of its items' kind; give --items, too" in refused(*known[2:])
    assert "features.kind: not in the feature spec; known are []; what of the items" in refused(*known[:2])
    items = Path(known[1])
    items.write_text(items.read_text().replace('{"id": "', '{"id": "other-'))
    assert "none of the log's 9 items is in it" in refused(*known)
    items.write_text("")
    assert "none of the log's 9 items is in it" in refused(*known)


def test_a_strategy_that_needs_ids_is_refused_where_the_spec_has_none(
    log: Path, known: list[str], tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "counting.toml"
    config.write_text('[strategies.counting]\nmethod = "count_ucb"\n')
    monkeypatch.setenv("AGERANK_CONFIG", str(config))
    done = invoke("--log", log, "--strategies", "counting", *known)
    assert done.exit_code == 2
    assert 'counting: items are told apart by an item field with source = "id"' in done.stderr


def test_what_is_known_of_the_log_is_said(log: Path, known: list[str], invoke: Invoke) -> None:
    items = Path(known[1])
    first, *others = items.read_text().splitlines(keepends=True)
    for lines, count in (([first, *others], 9), (others, 8)):
        items.write_text("".join(lines))
        done = invoke("--log", log, "--strategies", "random", "--warm-up", 0, "--limit", 20, "--json", *known)
        assert done.exit_code == 0
        assert f"{count} of the log's 9 items are known, and 2 of the past" in done.stderr
        assert json.loads(done.stdout)[0]["events"] == 20


def test_files_that_are_missing_are_an_error(log: Path, known: list[str], invoke: Invoke) -> None:
    for option, value in (("--items", "none.jsonl"), ("--features", "none.toml")):
        done = invoke("--log", log, "--strategies", "random", *known, option, value)
        assert done.exit_code == 2
        assert "cannot read none" in done.stderr


def test_the_past_is_not_what_is_judged(log: Path, known: list[str], invoke: Invoke) -> None:
    items = Path(known[1])
    first, *others = items.read_text().splitlines()
    items.write_text("\n".join([first.removesuffix("}") + ', "impressions": 9, "clicks": 1}', *others]))
    done = invoke("--log", log, "--strategies", "random", "--warm-up", 0, "--limit", 2_000, *known)
    assert done.exit_code == 2
    assert f"{json.loads(first)['id']} is in the log" in " ".join(done.stderr.replace("\u2502", " ").split())
