"""What the code offers is documented, and what is documented exists: settings, metrics, alerts, error codes."""

import ast
import dataclasses
import json
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from models.registry import METHODS, build
from models.spec import Field
from service import errors
from service.scoring.problems import TITLES
from service.settings import DEFAULT_STRATEGY, STRATEGIES, Settings

ROOT = Path(__file__).parents[1]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
ERROR_CLASSES = {name for name, value in vars(errors).items() if isinstance(value, type)}


def section(title: str) -> str:
    """The text below a heading, up to the next of its level."""
    level = re.search(rf"^(#+) {re.escape(title)}$", OPERATIONS, re.MULTILINE)
    assert level, f"docs/operations.md has no section {title!r}"
    rest = OPERATIONS[level.end() :]
    return re.split(rf"^#{{1,{len(level[1])}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(title: str) -> dict[str, list[str]]:
    """The tables of a section: first cell -> the other cells, without backticks."""
    lines = [line for line in section(title).splitlines() if line.startswith("| `")]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


def default_of(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True)
    return json.loads(json.dumps(value, default=str))


def test_every_setting_is_documented_with_its_default() -> None:
    documented = rows("Settings")
    assert documented.keys() == Settings.model_fields.keys()
    for name, (default, meaning) in documented.items():
        expected = default_of(Settings.model_fields[name])
        assert name == "strategies" or json.loads(default) == expected, f"{name}: {default} is not {expected}"
        assert len(meaning.split()) > 2, f"{name} is not explained"


def test_every_key_of_the_feature_spec_is_documented_with_its_default() -> None:
    documented, keys = rows("Features"), {one.name: one.default for one in dataclasses.fields(Field)}
    assert documented.keys() == keys.keys()
    for name, (default, meaning) in documented.items():
        assert (json.loads(default) if default else dataclasses.MISSING) == keys[name], name
        assert meaning, f"{name} is not explained"


def test_the_strategies_shown_are_the_default_ones() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", section("Strategies"), re.DOTALL)
    assert tomllib.loads(block)["strategies"] == STRATEGIES


def test_the_default_strategy_is_the_one_that_is_called_so() -> None:
    (meaning,) = [meaning for name, (_, meaning) in rows("Settings").items() if name == "default_strategy"]
    named = re.findall(r"`null`: `(\w+)`", meaning)
    named += re.findall(r"`(\w+)`, the default", (ROOT / "README.md").read_text())
    named += re.findall(r"`(\w+)` .* is the default strategy", (ROOT / "docs/experiments.md").read_text())
    assert len(named) == 3
    assert set(named) == {DEFAULT_STRATEGY}
    assert DEFAULT_STRATEGY in STRATEGIES


def test_the_replay_of_upworthy_is_what_its_runs_say() -> None:
    lines = (ROOT / "docs/results/replay_upworthy.jsonl").read_text().splitlines()
    gain: dict[str, dict[int, float]] = {}
    for one in map(json.loads, lines):
        result, settings = one["result"], one["settings"]
        random = result["expected_random_clicks"] / result["expected_random_matches"]
        gain.setdefault(settings["strategy"]["method"], {})[settings["seed"]] = 100.0 * (result["ctr"] / random - 1.0)
    text = (ROOT / "docs/experiments.md").read_text()
    assert set(gain) == {"random", "greedy", "item_posterior"}
    for method, by_seed in gain.items():
        assert sorted(by_seed) == list(range(40))
        values = list(by_seed.values())
        assert f"| `{method}` | {fmean(values):+.1f}% ± {stdev(values) / 40**0.5:.1f} |" in text
    assert f"`item_posterior` gains {fmean(gain['item_posterior'].values()):.1f} %" in (ROOT / "README.md").read_text()


def prose(path: Path) -> str:
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Of its headings, as a browser of repositories makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def test_every_link_leads_somewhere() -> None:
    found = [
        (path, *link.partition("#"))
        for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(path))
        if "://" not in link
    ]
    assert len(found) > 50
    for path, file, _, anchor in found:
        target = path.parent / file if file else path
        assert target.exists(), f"{path.name}: {file}"
        assert not anchor or anchor in anchors(target), f"{path.name}: {file}#{anchor}"


def test_every_method_is_documented_with_its_options() -> None:
    text = (ROOT / "docs/algorithms.md").read_text()
    chapters = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    for name in METHODS:
        for option in build(name, {}).options:
            assert f"`{option}" in chapters[name], f"docs/algorithms.md does not explain {option} of {name}"


def test_every_metric_is_documented_with_its_labels(exported: dict[str, set[str]]) -> None:
    families = {re.sub(r"_(bucket|sum|count)$", "", name): labels - {"le"} for name, labels in exported.items()}
    documented = rows("Metrics")
    assert documented.keys() == families.keys()
    for name, (labels, meaning) in documented.items():
        assert set(re.findall(r"\w+", labels)) == families[name], name
        assert len(meaning.split()) > 2, f"{name} is not explained"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    groups = yaml.safe_load((ROOT / "deploy/rules.yml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    assert set(re.findall(r"^### (\w+)$", section("Alerts"), re.MULTILINE)) == alerts


def test_every_error_code_is_documented() -> None:
    documents = OPERATIONS + (ROOT / "docs/api.md").read_text()
    found = {code for path in [*ROOT.glob("service/**/*.py"), ROOT / "models/features.py"] for code in codes(path)}
    assert len(found) > 20
    assert {code for code in found if f"`{code}`" not in documents} == set()


def codes(path: Path) -> Iterator[str]:
    """First arguments of our exceptions, and every `code=`, where they are spelt out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            given += node.args[:1] if name in ERROR_CLASSES or name.endswith("Error") else []
            values = [one.value for one in given if isinstance(one, ast.Constant)]
            yield from (code for code in values if isinstance(code, str) and re.fullmatch(r"[a-z_]+", code))


def test_every_code_of_an_answer_is_in_the_documentation_of_the_api() -> None:
    api = (ROOT / "docs/api.md").read_text()
    assert {code for code in TITLES if f"`{code}`" not in api} == set()


def test_the_error_tree_names_only_codes_that_are_answered() -> None:
    """The head of errors.py is where a reader learns the failure model."""
    tree = re.findall(r"^    \|-- \w+ +\d{3} +([a-z_, *]+)", errors.__doc__ or "", re.MULTILINE)
    names = {name.strip() for line in tree for name in line.split(",")}
    patterns = {name for name in names if name.endswith("*")}
    assert names - patterns <= TITLES.keys()
    assert all(name in names or any(name.startswith(one[:-1]) for one in patterns) for name in TITLES)


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert versions[0] == metadata.version("agerank")


def test_the_changelog_s_versions_descend() -> None:
    versions = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    numbers = [tuple(map(int, version.split("."))) for version in versions]
    assert numbers == sorted(set(numbers), reverse=True)
