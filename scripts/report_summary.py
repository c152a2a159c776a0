"""From runs to a table: means over seeds, their quotients, and the paper's figures beside them."""

import statistics
from collections.abc import Sequence
from typing import Any

from models.evaluation.intervals import Interval, paired
from models.metrics import known
from scripts.report_rows import Row, Table
from scripts.runs import Record

Summary = dict[str, Any]
Cells = tuple[list[str], list[list[str]]]  # head, body
HEAD = ("strategy", "clicks", "against {}", "of the best", "PCOC", "log loss", "changed", "seconds")


def summary(table: Table, rows: Sequence[Row], records: Sequence[Sequence[Record]]) -> list[Summary]:
    """One entry a row of the table, from the records of its seeds, which are the same for all rows.

    Compared are expected clicks, the sum of the true click probabilities of what was shown: pairs of the same world,
    without the luck of the clicks.
    """
    labels = [row.label for row in rows]
    base = [one.result["expected_clicks"] for one in records[labels.index(table.reference)]]
    paper = {row.label: row.paper for row in table.rows}[table.reference]
    return [_summary(row, runs, base, paper) for row, runs in zip(rows, records, strict=True)]


def _summary(row: Row, runs: Sequence[Record], base: Sequence[float], paper: float | None) -> Summary:
    results = [run.result for run in runs]
    clicks = [one["clicks"] for one in results]
    expected = [one["expected_clicks"] for one in results]
    return {
        "label": row.label,
        "strategy": runs[0].settings["strategy"],
        "paper": row.paper,
        "paper_again": row.again,
        "paper_against_reference": row.paper / paper - 1.0 if row.paper and paper else None,
        "clicks": clicks,
        "expected_clicks": expected,
        "clicks_mean": statistics.fmean(clicks),
        "clicks_sd": statistics.stdev(clicks) if len(clicks) > 1 else None,
        "against_reference": _interval(paired(expected, base)),
        "of_oracle": sum(expected) / sum(one["oracle_clicks"] for one in results),
        "over_random": sum(expected) / sum(one["random_clicks"] for one in results) - 1.0,
        "pcoc": _mean([one["pcoc"] for one in results]),
        "log_loss": _mean([one["log_loss"] for one in results]),
        "auc": _mean([one["auc"] for one in results]),
        "changed": _mean([one["changed"] for one in results]),
        "lambda": _mean([one["lambda_"] for one in results]),
        "crossed": _mean([one["crossed"] for one in results]),
        "crossed_ctr": _mean([one["crossed_ctr"] for one in results]),
        "seconds": statistics.fmean(run.seconds for run in runs),
        "revisions": sorted({run.revision for run in runs}),
        "regret": _curve([one["regret"] for one in results]),
        "ctr": _curve([one["ctr"] for one in results]),
        "ages": _ages([one["ages"] for one in results]),
    }


def cells(table: Table, entries: Sequence[Summary]) -> Cells:
    """The table that people read."""
    head = [column.format(table.reference) for column in HEAD]
    paper = any(one["paper"] for one in entries)
    if paper:
        head[1:1] = [f"paper: {table.unit}", f"paper: against {table.reference}"]
    if table.throughput:
        head += ["crossed", "their CTR"]
    body = []
    for one in entries:
        line = [
            one["label"],
            _number(one["clicks_mean"], ",.0f") + (f" \u00b1 {one['clicks_sd']:.0f}" if one["clicks_sd"] else ""),
            difference(one["against_reference"]),
            _number(one["of_oracle"], ".1%"),
            _number(one["pcoc"], ".3f"),
            _number(one["log_loss"], ".4f"),
            _number(one["changed"], ".1%"),
            _number(one["seconds"], ".0f"),
        ]
        if paper:
            line[1:1] = [_number(one["paper"], ",.5g"), _number(one["paper_against_reference"], "+.1%")]
        if table.throughput:
            line += [_number(one["crossed"], ".1f"), _number(one["crossed_ctr"], ".2%")]
        body.append(line)
    return head, body


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """As docs have it: the first column is text, the others are numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))


def difference(found: Summary) -> str:
    """A gain over the reference, with its interval where there is one."""
    if found["low"] is None:
        return f"{found['mean']:+.1%}"
    return f"{found['mean']:+.1%} [{found['low']:+.1%}, {found['high']:+.1%}]"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _interval(found: Interval) -> Summary:
    return {name: known(value) for name, value in found._asdict().items()}


def _mean(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return statistics.fmean(told) if told else None


def _curve(curves: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.fmean(points) for points in zip(*curves, strict=True)]


def _ages(each: Sequence[Sequence[Summary]]) -> list[Summary]:
    """Sums over the seeds, and the quotients: CTR and PCOC by impressions."""
    total: dict[int, list[float]] = {}
    for one in (age for ages in each for age in ages):
        sums = total.setdefault(one["impressions"], [0, 0, 0.0])
        for place, name in enumerate(("shown", "clicks", "predicted")):
            sums[place] += one[name]
    return [
        {
            "impressions": impressions,
            "shown": shown,
            "ctr": clicks / shown,
            "pcoc": predicted / clicks if clicks else None,
        }
        for impressions, (shown, clicks, predicted) in sorted(total.items())
    ]
