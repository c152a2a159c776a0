"""A lane in a folder of a file system.

ROOT/<folder>/            renamed to its place when all in it is on disk
ROOT/<document>           replaced by a rename
ROOT/incoming/            a folder being written; left behind by a crash, cleared by the next install
ROOT/trainer.lock         held by the one process that installs
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from service import durable
from service.checkpoints.store import PIECE, passes
from service.errors import CheckpointError


class LocalStore:
    """See `Store`. All who share it must see one file system with flock and atomic renames."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def folders(self, parent: str) -> list[str]:
        try:
            return [one.name for one in os.scandir(self.root / parent) if one.is_dir()]
        except FileNotFoundError:
            return []

    def read(self, folder: str, name: str, sha256: str = "") -> bytes:
        path = self._inside(folder, name)
        with _as_missing(path):
            return path.read_bytes()

    def pieces(self, folder: str, name: str, sha256: str = "") -> Iterator[bytes]:
        path = self._inside(folder, name)
        with _as_missing(path), path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece

    def check(self, folder: str, files: Mapping[str, str]) -> None:
        for name in sorted(files):
            self._inside(folder, name)

    def install(self, folder: str, files: Mapping[str, bytes]) -> None:
        place, incoming = self.root / folder, self.root / "incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        draft = incoming / place.name
        draft.mkdir(parents=True)
        for name, content in files.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            durable.write(draft / name, content)
        for inner in {(draft / name).parent for name in files} - {draft}:
            durable.sync(inner)
        durable.sync(draft)
        durable.install(draft, place)
        shutil.rmtree(incoming)

    def discard(self, folder: str) -> None:
        durable.discard(self.root / folder, aside=self.root / "incoming")

    def stamp(self, name: str) -> str | None:
        try:
            found = (self.root / name).stat()
        except FileNotFoundError:
            return None
        return f"{found.st_ino}-{found.st_mtime_ns}"

    def get(self, name: str) -> tuple[bytes, str] | None:
        try:
            with (self.root / name).open("rb") as file:
                found = os.fstat(file.fileno())
                return file.read(), f"{found.st_ino}-{found.st_mtime_ns}"
        except FileNotFoundError:
            return None

    def put(self, name: str, content: bytes, *, stamp: str | None) -> bool:
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # of the folder itself: it ends with the descriptor
            if self.stamp(name) != stamp:
                return False
            durable.overwrite(self.root / name, content)
            return True
        finally:
            os.close(descriptor)

    def recover(self) -> None:
        for parent in self.folders("."):
            durable.recover(self.root / parent)

    @contextmanager
    def lock(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "trainer.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                detail = f"another trainer writes {self.root}: a lane has one trainer"
                raise CheckpointError("locked", detail) from None
            yield

    def _inside(self, folder: str, name: str) -> Path:
        """Path of an existing regular file; a link that leads out of its folder is refused."""
        place = self.root.resolve() / folder
        path = Path(os.path.realpath(place / name))
        if not path.is_relative_to(place):
            raise CheckpointError("outside_folder", f"{place / name} leads to {path}")
        if not os.path.isfile(path):
            raise CheckpointError("missing_file", f"{path} does not exist")
        return path


@contextmanager
def _as_missing(path: Path) -> Iterator[None]:
    """Of a file that was pruned since, or is not for us to read."""
    try:
        yield
    except OSError as error:
        if passes(error):
            raise
        raise CheckpointError("missing_file", f"{path}: {error}") from None
