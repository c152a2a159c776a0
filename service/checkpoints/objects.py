"""A lane in object storage, where nothing is renamed: a folder is there once the last of its files is.

PREFIX/<folder>/<file>.<hash>   so two who write one version do not touch each other's files
PREFIX/<folder>/manifest.json   comes last, on condition that nobody wrote it meanwhile; a folder without it does not
                                count, and is swept up
PREFIX/<document>               replaced by one put, on condition that nobody replaced it since it was read
PREFIX/trainer.lock             names who installs: whoever wrote it last. The one before finds that out when it next
                                installs, and ends. So nobody waits for the lease of a trainer that died
"""

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import PurePosixPath

import msgspec
import obstore
import structlog
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import ObjectStore as Bucket
from obstore.store import from_url

from service.checkpoints.store import DELTAS, LAST, PIECE, REFUSED, VERSIONS, StoreError
from service.errors import CheckpointError

_LOCK = "trainer.lock"

#: Whoever asks tries again later: a trainer learns meanwhile, a scorer ranks.
_PATIENCE = timedelta(seconds=10)

_log = structlog.get_logger()


def open_url(url: str) -> "ObjectStore":
    """The store behind s3://, gs:// or az://; keys, region and endpoint come from the provider's usual variables.

    Raises StoreError: they do not do.
    """
    with _as_store_error():
        return ObjectStore(from_url(url, retry_config={"max_retries": 2, "retry_timeout": _PATIENCE}), name=url)


class ObjectStore:
    """See `Store`. A folder that is replaced keeps its former files, for who has read its former manifest, until it is
    discarded.

    Args:
        bucket: of obstore, with the lane's prefix.
        name: for messages.
    """

    def __init__(self, bucket: Bucket, *, name: str) -> None:
        self._bucket, self._name = bucket, name
        self._ticket: bytes | None = None  # what the lock holds as long as it is ours

    def __str__(self) -> str:
        return self._name

    def folders(self, parent: str) -> list[str]:
        return [path.parent.name for path in map(PurePosixPath, self._paths(parent)) if path.name == LAST]

    def read(self, folder: str, name: str, sha256: str = "") -> bytes:
        for path in self._places(folder, name, sha256):
            if found := self.get(path):
                return found[0]
        raise self._missing(folder, name)

    def pieces(self, folder: str, name: str, sha256: str = "") -> Iterator[bytes]:
        for path in self._places(folder, name, sha256):
            try:
                with _as_store_error():
                    file = obstore.open_reader(self._bucket, path, buffer_size=PIECE)
                    while piece := bytes(file.read(PIECE)):
                        yield piece
                    return
            except FileNotFoundError:
                continue
        raise self._missing(folder, name)

    def check(self, folder: str, files: Mapping[str, str]) -> None:
        there = set(self._paths(folder))
        for name, sha256 in sorted(files.items()):
            if there.isdisjoint(self._places(folder, name, sha256)):
                raise self._missing(folder, name)

    def install(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Who loses the lane in here spoils nothing: the lock says so, or the manifest is not what it was.

        The lock is asked once more when all is written: who has it now may have swept up what was not finished yet.
        """
        last = self._inside(folder, LAST)
        before = self.stamp(last)
        self._check_lock()
        for name, content in files.items():
            if name == LAST:
                self._finish(last, content, before)
            else:
                named = _named(name, hashlib.sha256(content).hexdigest())
                with _as_store_error():
                    obstore.put(self._bucket, self._inside(folder, named), content)
            self._check_lock()

    def discard(self, folder: str) -> None:
        self._delete(self._paths(folder))

    def stamp(self, name: str) -> str | None:
        try:
            with _as_store_error():
                return _stamp(obstore.head(self._bucket, name))
        except FileNotFoundError:
            return None

    def get(self, name: str) -> tuple[bytes, str] | None:
        try:
            with _as_store_error():
                found = obstore.get(self._bucket, name)
                return bytes(found.bytes()), _stamp(found.meta)
        except FileNotFoundError:
            return None

    def put(self, name: str, content: bytes, *, stamp: str | None) -> bool:
        try:
            with _as_store_error():
                obstore.put(self._bucket, name, content, mode="create" if stamp is None else msgspec.json.decode(stamp))
        except (AlreadyExistsError, PreconditionError):
            return False
        except NotImplementedError:
            return self._put_unguarded(name, content, stamp)
        return True

    def recover(self) -> None:
        paths = [path for parent in (VERSIONS, DELTAS, REFUSED) for path in self._paths(parent)]
        whole = {PurePosixPath(path).parent for path in paths if PurePosixPath(path).name == LAST}
        self._delete([path for path in paths if whole.isdisjoint(PurePosixPath(path).parents)])

    @contextmanager
    def lock(self) -> Iterator[None]:
        self._ticket = secrets.token_hex(16).encode()
        with _as_store_error():
            obstore.put(self._bucket, _LOCK, self._ticket)
        yield
        self._ticket = None

    def _check_lock(self) -> None:
        """Only who has the lock may lose it: versions are also written by hand, and by tests."""
        found = self.get(_LOCK)
        if self._ticket is not None and (found is None or found[0] != self._ticket):
            raise self._lost()

    def _lost(self) -> CheckpointError:
        detail = f"another trainer has begun to write {self._name}: a lane has one trainer, the newest"
        return CheckpointError("locked", detail)

    def _missing(self, folder: str, name: str) -> CheckpointError:
        return CheckpointError("missing_file", f"{self._name}/{folder}/{name} does not exist")

    def _finish(self, last: str, content: bytes, before: str | None) -> None:
        if self.put(last, content, stamp=before):
            return
        found = self.get(last)
        if found is None or found[0] != content:  # else it met itself: its answer was lost, and it was made again
            raise self._lost()

    def _put_unguarded(self, name: str, content: bytes, stamp: str | None) -> bool:
        _log.warning("this store has no conditional put: two who write at the same moment do not see each other")
        if self.stamp(name) != stamp:
            return False
        with _as_store_error():
            obstore.put(self._bucket, name, content)
        return True

    def _paths(self, folder: str) -> list[str]:
        with _as_store_error():
            return [one["path"] for one in obstore.list(self._bucket, folder or None).collect()]

    def _delete(self, paths: list[str]) -> None:
        """The last first: what has lost it does not count."""
        for path in sorted(paths, key=lambda path: not path.endswith(f"/{LAST}")):
            with _as_store_error():
                obstore.delete(self._bucket, path)

    def _places(self, folder: str, name: str, sha256: str) -> list[str]:
        """Where a file may lie, the likeliest first: versions were once written without hashes in their names."""
        names = [_named(name, sha256), name] if sha256 else [name]
        return [self._inside(folder, one) for one in names]

    def _inside(self, folder: str, name: str) -> str:
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise CheckpointError("outside_folder", f"{folder}/{name} leads out of it")
        return f"{folder}/{name}"


def _named(name: str, sha256: str) -> str:
    return f"{name}.{sha256[:16]}"


def _stamp(meta: Mapping[str, object]) -> str:
    """What a conditional put asks for."""
    return msgspec.json.encode({key: meta[key] for key in ("e_tag", "version") if meta.get(key)}).decode()


@contextmanager
def _as_store_error() -> Iterator[None]:
    """What obstore raises by kinds of its own."""
    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except BaseError as error:
        raise StoreError(str(error).partition("\n")[0]) from None
