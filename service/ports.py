"""Ports that a process listens on."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def taking(setting: str, host: str, port: int) -> Iterator[None]:
    """Around what listens there. Raises OSError: it cannot, with the setting by which to choose another port."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{setting}: cannot listen on {host} port {port}: {error.strerror}") from None
