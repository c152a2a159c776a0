"""Processes of a benchmark: ready when they say so, still while another is measured, gone at the end."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from scripts.bench.processes import Server, cores, pinned, read
from scripts.bench.report import BenchError, failing
from scripts.demo_processes import free_port


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that are given as Python code or, without, serve the folder."""
    started: list[Server] = []

    def one(code: str = "") -> Server:
        port = free_port(0)
        arguments = ["-c", code] if code else ["-m", "http.server", "--bind", "127.0.0.1", str(port)]
        server = Server(
            "a server",
            [sys.executable, *arguments],
            port=port,
            ready="/",
            core=max(os.sched_getaffinity(0)),
            log=tmp_path / f"{port}.log",
            environment=dict(os.environ),
        )
        started.append(server)
        return server

    yield one
    for server in started:
        server.stop()


def test_it_is_waited_for_on_its_core_and_gone_at_the_end(start: Callable[..., Server]) -> None:
    with start().wait() as server:
        assert read(server.port, "/")[0] == 200
        assert os.sched_getaffinity(server._process.pid) == {max(os.sched_getaffinity(0))}
        assert server.resident() > 1_000_000
    assert read(server.port, "/") == (None, b"")
    with pytest.raises(ProcessLookupError):
        os.kill(server._process.pid, 0)


def test_one_that_ends_before_tells_its_story(start: Callable[..., Server]) -> None:
    with pytest.raises(BenchError, match=r"a server ended with 3:\n    no such model"):
        start("print('no such model'); raise SystemExit(3)").wait()


def test_one_that_ends_without_a_word(start: Callable[..., Server]) -> None:
    with pytest.raises(BenchError, match="it wrote nothing"):
        start("raise SystemExit(3)").wait()


def test_one_that_takes_too_long_tells_its_story(start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.bench.processes.READY_TIMEOUT_S", 1.0)
    with pytest.raises(BenchError, match="was not ready after 1 s"):
        start("import time; time.sleep(60)").wait()


def test_the_others_stand_still_meanwhile(start: Callable[..., Server]) -> None:
    one, other = start().wait(), start().wait()
    with one.alone([one, other]):
        assert read(one.port, "/")[0] == 200
        assert state(other) == "T"
    assert read(other.port, "/")[0] == 200
    assert state(other) != "T"


def test_one_that_stands_still_can_be_ended(start: Callable[..., Server]) -> None:
    one, other = start().wait(), start().wait()
    with one.alone([one, other]):
        other.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(other._process.pid, 0)


def state(server: Server) -> str:
    """Of the process, as /proc tells it; a signal takes a moment."""
    for _ in range(100):
        found = Path(f"/proc/{server._process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        if found == "T":
            break
        time.sleep(0.001)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_servers_too(start: Callable[..., Server], number: int) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # these tests may run under nohup themselves
    try:
        with pytest.raises(SystemExit) as ended, failing(), start().wait() as server:
            signal.raise_signal(number)
        assert ended.value.code == 128 + number
        assert read(server.port, "/") == (None, b"")
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_without_a_terminal_it_goes_on() -> None:
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with failing():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_server_has_the_last_core_and_the_client_the_others() -> None:
    ours = os.sched_getaffinity(0)
    found = cores(None)
    assert found.server == max(ours)
    assert found.others == (ours - {found.server} or ours)
    assert cores(min(ours)).server == min(ours)
    with pytest.raises(typer.BadParameter, match="core 4096 is not one of ours"):
        cores(4096)


def test_pinned_is_undone() -> None:
    before = os.sched_getaffinity(0)
    with pinned([min(before)]):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        assert read(probe.getsockname()[1], "/") == (None, b"")
