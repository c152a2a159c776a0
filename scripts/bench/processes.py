"""Processes and the cores they run on."""

import os

import typer


def pin(core: int | None) -> None:
    """Keeps the calling thread, and all that it starts, on one core; None leaves it where it is.

    Raises typer.BadParameter where the core is not ours.
    """
    ours = os.sched_getaffinity(0)
    if core is not None:
        if core not in ours:
            raise typer.BadParameter(f"core {core} is not one of ours, which are {sorted(ours)}", param_hint="--core")
        os.sched_setaffinity(0, {core})
