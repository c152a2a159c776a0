"""Slow, silent and endless callers, over real sockets: each loses his connection, and nobody else notices."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import httpx
import pytest

from service.checkpoints import Manifest
from service.settings import Settings

Publish = Callable[..., Manifest]
Serving = Callable[..., AbstractContextManager[httpx.Client]]
Until = Callable[..., None]
Metric = Callable[[httpx.Client, str], float]

ASK = {"candidates": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}


@contextmanager
def connected(client: httpx.Client) -> Iterator[socket.socket]:
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10.0) as caller:
        yield caller


def head(path: str = "/v1/rank", **headers: Any) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: x",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def request(asked: Any, **headers: Any) -> bytes:
    body = json.dumps(asked).encode()
    return head(content_length=len(body), **headers) + body


def rest(caller: socket.socket) -> bytes:
    """What comes until the scorer hangs up."""
    parts = []
    try:
        while part := caller.recv(100_000):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def drip(caller: socket.socket, parts: Iterator[bytes]) -> None:
    """Sends a part now and then, until the scorer hangs up."""
    until = time.monotonic() + 10.0
    try:
        for part in parts:
            assert time.monotonic() < until, "the scorer reads on and on"
            caller.sendall(part)
            time.sleep(0.02)
    except (ConnectionResetError, BrokenPipeError):
        return


@pytest.fixture
def ready(settings: Settings, publish: Publish) -> Settings:
    publish(settings.checkpoints)
    return settings.model_copy(update={"head_timeout_s": 0.3, "answer_timeout_s": 0.3, "deadline_s": 30.0})


def endless(part: bytes) -> Iterator[bytes]:
    while True:
        yield part


@pytest.mark.parametrize(
    ("first", "part"),
    [
        (b"", b"\r\n"),
        (b"POST /v1/rank HTT", b""),
        (b"POST /v1/rank HTTP/1.1\r\n", b"X-A: b\r\n"),
        (request(ASK) + b"POST /v1/rank HTTP/1.1\r\n", b"X-A: b\r\n"),
        (head("/nowhere", content_length=1_000_000), b"x"),
    ],
    ids=["line breaks", "half a line", "headers", "headers of the second request", "a body that nobody reads"],
)
def test_who_never_comes_to_the_point_is_hung_up_on(
    ready: Settings, serving: Serving, first: bytes, part: bytes
) -> None:
    with serving(ready) as client, connected(client) as caller:
        caller.sendall(first)
        if part:
            drip(caller, endless(part))
        rest(caller)
        assert client.post("/v1/rank", json=ASK).status_code == 200


def test_who_says_nothing_is_hung_up_on(ready: Settings, serving: Serving) -> None:
    with serving(ready.model_copy(update={"keep_alive_s": 0.3})) as client, connected(client) as caller:
        assert rest(caller) == b""


def test_headers_have_an_end(ready: Settings, serving: Serving) -> None:
    patient = ready.model_copy(update={"head_timeout_s": 30.0})
    with serving(patient) as client, connected(client) as caller:
        caller.sendall(b"POST /v1/rank HTTP/1.1\r\n")
        caller.sendall(40 * (b"X-Long: " + b"x" * 2_000 + b"\r\n"))
        assert rest(caller).startswith(b"HTTP/1.1 400")


def test_headers_after_large_requests_are_not_large(ready: Settings, serving: Serving) -> None:
    large = request(ASK | {"candidates": [{"id": f"{number:0200d}"} for number in range(400)]})
    with serving(ready) as client, connected(client) as caller:
        caller.sendall(large + large[:10])
        time.sleep(0.1)
        caller.sendall(large[10:] + request(ASK, connection="close"))
        assert rest(caller).count(b"HTTP/1.1 200") == 3


def test_requests_that_wait_for_their_turn_are_bounded(ready: Settings, serving: Serving) -> None:
    part = head("/nowhere", content_length=50_000) + b" " * 50_000
    most = answered = 0
    with serving(ready) as client, connected(client) as caller:
        caller.setblocking(False)
        waiting = memoryview(part * 1_000)
        sent = 0
        until = time.monotonic() + 2.0
        while sent < len(waiting) and time.monotonic() < until:
            with suppress(BlockingIOError):
                sent += caller.send(waiting[sent : sent + len(part)])
            with suppress(BlockingIOError):
                answered += caller.recv(100_000).count(b"HTTP/1.1 404")
            most = max(most, sent - answered * len(part))
    assert answered
    assert most < 15_000_000  # which is what the system's buffers take


UPGRADE = {"connection": "Upgrade, HTTP2-Settings", "uPgRaDe": "h2c", "HTTP2_Settings": "AA"}


def test_who_would_rather_speak_another_protocol_is_answered_in_this_one(ready: Settings, serving: Serving) -> None:
    with serving(ready) as client, connected(client) as caller:
        caller.sendall(request(ASK, **UPGRADE))
        assert caller.recv(100_000).startswith(b"HTTP/1.1 200")
        caller.sendall(request(ASK, connection="close"))
        assert rest(caller).startswith(b"HTTP/1.1 200")


def test_he_is_wherever_his_words_are_cut(ready: Settings, serving: Serving) -> None:
    asked = request(ASK, **UPGRADE)
    first, last = asked.index(b"\r\nuPgRaDe") - 1, asked.index(b"h2c") + 4
    with serving(ready) as client, connected(client) as caller:
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in [*range(first, last), asked.index(b"\r\n\r\n") + 2]:
            caller.sendall(asked[:cut])
            time.sleep(0.01)
            caller.sendall(asked[cut:])
            assert caller.recv(100_000).startswith(b"HTTP/1.1 200"), asked[:cut][-20:]
        # The second begins in what the first ends with.
        caller.sendall(asked + asked[: first + 5])
        time.sleep(0.01)
        caller.sendall(asked[first + 5 :] + request(ASK, connection="close"))
        assert rest(caller).count(b"HTTP/1.1 200") == 3


def test_a_body_that_is_too_long_is_refused_before_it_comes(ready: Settings, serving: Serving) -> None:
    with serving(ready) as client, connected(client) as caller:
        caller.sendall(head(content_length=10**12))
        answer = rest(caller)
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in answer.lower()


def test_a_body_that_comes_after_its_answer_is_read_up_to_the_limit(
    ready: Settings, serving: Serving, metric: Metric
) -> None:
    patient = ready.model_copy(update={"head_timeout_s": 30.0, "max_body_bytes": 100_000})
    with serving(patient) as client, connected(client) as caller:
        caller.sendall(head("/nowhere", transfer_encoding="chunked"))
        drip(caller, endless(b"2710\r\n" + b" " * 10_000 + b"\r\n"))
        assert metric(client, 'agerank_requests_total{route="none",status="404"}') == 1.0


def test_an_answer_that_nobody_reads_is_not_kept(
    ready: Settings, serving: Serving, until: Until, metric: Metric
) -> None:
    with serving(ready.model_copy(update={"max_in_flight": 1})) as client, connected(client) as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        large = request({"candidates": [{"id": f"{'x' * 200}{number}"} for number in range(1_000)]})
        caller.settimeout(0.2)
        hung_up = False
        for _ in range(200):
            try:
                caller.sendall(large)
            except TimeoutError:  # the scorer reads no more, for it cannot answer
                break
            except (ConnectionResetError, BrokenPipeError):
                hung_up = True
                break
        assert client.post("/v1/rank", json=ASK).status_code == 200  # the one place is free
        caller.settimeout(10.0)
        if not hung_up:
            drip(caller, endless(b" "))
        until(lambda: metric(client, "agerank_requests_in_flight") == 1.0)


def test_slow_bodies_take_no_place(ready: Settings, serving: Serving, until: Until, metric: Metric) -> None:
    narrow = ready.model_copy(update={"max_in_flight": 1})
    with serving(narrow) as client, connected(client) as one, connected(client) as other:
        for caller in (one, other):
            caller.sendall(head(content_length=100) + b"{")
        until(lambda: metric(client, "agerank_requests_in_flight") == 3.0)
        assert client.post("/v1/rank", json=ASK).status_code == 200


def test_unfinished_bodies_are_bounded_in_all(ready: Settings, serving: Serving, until: Until, metric: Metric) -> None:
    with serving(ready.model_copy(update={"max_in_flight": 1, "max_body_bytes": 1_000})) as client:
        with connected(client) as one, connected(client) as other:
            one.sendall(head(content_length=900) + b" " * 800)
            until(lambda: metric(client, "agerank_requests_in_flight") == 2.0)
            other.sendall(head(content_length=900) + b" " * 800)
            answer = other.recv(10_000)
            assert answer.startswith(b"HTTP/1.1 503")
            assert b'"code":"overloaded"' in answer
        until(lambda: client.post("/v1/rank", json=ASK).status_code == 200)


def test_a_caller_may_wait_for_less(ready: Settings, serving: Serving) -> None:
    with serving(ready) as client, connected(client) as caller:
        caller.sendall(head(content_length=100, x_deadline_ms=50) + b"{")
        answer = rest(caller)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b'"code":"deadline_exceeded"' in answer
        assert b"0.05 s" in answer
        assert client.post("/v1/rank", json=ASK, headers={"X-Deadline-Ms": "999999999"}).status_code == 200
        for wrong in ("0", "-1", "1.5", "soon", "", "1" * 10):
            refused = client.post("/v1/rank", json=ASK, headers={"X-Deadline-Ms": wrong})
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid_header")
