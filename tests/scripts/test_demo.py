"""`agerank demo` as it is run: the loop closes, and nothing is left behind, however it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from scripts.cli import app

DEADLINE_S = 300.0


@pytest.fixture(autouse=True)
def favourite_ports() -> Iterator[None]:
    """Taken, so that demos of tests at the same time take any others instead of each the same."""
    with ExitStack() as stack:
        for port in (8000, 8001):
            taken = stack.enter_context(socket.socket())
            with suppress(OSError):  # by another test
                taken.bind(("127.0.0.1", port))
                taken.listen()
        yield


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """The demo with HOME and the temporary folder inside ours, so that nothing it writes escapes us."""
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    environment = os.environ | {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
    command = [sys.executable, "-m", "scripts.cli", "demo", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as demo:  # type: ignore[call-overload]
        try:
            yield demo
        finally:
            demo.kill()


def children_of(demo: "subprocess.Popen[str]") -> dict[int, str]:
    """Processes that it has started -> their command lines."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    processes = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    return {int(pid): command for pid, parent, command in processes if int(parent) == demo.pid}


def assert_gone(children: dict[int, str]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while alive := [command for pid, command in children.items() if _is_alive(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def url_of(demo: "subprocess.Popen[str]") -> str:
    """Waits until the users come."""
    assert demo.stderr is not None
    url = ""
    for line in demo.stderr:
        if line.startswith("scorer"):
            url = line.split()[1]
        if line.startswith("Ready"):
            return url
    raise AssertionError("it never got ready")


@pytest.mark.slow
def test_the_loop_closes(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with started(tmp_path, "--seconds", "20", "--dir", str(folder), "--json") as demo:
        url = url_of(demo)
        children = children_of(demo)
        assert len(children) == 3, children
        settings = tomllib.loads((folder / "agerank.toml").read_text())
        assert url == f"http://127.0.0.1:{settings['port']}"
        for port in (settings["port"], settings["trainer_port"]):
            assert "agerank_" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
        output, errors = demo.communicate(timeout=DEADLINE_S)
    assert demo.returncode == 0, errors
    report = json.loads(output)
    assert list(report) == [
        "requests", "failed", "versions_swapped", "click_to_serving_seconds", "oracle_ctr", "random_ctr", "strategies",
    ]  # fmt: skip
    assert list(report["strategies"]) == ["age_ts", "greedy", "item_posterior"]
    for one in report["strategies"].values():
        assert list(one) == ["impressions", "clicks", "ctr", "pcoc", "explored"]
        assert one["ctr"] == one["clicks"] / one["impressions"]
        assert report["random_ctr"] < one["ctr"] < report["oracle_ctr"]
        assert 0.5 < one["pcoc"] < 2.0
    assert report["failed"] == 0
    assert report["versions_swapped"] >= 3
    assert 1.5 < report["click_to_serving_seconds"]["p50"] <= report["click_to_serving_seconds"]["p99"] < 15.0
    explored = {name: one["explored"] for name, one in report["strategies"].items()}
    assert explored["greedy"] == 0 < min(explored["age_ts"], explored["item_posterior"])
    assert_gone(children)
    assert {path.name for path in folder.iterdir()} >= {
        "agerank.toml",
        "features.toml",
        "train.log",
        "serve.log",
        "data",
    }
    assert not [*(tmp_path / "home").iterdir(), *(tmp_path / "tmp").iterdir()], "no file outside the folder"


def test_it_can_be_stopped_at_any_time(tmp_path: Path) -> None:
    with started(tmp_path, "--json") as demo:
        url_of(demo)
        children = children_of(demo)
        demo.send_signal(signal.SIGINT)
        demo.send_signal(signal.SIGINT)  # impatience changes nothing
        output, errors = demo.communicate(timeout=DEADLINE_S)
    assert (demo.returncode, output) == (128 + signal.SIGINT, ""), errors
    assert "Stopped." in errors
    assert len(children) == 3
    assert_gone(children)
    assert not [*(tmp_path / "home").iterdir(), *(tmp_path / "tmp").iterdir()], "its folder is removed"


@pytest.mark.parametrize("command", ["train", "serve"])
def test_a_process_that_dies_ends_it_with_the_reason(tmp_path: Path, command: str) -> None:
    with started(tmp_path, "--json") as demo:
        url_of(demo)
        children = children_of(demo)
        (victim,) = (pid for pid, line in children.items() if line.endswith(command))
        os.kill(victim, signal.SIGKILL)
        output, errors = demo.communicate(timeout=DEADLINE_S)
    assert (demo.returncode, output) == (1, "")
    assert f"agerank {command} ended with -9" in errors
    assert "[info" in errors, "and with the end of its log"
    assert_gone(children)
    assert not list((tmp_path / "tmp").iterdir())


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = CliRunner().invoke(app, ["demo", "--dir", str(tmp_path)])
    assert done.exit_code == 1
    assert "is not empty: name a new folder" in " ".join(done.stdout.split())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
