"""Trainers that can be killed, and what each was at when it died.

A trainer here is a fork of a process that has imported torch, so that a start costs what the trainer does and not three
seconds of import. It runs the `main` of `python -m service.training`: its lock, its files and its connections are its
own, and SIGKILL ends it as it ends any process, with no code of ours run.
"""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import redis
from prometheus_client.parser import text_string_to_metric_families

from scripts.chaos.report import ChaosError
from scripts.demo_processes import free_port
from service import checkpoints
from service.checkpoints import LocalStore
from service.events import decode_announcement
from service.streams import FIELD, START, StreamNames

Metrics = dict[tuple[str, ...], float]  # (name, values of its labels) -> value

PATIENCE_S = 60.0  # in which a trainer reads something, or ends when it is told to
POLL_S = 0.0005
SURVIVED_S = 0.2  # by which ranks outlive the one that is killed, at most

_forks = multiprocessing.get_context("forkserver")
#: torch imports _dynamo, and we onnx, when they are first needed: two thirds of a start.
_forks.set_forkserver_preload(["service.training.__main__", "torch._dynamo", "onnx", "scripts.chaos.lives"])


def environment(folder: Path, settings: Mapping[str, object]) -> dict[str, str]:
    """Ours, but with these settings alone, and with nothing written outside of the folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGERANK_")}
    given = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
    return kept | {f"AGERANK_{name.upper()}": value for name, value in given.items()} | {"TMPDIR": str(folder)}


class Life:
    """One trainer, from its start to its death.

    Args:
        folder: where it runs; an agerank.toml there would be read.
        settings: its own.
        ranks: processes that it is.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object], ranks: int = 1) -> None:
        self._log, master = folder / "train.log", str(free_port(0))
        self._processes = [
            _forks.Process(
                target=_live,
                args=(environment(folder, settings) | _place(rank, ranks, master), str(folder), str(self._log)),
                daemon=True,
            )
            for rank in range(ranks)
        ]
        for one in self._processes:
            one.start()

    def check(self) -> None:
        """Raises ChaosError, with the end of its log, where one of its processes has ended by itself."""
        for one in self._processes:
            self._check(one)

    def kill(self, draw: random.Random) -> None:
        """With SIGKILL: one rank, and a moment later the others. Raises ChaosError where it was dead already."""
        self.check()
        first, *others = draw.sample(self._processes, len(self._processes))
        first.kill()
        first.join()
        if first.exitcode != -signal.SIGKILL:
            self._check(first)
        if others:
            time.sleep(draw.uniform(0.0, SURVIVED_S))
        for one in others:
            one.kill()
            one.join()

    def stop(self) -> None:
        """As an operator would. Raises ChaosError where it does not end well."""
        for one in self._processes:
            one.terminate()
        for one in self._processes:
            one.join(PATIENCE_S)
        for one in self._processes:
            if one.exitcode != 0:
                one.kill()
                one.join()
                self._check(one)

    def _check(self, process: ForkServerProcess) -> None:
        if process.exitcode is not None:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
            raise ChaosError("\n".join([f"a trainer ended by itself with {process.exitcode}:", *lines]))


def _place(rank: int, ranks: int, master: str) -> dict[str, str]:
    """As torchrun tells a process which rank it is; nothing to one alone."""
    if ranks == 1:
        return {}
    return {"RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": master}


def _live(environment: dict[str, str], folder: str, log: str) -> None:
    """The fork's own life."""
    from service.training.__main__ import main  # already there: see `set_forkserver_preload`

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.exit(main())


class Scene(NamedTuple):
    """What can be seen of a trainer from outside: what it has written, and where."""

    incoming: tuple[int, int] | None  # what identifies the folder of a version that is being written
    newest: int | None  # version that is there as a whole
    announced: str  # position of the newest announcement
    told: int | None  # the version that it names


class Watch:
    """Looks at the work of one lane's trainers."""

    def __init__(self, store: LocalStore, client: redis.Redis, names: StreamNames) -> None:
        self._store, self._client, self._names = store, client, names

    def look(self) -> Scene:
        return Scene(self.incoming(), self.newest(), *self.announced())

    def incoming(self) -> tuple[int, int] | None:
        try:
            found = (self._store.root / "incoming").stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def newest(self) -> int | None:
        return max(checkpoints.versions(self._store), default=None)

    def announced(self) -> tuple[str, int | None]:
        """(position of the newest announcement, the version that it names)."""
        found: Any = self._client.xrevrange(self._names.models, count=1)
        return next(((one.decode(), _version(fields)) for one, fields in found), (START, None))

    def announcements(self) -> int:
        """How many different versions were announced."""
        found: Any = self._client.xrange(self._names.models)
        return len({_version(fields) for _, fields in found})


def _version(fields: Mapping[bytes, bytes]) -> int:
    return decode_announcement(fields[FIELD]).version


def phase(born: Scene, died: Scene) -> str:
    """What a trainer was at when it died.

    Args:
        born, died: what was there when it started, and what it left.

    Returns:
        "announcing": a version is in its place and nobody was told; "saving": one is not yet whole; "starting": it had
        not yet announced the version that it went on from; or "learning".
    """
    if died.newest not in (born.newest, died.told):
        return "announcing"
    if died.incoming not in (born.incoming, None):
        return "saving"
    return "starting" if died.announced == born.announced else "learning"


def read_all(life: Life, ports: Sequence[int], streams: tuple[str, ...]) -> dict[str, int]:
    """Waits until a trainer has read its log to its end. Returns what it made of the events, by result.

    Args:
        ports: where its ranks tell their metrics.
    """
    found: Metrics = {}
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        life.check()
        before, found = found, _added(metrics(port) for port in ports)
        if found and all(found.get(("agerank_stream_lag_entries", one)) == 0 for one in streams):
            return joined(found)
        if joined(found) != joined(before):
            deadline = time.monotonic() + PATIENCE_S
        time.sleep(0.05)
    raise ChaosError(f"a trainer read nothing for {PATIENCE_S:g} s")


def metrics(port: int) -> Metrics:
    """What a process tells at /metrics; nothing where nobody answers."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return {(one.name, *one.labels.values()): one.value for one in samples}


def _added(told: Iterable[Metrics]) -> Metrics:
    """What ranks tell, each of what it has read itself; nothing where one of them does not answer."""
    found: Metrics = {}
    for one in told:
        if not one:
            return {}
        found |= {name: found.get(name, 0.0) + value for name, value in one.items()}
    return found


def joined(found: Metrics) -> dict[str, int]:
    """What a trainer made of the events, by result."""
    return {labels[0]: int(value) for (name, *labels), value in found.items() if name == "agerank_join_total"}
