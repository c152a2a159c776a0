"""What a log has lost is found, once, and the place to go on from misses nothing: on servers that really lose it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError

from service.appends import append_batch
from service.connections import connect
from service.gaps import Gap, GapFinder
from service.streams import START, Entry, LogReader, StreamNames
from service.valkey import EmbeddedServer

WINDOW_MS = 3


class Reading:
    """A trainer's way of reading: read, look, go on from where it is told."""

    def __init__(self, client: redis.Redis, names: StreamNames) -> None:
        self.client, self.names, self.stream = client, names, names.inputs[0]
        self.positions: dict[str, str] = {}
        self.restart()

    def restart(self) -> None:
        """As another process would go on."""
        self.reader = LogReader(self.client, self.names)
        self.gaps = GapFinder(self.client, self.names.inputs, window_ms=WINDOW_MS)

    def add(self, *ids: int) -> None:
        append_batch(self.client, [(self.stream, b"", f"{one}-0") for one in ids])

    def read(self, *, trim_to: int | None = None) -> tuple[list[int], list[Gap]]:
        """What is read, and what is missed then.

        Args:
            trim_to: between the two so many entries are left.
        """
        before = dict(self.positions)
        entries: list[Entry] = self.reader.read(before, block_ms=0)
        if trim_to is not None:
            self.client.xtrim(self.stream, maxlen=trim_to, approximate=False)
        self.positions |= {one.stream: one.position for one in entries}
        gaps = self.gaps.find(before, entries)
        self.positions |= {one.stream: one.position for one in gaps}
        return [one.time_ms for one in entries], gaps

    def gap(self, reason: str, position: str) -> list[Gap]:
        return [Gap(self.stream, reason, position)]


@pytest.fixture
def reading(client: redis.Redis, names: StreamNames) -> Reading:
    return Reading(client, names)


def test_nothing_is_missed_where_nothing_is_lost(reading: Reading) -> None:
    assert reading.read() == ([], [])
    reading.add(1, 2, 3)
    assert reading.read() == ([1, 2, 3], [])
    assert reading.read() == ([], [])
    reading.client.xtrim(reading.stream, maxlen=0, approximate=False)  # all of it was read
    assert reading.read() == ([], [])
    reading.add(4)
    assert reading.read() == ([4], [])
    reading.restart()
    assert reading.read() == ([], [])


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_trimmed_unread_is_told_once(reading: Reading, restarted: bool) -> None:
    reading.add(1, 2)
    reading.read()
    reading.add(3, 4, 5)
    if restarted:
        reading.restart()
    reading.client.xtrim(reading.stream, maxlen=1, approximate=False)
    assert reading.read() == ([5], reading.gap("trimmed", "5-0"))
    assert reading.read() == ([], [])
    reading.add(6)
    reading.client.xtrim(reading.stream, maxlen=0, approximate=False)
    assert reading.read() == ([], reading.gap("trimmed", "5-0"))
    assert reading.read() == ([], [])


def test_trimming_that_ends_at_our_very_position_is_no_loss(reading: Reading) -> None:
    reading.add(1, 2)
    reading.read()
    reading.add(3, 4)
    reading.client.xtrim(reading.stream, maxlen=2, approximate=False)
    assert reading.read() == ([3, 4], [])


def test_nor_is_it_one_for_who_began_at_the_start_and_is_behind(reading: Reading) -> None:
    reading.reader = LogReader(reading.client, reading.names, count=2)
    reading.add(1, 2, 3, 4, 5)
    assert reading.read() == ([1, 2], [])
    reading.client.xtrim(reading.stream, maxlen=3, approximate=False)
    assert reading.read() == ([3, 4], [])


