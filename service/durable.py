"""Files and folders that are there whole, or not at all, also when the process or the machine dies in between."""

import os
import shutil
from pathlib import Path

#: A folder that another is about to take the place of.
_REPLACED = ".replaced"
#: Bytes that go to the disk at a time: Redis may wait for the same disk, and must not wait for a whole checkpoint.
_PIECE = 16 << 20


def write(path: Path, content: bytes) -> None:
    """Writes a file through to the disk; its name is durable after `sync` of its folder."""
    with path.open("wb") as file:
        for start in range(0, len(content) or 1, _PIECE):
            file.write(memoryview(content)[start : start + _PIECE])
            file.flush()
            os.fsync(file.fileno())


def overwrite(path: Path, content: bytes) -> None:
    """Replaces a file, or makes it: a reader sees the old content or the new."""
    draft = path.with_name(path.name + ".draft")
    write(draft, content)
    draft.replace(path)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def install(folder: Path, place: Path) -> None:
    """Moves a finished folder to its place. What stood there is deleted, but only when the new one stands."""
    place.parent.mkdir(exist_ok=True)
    replaced = place.with_name(place.name + _REPLACED)
    if place.exists():
        place.rename(replaced)
    folder.rename(place)
    sync(place.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def recover(parent: Path) -> None:
    """Ends what a death in `install` left: what was to be replaced stands again, unless the new one does."""
    for replaced in parent.glob("*" + _REPLACED):
        place = replaced.with_name(replaced.name.removesuffix(_REPLACED))
        if place.exists():
            shutil.rmtree(replaced)
        else:
            replaced.rename(place)


def discard(folder: Path, aside: Path) -> None:
    """Deletes a folder. It leaves its name first, so that no half of it is ever seen there."""
    aside.mkdir(exist_ok=True)
    folder.rename(aside / folder.name)
    shutil.rmtree(aside)
