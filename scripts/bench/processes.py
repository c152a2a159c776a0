"""Servers in processes of their own, and the cores that everything runs on."""

import http.client
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import typer

from scripts.bench.report import BenchError

READY_TIMEOUT_S = 60.0
GRACE_S = 10.0  # from SIGTERM to SIGKILL
POLL_S = 0.01


class Cores(NamedTuple):
    """The server's core, and the others, for the client and the log's server. The same one where there is only one."""

    server: int
    others: frozenset[int]


def cores(server: int | None) -> Cores:
    """The server on the last of our cores, or on the one given. Raises typer.BadParameter where that is not ours."""
    ours = os.sched_getaffinity(0)
    chosen = max(ours) if server is None else server
    if chosen not in ours:
        raise typer.BadParameter(f"core {chosen} is not one of ours, which are {sorted(ours)}", param_hint="--core")
    return Cores(chosen, frozenset(ours - {chosen} or ours))


def pin(core: int | None) -> None:
    """Keeps the calling thread, and all that it starts, on one core; None leaves it where it is. Raises as `cores`."""
    if core is not None:
        os.sched_setaffinity(0, {cores(core).server})


@contextmanager
def pinned(chosen: Sequence[int] | frozenset[int]) -> Iterator[None]:
    """The calling thread, and all processes that it starts meanwhile, run on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Server:
    """An HTTP server on 127.0.0.1: a group of processes with a log, on one core. A context manager that ends it.

    Args:
        name: for messages.
        command: and its arguments.
        port: that it is told to listen on.
        ready: path that is answered 200 as soon as it works.
        core: its own.
        log: file for what it prints.
        environment: all of it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        port: int,
        ready: str,
        core: int,
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.name, self.port = name, port
        self._ready, self._log = ready, log
        with pinned([core]), log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )

    def wait(self) -> Self:
        """Until it is ready. Raises BenchError with the end of its log where it ends before, or takes too long."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise BenchError(f"{self.name} ended with {self._process.returncode}:\n{self._story()}")
            if read(self.port, self._ready)[0] == 200:
                return self
            time.sleep(POLL_S)
        raise BenchError(f"{self.name} was not ready after {READY_TIMEOUT_S:g} s:\n{self._story()}")

    @contextmanager
    def alone(self, others: Sequence["Server"]) -> Iterator[None]:
        """The others of the same core stand still meanwhile."""
        paused = [one for one in others if one is not self]
        for one in paused:
            one._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for one in paused:
                one._signal(signal.SIGCONT)

    def resident(self) -> int:
        """Bytes of memory that the process itself holds."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise BenchError(f"{self.name} has ended")

    def stop(self) -> None:
        for one in (signal.SIGTERM, signal.SIGKILL):
            self._signal(one)
            self._signal(signal.SIGCONT)  # one that stands still hears nothing
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
                self._signal(signal.SIGKILL)  # what it has left behind
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _story(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        return "\n".join(f"    {line}" for line in lines) or "    (it wrote nothing)"


def read(port: int, path: str) -> tuple[int | None, bytes]:
    """Status and body of a GET, None where nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()
