"""What a command says and writes: tables, and files that are refused before it begins where they could not be."""

import os
import sys
from pathlib import Path

import typer
from rich.console import Console

WIDTH = 160  # characters, where no terminal says


def for_tables() -> Console:
    """As wide as the terminal, or as most tables need."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def to_write(path: Path | None) -> Path | None:
    """A callback of options. None passes.

    Raises:
        BadParameter: nothing can be written there.
    """
    if path is None:
        return None
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise typer.BadParameter(f"{path} cannot be written")
    return path
