"""What every benchmark prints: the machine, a table or JSON, and on stderr what it is at."""

import json
import os
import platform
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from scripts.bench.measure import Tell
from scripts.demo_processes import DemoError
from scripts.outputs import for_tables
from service.errors import ServiceError
from service.scoring.engines import Kind
from service.settings import Settings

Row = dict[str, Any]
Runs = Annotated[int, typer.Option(min=1, help="Each figure is the median of so many.")]
Candidates = Annotated[str, typer.Option(help="Of a request; several numbers are separated by commas.")]
Core = Annotated[int | None, typer.Option(min=0, help="Run on this core alone, as `taskset -c` would.")]
EngineKind = Annotated[Kind, typer.Option(help="As the setting of that name.")]
ENGINE: Kind = Settings.model_fields["engine"].default
AsJson = Annotated[bool, typer.Option("--json", help="Only a JSON list of rows on stdout; the rest goes to stderr.")]


class BenchError(Exception):
    """The benchmark cannot go on. The text is for whoever runs it."""


class Column(NamedTuple):
    """Where a key of the rows stands in the table."""

    key: str
    title: str
    form: str = ""  # as of format(); of a number


def show(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, title: str, as_json: bool) -> None:
    """Prints the rows: as a table, with "-" for None, or with `as_json` as they are."""
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column.title, justify="right" if column.form else "left")
    for row in rows:
        table.add_row(*(_cell(row[column.key], column.form) for column in columns))
    for_tables().print(table)


def whole_numbers(text: str) -> list[int]:
    """Of an option. Raises typer.BadParameter where it is no list of positive whole numbers."""
    try:
        numbers = [int(one) for one in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(f"{text!r} is no list of positive whole numbers, such as 100,450")
    return numbers


@contextmanager
def progress(*, as_json: bool, versions: Sequence[str] = ("numpy", "onnxruntime")) -> Iterator[Tell]:
    """Prints the machine's line, then yields what to tell the progress to: one line of a terminal, or a line each.

    Args:
        as_json: keeps stdout free for the rows.
        versions: distributions to name, those that are installed.
    """
    Console(stderr=as_json, highlight=False).print(machine(versions), soft_wrap=True, markup=False)
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda what: console.print(what, soft_wrap=True, markup=False)
        return
    with console.status("") as status:
        yield status.update


@contextmanager
def failing() -> Iterator[None]:
    """What cannot go on says why and exits with 1. Like Ctrl-C, SIGTERM and a lost terminal leave nothing behind."""

    def end(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    ends = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) != signal.SIG_IGN]  # nohup ignores
    before = {one: signal.signal(one, end) for one in ends}
    try:
        yield
    except (BenchError, DemoError, ServiceError, OSError) as error:
        typer.echo(f"the benchmark cannot go on: {error}", err=True)
        raise typer.Exit(1) from None
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def machine(versions: Sequence[str]) -> str:
    """The CPU's model, its cores, and versions of what is measured."""
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    found = [f"Python {platform.python_version()}"]
    for name in ("agerank", *versions):
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return f"{model}, {os.cpu_count()} cores | {', '.join(found)}"


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)