def test_what_is_trimmed_once_it_is_read_is_no_loss_for_who_is_behind(reading: Reading) -> None:
    reading.reader = LogReader(reading.client, reading.names, count=3)
    reading.add(1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert reading.read(trim_to=8) == ([1, 2, 3], [])
    assert reading.read(trim_to=4) == ([4, 5, 6], [])  # all but one of them
    reading.client.xtrim(reading.stream, maxlen=2, approximate=False)
    assert reading.read(trim_to=1) == ([8, 9], reading.gap("trimmed", "9-0"))  # 7 was not read, 8 was


def test_a_server_that_does_not_count_tells_who_is_behind_of_it_too(reading: Reading) -> None:
    """As before 7.0: XINFO STREAM is poorer."""
    known = {"length", "first-entry", "last-entry", "last-generated-id"}
    parse = reading.client.response_callbacks["XINFO STREAM"]

    def poorer(reply: object, **given: object) -> dict[str, object]:
        return {name: value for name, value in parse(reply, **given).items() if name in known}

    reading.client.set_response_callback("XINFO STREAM", poorer)
    reading.reader = LogReader(reading.client, reading.names, count=2)
    reading.add(1, 2, 3, 4, 5, 6)
    assert reading.read() == ([1, 2], [])
    reading.client.xtrim(reading.stream, maxlen=2, approximate=False)
    assert reading.read() == ([5, 6], reading.gap("trimmed", "6-0"))


def test_a_stream_that_is_gone_begins_anew_whatever_its_ids(reading: Reading) -> None:
    reading.add(8, 9)
    reading.read()
    for _ in range(2):
        reading.client.delete(reading.stream)
        assert reading.read() == ([], reading.gap("emptied", START))
        assert reading.read() == ([], [])
        reading.add(5, 6)  # by a server whose clock is behind
        assert reading.read() == ([5, 6], [])


@pytest.mark.parametrize("restarted", [False, True])
def test_one_that_was_emptied_and_filled_again_before_we_looked(reading: Reading, restarted: bool) -> None:
    reading.add(8, 9)
    reading.read()
    reading.client.delete(reading.stream)
    reading.add(20, 21)
    if restarted:
        reading.restart()
    assert reading.read() == ([20, 21], reading.gap("emptied", "21-0"))
    assert reading.read() == ([], [])


def older_copy(reading: Reading, *, keep: tuple[int, ...]) -> None:
    """The stream as it is on a server that took over with these entries alone."""
    reading.client.delete(reading.stream)
    reading.add(*keep)


@pytest.mark.parametrize("restarted", [False, True])
def test_an_older_copy_is_read_on_from_an_attribution_window_back(reading: Reading, restarted: bool) -> None:
    reading.add(1, 2, 3, 4, 5, 6, 7)
    reading.read()
    older_copy(reading, keep=(1, 2, 3, 4, 5))
    if restarted:
        reading.restart()
    assert reading.read() == ([], reading.gap("restored", "4-0"))
    reading.add(6)  # an id that we have read, of another entry
    assert reading.read() == ([5, 6], [])
    reading.add(9)
    assert reading.read() == ([9], [])


@pytest.mark.parametrize("restarted", [False, True])
def test_an_older_copy_that_has_grown_beyond_us_is_found_too(reading: Reading, restarted: bool) -> None:
    reading.add(1, 2, 3, 4, 5, 6, 8)
    reading.read()
    older_copy(reading, keep=(1, 2, 3, 7, 9, 10, 11, 12))
    if restarted:
        reading.restart()
    assert reading.read() == ([9, 10, 11, 12], reading.gap("restored", "3-0"))
    assert reading.read() == ([7, 9, 10, 11, 12], [])
    assert reading.read() == ([], [])


def test_a_copy_that_lost_only_what_we_had_not_read_is_told(reading: Reading) -> None:
    reading.add(1, 2)
    reading.read()
    reading.add(3, 4)
    reading.gaps.find(reading.positions, [])  # they were there, and then they were not
    older_copy(reading, keep=(1, 2))
    assert reading.read() == ([], reading.gap("restored", "2-0"))
    reading.add(3)
    assert reading.read() == ([3], [])


def test_the_others_streams_go_on(reading: Reading) -> None:
    other = reading.names.inputs[1]
    append_batch(reading.client, [(other, b"", "1-0"), (reading.stream, b"", "1-1")])
    reading.read()
    reading.client.delete(reading.stream)
    append_batch(reading.client, [(other, b"", "2-0")])
    assert reading.read() == ([2], reading.gap("emptied", START))
    assert reading.positions[other] == "2-0"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path / "server") as server:
        yield server


def test_a_server_that_comes_back_with_all_has_lost_nothing_and_one_without_its_file_all(
    server: EmbeddedServer, names: StreamNames
) -> None:
    with connect(server.url, name="test") as client:
        reading = Reading(client, names)
        reading.add(1, 2, 3)
        reading.read()
        server.stop()
        with pytest.raises(RedisConnectionError):
            reading.read()
        server.start()
        assert reading.read() == ([], [])
        server.stop()
        shutil.rmtree(server.directory / "appendonlydir")
        server.start()
        assert reading.read() == ([], reading.gap("emptied", START))


def test_what_an_operator_deletes_is_a_loss_where_it_was_unread(reading: Reading) -> None:
    reading.add(1, 2, 3, 4)
    reading.read()
    reading.client.xdel(reading.stream, "2-0", "4-0")
    assert [reading.read() for _ in range(2)] == [([], [])] * 2
    reading.add(5, 6, 7)
    reading.client.xdel(reading.stream, "6-0")
    assert reading.read() == ([5, 7], reading.gap("trimmed", "7-0"))
    assert [reading.read() for _ in range(2)] == [([], [])] * 2
