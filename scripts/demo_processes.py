"""Processes that belong to the demo: each with its log, none outliving it."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

GRACE_S = 10.0  # from SIGTERM to SIGKILL


class DemoError(Exception):
    """The demo cannot go on. The text is for whoever watches."""


class Child:
    """`agerank <command>` as a process group of its own, so that Ctrl-C is the demo's alone to handle."""

    def __init__(self, command: str, *, log: Path) -> None:
        self.command = command
        self.log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, environment: Mapping[str, str]) -> Self:
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "scripts.cli", self.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        return self

    def check(self) -> None:
        """Raises DemoError, with the end of its log, where the process has ended."""
        if self._process is not None and self._process.returncode is not None:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
            story = "\n".join(f"    {line}" for line in lines) or "    (it wrote nothing)"
            raise DemoError(f"agerank {self.command} ended with {self._process.returncode}:\n{story}")

    async def stop(self) -> None:
        if self._process is None:
            return
        for one in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, one)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), GRACE_S)
                return


def environment(folder: Path, config: Path) -> dict[str, str]:
    """Ours, but with the settings in the file alone, and with nothing written outside the folder."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGERANK_")}
    return kept | {
        "AGERANK_CONFIG": str(config),
        "TMPDIR": str(temporary),  # torch leaves caches there
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }


def free_port(preferred: int) -> int:
    """The preferred one, or any where that is taken."""
    for port in (preferred, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise DemoError("no port is free on 127.0.0.1")
