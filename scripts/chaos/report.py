"""What every chaos command prints: a bar on stderr while it runs, then what it found, as a table or JSON."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from scripts.bench.report import BenchError
from scripts.outputs import for_tables

Found = dict[str, Any]
Advance = Callable[[str], None]  # is told what was done
AsJson = Annotated[bool, typer.Option("--json", help="Only one JSON object on stdout; the rest goes to stderr.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")]


class ChaosError(BenchError):
    """The run cannot go on: what it was to prove is neither proved nor refuted."""


@contextmanager
def bar(what: str, total: int) -> Iterator[Advance]:
    """Steps of a long run for whoever watches: a bar, or a line each where there is no terminal."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        done = iter(range(1, sys.maxsize))
        yield lambda one: console.print(f"{next(done)}/{total} {what}: {one}", soft_wrap=True, markup=False)
        return
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as shown:
        task = shown.add_task("", total=total)
        yield lambda one: shown.update(task, advance=1, description=one)


def show(found: Found, titles: Mapping[str, str], *, title: str, as_json: bool) -> None:
    """Prints what was found, a line for each key of `titles`."""
    if as_json:
        print(json.dumps(found))
        return
    table = Table(title=title, title_justify="left", show_header=False)
    for key, name in titles.items():
        table.add_row(name, _text(found[key]))
    for_tables().print(table)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
