"""agerank report: the papers' tables, with our own figures beside theirs."""

import json
import os
import shlex
import sys
from collections.abc import Sequence, Set
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table as RichTable

from models.evaluation.loop import POINTS
from models.evaluation.worlds.world import TUNING_SEEDS, check_seeds
from models.registry import build
from models.spec import FeatureSpec
from scripts.outputs import WIDTH, to_write
from scripts.plots import Panel, svg
from scripts.report_rows import Row, Table
from scripts.report_summary import Summary, cells, markdown, summary
from scripts.report_tables import TABLES
from scripts.runs import Record, Results, revision, run_all
from scripts.worlds import Learning, Life, Scale, check, identity, open_world, scale_of

Which = StrEnum("Which", {name.upper(): name for name in TABLES})  # type: ignore[misc]


def report(
    which: Annotated[Which, typer.Argument(help="The table.")],
    world: Annotated[
        str | None,
        typer.Option(help="r6b, r6b_still, glm, ads_a, ads_b, or a file of `agerank world`. Default: the table's own."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Worlds to live in; the paired interval needs 2 or more.")] = 5,
    first_seed: Annotated[
        int, typer.Option(help="100 or above: worlds that nothing was tuned on.")
    ] = TUNING_SEEDS.stop,
    only: Annotated[
        list[str],
        typer.Option(help="Label of a row, or several with commas between. Repeatable; the reference is always there."),
    ] = [],  # noqa: B006
    visits: Annotated[int | None, typer.Option(min=1, help="Of each life. Default: the world's own scale.")] = None,
    protocol: Annotated[
        Learning, typer.Option(help="stream: each example is learned once. window: learned anew, as in the papers.")
    ] = Learning.STREAM,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one a CPU.")] = None,
    runs: Annotated[
        Path,
        typer.Option(callback=to_write, help="JSON lines, one a finished run; runs that are in it are not repeated."),
    ] = Path("agerank-runs.jsonl"),
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, curves included.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as docs have it.")] = False,
    plot: Annotated[
        Path | None, typer.Option(callback=to_write, help="Write regret and CTR curves to this SVG file.")
    ] = None,
) -> None:
    """Print a table of the papers with our own columns beside it.

    Every strategy lives alone in simulated worlds whose click probabilities are known, and learns from the clicks on
    what it shows: from a stream, as the service does, or anew from a window after every partition, as the papers did on
    R6B. All meet the same visits with the same luck, so they are compared seed by seed: the interval is that of the
    quotient of their means, at 95 %.

    An interrupted report goes on where it was: finished runs are in the file of --runs.

        agerank report table1 --world r6b --seeds 5
    """
    table = TABLES[which.value]
    chosen = world or table.world
    span = range(first_seed, first_seed + seeds)
    asked = _asked(only, table.rows)
    try:
        check_seeds(span, tuning=False)
        scale = scale_of(chosen, protocol)
        scale = scale._replace(visits=visits or scale.visits)
        spec, results = open_world(chosen, first_seed).spec, Results(runs)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    rows = _rows(table, asked, spec)
    lives = [Life(chosen, build(row.options["method"], row.options), seed, scale) for row, seed in product(rows, span)]
    quiet = as_json or as_markdown
    records = run_all(lives, title=which.value, processes=jobs or os.cpu_count() or 1, quiet=quiet, results=results)
    by_row = [records[first : first + seeds] for first in range(0, len(records), seeds)]
    entries = summary(table, rows, by_row)
    if plot:
        plot.write_text(svg([_frontier(entries)] if table.frontier else _panels(entries, scale.visits)))
    if as_json:
        print(json.dumps(_document(which.value, chosen, span, by_row, entries), indent=1, allow_nan=False))
    elif as_markdown:
        print(markdown(*cells(table, entries)))
    else:
        where = f"world {chosen}, {scale.visits} visits, {protocol} protocol"
        title = f"{table.title}: {where}, seeds {span.start} to {span.stop - 1}"
        console = Console()
        # A file or a pipe is as wide as the table needs.
        width = console.width if console.is_terminal else WIDTH
        Console(width=width).print(_rich(title, *cells(table, entries)))


def _asked(only: Sequence[str], rows: Sequence[Row]) -> set[str]:
    """Labels: a text that is none of them is several, with commas between."""
    known = {row.label for row in rows}
    asked = {label.strip() for text in only for label in ([text] if text in known else text.split(","))} - {""}
    if unknown := asked - known:
        there = ", ".join(row.label for row in rows)
        raise typer.BadParameter(f"no row {', '.join(sorted(unknown))}; there are {there}", param_hint="--only")
    return asked


def _rows(table: Table, asked: Set[str], spec: FeatureSpec) -> list[Row]:
    """Those asked for and the reference; all, where none is asked for, but what cannot live on these features."""
    wanted = [row for row in table.rows if not asked or row.label in {*asked, table.reference}]
    misfits = {row.label: why for row in wanted if (why := _misfit(row, spec))}
    told = [f"{label}: {why}" for label, why in misfits.items()]
    if misfits.keys() & {*asked, table.reference}:
        raise typer.BadParameter("; ".join(told))
    for line in told:
        typer.echo(f"left out {line}", err=True)
    return [row for row in wanted if row.label not in misfits]


def _misfit(row: Row, spec: FeatureSpec) -> str | None:
    """Why a strategy cannot live on these features, if so."""
    try:
        check(build(row.options["method"], row.options), spec)
    except ValueError as error:
        return str(error)
    return None


def _document(
    which: str, world: str, seeds: range, records: Sequence[Sequence[Record]], entries: Sequence[Summary]
) -> dict[str, Any]:
    """All that is needed to believe the figures, and to get them again."""
    life = records[0][0].settings
    return {
        "report": which,
        "command": shlex.join(["agerank", *sys.argv[1:]]),
        "version": revision(),
        **identity(world),
        "seeds": list(seeds),
        **{name: life[name] for name in Scale._fields},
        "rows": list(entries),
    }


def _panels(entries: Sequence[Summary], visits: int) -> list[Panel]:
    step = visits / POINTS
    panels = []
    for name, title in (("regret", "regret in clicks"), ("ctr", "CTR")):
        lines = {one["label"]: [(step * place, y) for place, y in enumerate(one[name], 1)] for one in entries}
        panels.append(Panel(title, "visits", lines))
    ages = {
        one["label"]: [(max(age["impressions"], 0.5), age["ctr"]) for age in one["ages"] if age["shown"] >= 100]
        for one in entries
    }
    by_age = {label: points for label, points in ages.items() if points}
    return [*panels, Panel("CTR by impressions of the item", "impressions before", by_age, log_x=True)]


def _frontier(entries: Sequence[Summary]) -> Panel:
    """Gain against the share that was really changed, a line a method."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for one in entries:
        method, _, budget = one["label"].partition(" at ")
        if budget:
            lines.setdefault(method, []).append((one["changed"], one["against_reference"]["mean"]))
    ordered = {method: sorted(points) for method, points in lines.items()}
    return Panel("gain in clicks over greedy", "share of changed slots", ordered)


def _rich(title: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> RichTable:
    table = RichTable(title=title)
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left")
    for line in body:
        table.add_row(*line)
    return table
