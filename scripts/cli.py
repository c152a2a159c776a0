"""agerank: one program, one file a command. A command's module is imported only when that command is called.

So `agerank serve` starts without torch and `agerank train` without a web framework, and each names the extra it lacks.
"""

from importlib import import_module, metadata
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup


class Entry(NamedTuple):
    """A command as `agerank --help` lists it. The whole story is in the command's own help."""

    summary: str
    extras: str  # that it needs


#: As they are typed: "bench engine" is the function `engine` of `scripts.bench.engine`.
COMMANDS = {
    "serve": Entry("Run the scorer: ranks candidates over HTTP and takes feedback.", "serve"),
    "train": Entry("Run the trainer: learns from the clicks and publishes versions.", "train"),
    "demo": Entry("Watch the whole loop on this machine: simulated users, live figures.", "serve,train,demo"),
    "replay": Entry("Judge strategies on a log of uniformly random traffic.", "train"),
    "report": Entry("The papers' tables, with our own figures beside theirs.", "train"),
    "world": Entry("A semi-real world from a real log, for reports and tuning.", "train"),
    "ope": Entry("What another policy would have earned, from our own log.", "train,demo"),
    "rerun": Entry("Compute a logged decision again, to the bit.", "serve,train,demo"),
    "tune": Entry("Options of a method that pay in simulated worlds, found and recorded.", "train,tune"),
    "ingest": Entry("Warm start: learn from a historical log before the first request.", "train,demo"),
    "models list": Entry("All versions: which one serves, and what became of the others.", "objects"),
    "models show": Entry("All about one version, verified.", "objects"),
    "models activate": Entry("Make a version the one that serves.", "objects"),
    "models rollback": Entry("Go back to the version before, and stay there.", "objects"),
    "models pin": Entry("Stay with a version, whatever the trainer publishes.", "objects"),
    "models unpin": Entry("Let the trainer's versions serve again.", "objects"),
    "chaos trainer": Entry("Kill the trainer over and over, and compare every bit.", "train,demo"),
    "chaos redis": Entry("Kill and pause Redis under load, and count every event.", "serve,train,demo"),
    "chaos swaps": Entry("Change versions under load, and compute every answer again.", "serve,train,demo"),
    "bench engine": Entry("What exploration costs in the engine, and what it would cost naively.", "serve,train"),
    "bench http": Entry("Our server, exploring, against others that do not explore.", "serve,train,demo,bench"),
    "bench join": Entry("What a million impressions that wait for clicks add to a checkpoint.", "serve,train,demo"),
    "bench memory": Entry("Start to ready, and resident memory without and with a million items.", "serve,train,demo"),
    "bench swap": Entry(
        "Latency while the version changes every second, and every answer held to its version.", "serve,train,demo"
    ),
    "bench train": Entry("The trainer, from log to step, against a bare loop.", "serve,train,demo"),
    "bench freshness": Entry(
        "From a click to an answer that knows it, and what versions of a million items cost.", "serve,train,demo"
    ),
    "bench gpu": Entry("What exploration costs on a GPU, and what it would cost naively.", "serve,train"),
}


class Group(NamedTuple):
    """Commands under one name, a package of `scripts`, as `agerank --help` lists it, and its own help."""

    summary: str
    help: str


GROUPS = {
    "models": Group(
        "The versions of a lane: look, choose, go back.",
        """The versions of a lane: look, choose one, go back, hold on. Works with trainer, scorer and Redis down, too.

        What an operator chooses is pinned: the trainer learns and writes versions on, and they wait until `agerank
        models unpin`. Each command exits with 1 where it cannot be done, and says why.

        At 3 a.m.: `agerank models rollback`. In the morning: `agerank models list`.
        """,
    ),
    "chaos": Group(
        "Break it on purpose, and prove that nothing was lost.",
        """Break it on purpose, and prove that nothing was lost: real processes, servers and files, killed for real.

        Each command needs nothing beside it, says what it proves, and exits with 1 where that does not hold.

        To begin: `agerank chaos trainer --kills 10 --events 10000`. It takes half a minute.
        """,
    ),
    "bench": Group(
        "Measure speed, against other servers and other ways.",
        """Measure speed, against rivals in the same run: a figure is a median of several runs, or of their ratios.

        The work is the same for all: a network of 25 fields of width 8 and hidden layers of 256, 128 and 64 units, 450
        candidates or as many as are asked for. docs/benchmarks.md explains each figure and how to keep a machine quiet.

        To begin: `agerank bench engine`. It takes a minute.
        """,
    ),
}


class LazyGroup(TyperGroup):
    """Lists the commands without importing them, and imports the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, listed, rest = super().resolve_command(ctx, args)
        full = f"{self.name} {name}" if self.name in GROUPS else str(name)
        return name, load(full) if full in COMMANDS else listed, rest


def load(name: str) -> Any:
    """The command of that name in COMMANDS, with all its options. Exits with 2 where an extra is not installed."""
    path = name.split()
    try:
        module = import_module(".".join(["scripts", *path]))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("models", "service", "scripts"):
            raise
        typer.echo(f"agerank {name} needs {missing}: pip install 'agerank[{COMMANDS[name].extras}]'", err=True)
        raise typer.Exit(2) from None
    single = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    single.command(path[-1])(getattr(module, path[-1]))
    return typer.main.get_command(single)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"agerank {metadata.version('agerank')}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

_groups = {"": app}
for _name, _group in GROUPS.items():
    _groups[_name] = typer.Typer(cls=LazyGroup, no_args_is_help=True, rich_markup_mode="markdown")
    app.add_typer(_groups[_name], name=_name, short_help=_group.summary, help=_group.help)

for _name, _entry in COMMANDS.items():
    _within, _, _last = _name.rpartition(" ")
    _groups[_within].command(_last, help=_entry.summary)(lambda: None)  # listed only: LazyGroup puts the real one there


@app.callback()
def agerank(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Rank candidates, explore inside the click model, learn from the clicks.

    To see it work: `agerank demo`. It needs nothing beside it and takes a minute.

    In earnest it is two processes with one folder and one Redis between them: `agerank train` publishes versions of
    the model, `agerank serve` ranks with the newest. Both read agerank.toml (or the file that AGERANK_CONFIG names),
    which AGERANK_ variables overrule: `AGERANK_PORT=8080 agerank serve`.
    """


if __name__ == "__main__":
    app()
