"""Ports that a process listens on."""

import socket


def listening(setting: str, host: str, port: int, *, backlog: int | None = None) -> socket.socket:
    """A socket that listens there: on IPv4 where the host has such an address, else on IPv6.

    Args:
        setting: which chooses the port.
        host: `::` takes connections of both, an empty one all of IPv4.
        port: 0 takes a free one.
        backlog: connections that may wait to be taken.

    Raises:
        OSError: it cannot, with the setting by which to choose another port.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        families = {family for family, *_ in found}
        if socket.AF_INET in families:
            return socket.create_server((host, port), backlog=backlog)
        both = socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=both)
    except OSError as error:
        raise OSError(f"{setting}: cannot listen on {host} port {port}: {error.strerror}") from None


def url(listener: socket.socket) -> str:
    """Where it listens, for HTTP."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"
