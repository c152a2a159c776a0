"""A port on either protocol, and what keeps it from us said with the setting."""

import socket
from urllib.parse import urlsplit

import pytest

from service import ports

IPV6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("", "127.0.0.1"),
        pytest.param("::1", "::1", marks=IPV6),
        pytest.param("::", "::1", marks=IPV6),
        pytest.param("::", "127.0.0.1", marks=IPV6),
    ],
)
def test_it_is_reached_over_either_protocol(host: str, reached: str) -> None:
    with ports.listening("port", host, 0) as listener:
        with socket.create_connection((reached, listener.getsockname()[1]), timeout=10.0):
            pass
        announced = urlsplit(ports.url(listener))
        with socket.create_connection((announced.hostname, announced.port), timeout=10.0):
            pass


def test_an_address_that_is_none_is_said_with_its_setting() -> None:
    with pytest.raises(OSError, match=r"^admin_port: cannot listen on not\.a\.host\.invalid port 1: .+"):
        ports.listening("admin_port", "not.a.host.invalid", 1)
