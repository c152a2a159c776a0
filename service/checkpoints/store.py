"""Where a lane's files are kept: what every place must offer so that a version on it is whole or not there."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

#: The file of a folder that is written last. Where it is, all others are.
LAST = "manifest.json"
#: Bytes of a file that are held at a time by who does not need all of it.
PIECE = 4 << 20
#: The folders of a lane, and what is below them, are its own.
VERSIONS, DELTAS, REFUSED = "versions", "deltas", "refused"


class StoreError(OSError):
    """The place cannot be reached, or does not take what is written. It may, later."""


#: Of this machine or its network, and soon over: too many open files, no memory, a file server that hiccups.
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT}


def passes(error: OSError) -> bool:
    """Whether the same may work in a moment: then it says nothing about a file."""
    return isinstance(error, StoreError) or error.errno in _PASSING


class Store(Protocol):
    """A lane's place. Folders are immutable once they are there; documents beside them are replaced whole.

    Paths are relative, with slashes. All methods raise StoreError, a folder's any OSError.
    """

    def folders(self, parent: str) -> list[str]:
        """Names of the folders in `parent`, in no order."""

    def read(self, folder: str, name: str, sha256: str = "") -> bytes:
        """One file. Raises CheckpointError: missing_file, outside_folder.

        Args:
            sha256: what its manifest says, by which a place may know it; LAST itself has none.
        """

    def pieces(self, folder: str, name: str, sha256: str = "") -> Iterator[bytes]:
        """The same, PIECE by PIECE."""

    def check(self, folder: str, files: Mapping[str, str]) -> None:
        """Whether these files, name -> sha256, are there. Raises CheckpointError like `read`."""

    def install(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Makes a folder of these files, LAST the last of them: whole and lasting when this returns. Replaces.

        Raises CheckpointError: locked, by a writer that has taken the lane from us meanwhile.
        """

    def discard(self, folder: str) -> None:
        """Deletes a folder, of which no half is ever seen."""

    def stamp(self, name: str) -> str | None:
        """Changes whenever a document is written; None where there is none. Cheap: it is polled."""

    def get(self, name: str) -> tuple[bytes, str] | None:
        """A document and its stamp, None where there is none."""

    def put(self, name: str, content: bytes, *, stamp: str | None) -> bool:
        """Writes a document if its stamp is still this one. False: somebody else was faster, and nothing is written."""

    def recover(self) -> None:
        """Puts in order what a death in `install` left. To be called by a writer, before its first `install`."""

    def lock(self) -> AbstractContextManager[None]:
        """The right to install, which one process has at a time. Raises CheckpointError: locked."""
