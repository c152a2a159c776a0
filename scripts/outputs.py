"""Files that a command writes when its work is done: refused before it begins where that could not be."""

import os
from pathlib import Path

import typer


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
