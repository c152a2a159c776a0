"""Every query of the dashboard and of the rules parses, and asks only for series and labels that are exported."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser as promql
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/agerank.json").read_text())
RULES = [rule for group in yaml.safe_load((DEPLOY / "rules.yml").read_text())["groups"] for rule in group["rules"]]
TARGET_LABELS = {"job", "instance"}  # what Prometheus adds to every series

Series = dict[str, set[str]]


class Query(NamedTuple):
    """A query, and the labels that a legend or an annotation takes from its result."""

    name: str
    expr: str
    uses: set[str]


def panel_queries() -> Iterator[Query]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            expr = target["expr"].replace("$__rate_interval", "1m")
            yield Query(panel["title"], expr, set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])))


def rule_queries() -> Iterator[Query]:
    for rule in RULES:
        text = " ".join(rule.get("annotations", {}).values())
        yield Query(rule.get("record") or rule["alert"], rule["expr"], set(re.findall(r"\$labels\.(\w+)", text)))


def labels(expr: Any, series: Series) -> set[str] | None:
    """The labels of an expression's result, None for a scalar. Fails on a series or a label that does not exist."""
    match expr:
        case promql.VectorSelector():
            assert expr.name in series, f"no such series: {expr.name}"
            asked = {matcher.name for matcher in expr.matchers.matchers}
            unknown = asked - series[expr.name]
            assert not unknown, f"{expr.name} has no label {unknown}"
            return series[expr.name]
        case promql.MatrixSelector():
            return labels(expr.vector_selector, series)
        case promql.ParenExpr():
            return labels(expr.expr, series)
        case promql.Call():
            return _call(expr.func.name, [labels(argument, series) for argument in expr.args])
        case promql.AggregateExpr():
            kept = set(expr.modifier.labels) if expr.modifier else set()
            found = labels(expr.expr, series) or set()
            assert kept <= found, f"cannot keep {kept - found}: the series have {found}"
            return kept
        case promql.BinaryExpr():
            matching = expr.modifier.matching if expr.modifier else None
            return _binary(labels(expr.lhs, series), labels(expr.rhs, series), matching)
        case _:
            return None


def _call(name: str, arguments: list[set[str] | None]) -> set[str] | None:
    if name == "vector":
        return set()
    vector = next((argument for argument in arguments if argument is not None), None)
    if name == "histogram_quantile":
        assert vector, "histogram_quantile needs the label le"
        assert "le" in vector, "histogram_quantile needs the label le"
        return vector - {"le"}
    return vector


def _binary(left: set[str] | None, right: set[str] | None, matching: Any) -> set[str] | None:
    if left is None or right is None:
        return right if left is None else left
    if matching is None:  # then series with unequal labels never match
        assert left == right, f"never match: {left} against {right}"
    else:
        on = set(matching.labels)
        assert on <= left & right, f"cannot match on {on}: {left} against {right}"
    return left


@pytest.fixture(scope="module")
def series(exported: Series) -> Series:
    """What can be asked for: exported by us, by Prometheus itself, and recorded by our rules."""
    known = {name: own | TARGET_LABELS for name, own in exported.items()} | {"up": TARGET_LABELS}
    for rule in RULES:
        if "record" in rule:
            known[rule["record"]] = labels(promql.parse(rule["expr"]), known) or set()
    return known


@pytest.mark.parametrize("query", [*panel_queries(), *rule_queries()], ids=lambda query: query.name)
def test_query_asks_only_for_what_is_exported(query: Query, series: Series) -> None:
    found = labels(promql.parse(query.expr), series) or set()
    assert query.uses <= found, f"the text shows {query.uses - found}, the result has only {found}"


@pytest.mark.parametrize(
    ("expr", "complaint"),
    [
        ("rate(agerank_request_total[5m])", "no such series"),
        ('agerank_requests_total{path="/"}', "has no label"),
        ("sum by (strategy) (agerank_requests_total)", "cannot keep"),
        ("histogram_quantile(0.5, sum(rate(agerank_request_seconds_bucket[5m])))", "needs the label le"),
        ("sum by (lane) (agerank_slots_total) / sum by (strategy) (agerank_slots_total)", "never match"),
        ("agerank_log_up and on (lane) agerank_slots_total", "cannot match"),
    ],
)
def test_a_query_that_would_stay_empty_is_found(expr: str, complaint: str, series: Series) -> None:
    with pytest.raises(AssertionError, match=complaint):
        labels(promql.parse(expr), series)


@pytest.mark.parametrize("query", [*panel_queries(), *rule_queries()], ids=lambda query: query.name)
def test_query_asks_only_for_values_that_the_service_spells_out(query: Query, spelt_out: set[str]) -> None:
    selectors: list[Any] = []
    promql.walk(promql.parse(query.expr), lambda node: selectors.append(node) if hasattr(node, "matchers") else None)
    for matcher in (matcher for selector in selectors for matcher in selector.matchers.matchers):
        if matcher.op == promql.MatchOp.Equal and matcher.name not in TARGET_LABELS:
            assert matcher.value in spelt_out, f"nothing sets {matcher.name} to {matcher.value}"


@pytest.fixture(scope="module")
def spelt_out() -> set[str]:
    """Every string in the source of the service."""
    trees = [ast.parse(path.read_text()) for path in ROOT.glob("service/**/*.py")]
    constants = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {value for value in constants if isinstance(value, str)}


def test_the_variables_ask_for_labels_that_exist(series: Series) -> None:
    for variable in DASHBOARD["templating"]["list"]:
        name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()
        assert label in series[name]
        assert variable["name"] == label


def test_panels_are_distinct_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for grid in [panel["gridPos"]]
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_every_panel_asks_the_provisioned_datasource() -> None:
    path = DEPLOY / "grafana/provisioning/datasources/prometheus.yml"
    (source,) = yaml.safe_load(path.read_text())["datasources"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": source["type"], "uid": source["uid"]}


def test_every_recorded_series_is_used() -> None:
    queries = [query.expr for query in [*panel_queries(), *rule_queries()]]
    for rule in RULES:
        if "record" in rule:
            assert any(rule["record"] in expr for expr in queries), rule["record"]
