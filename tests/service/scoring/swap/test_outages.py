"""Whatever is gone or damaged meanwhile is no fault of a version: it serves when that is over."""

import asyncio
import os
import resource
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.checkpoints import LocalStore, Manifest, StoreError
from service.connections import connect_async
from service.settings import Settings

Publish = Callable[..., Manifest]
Make = Callable[..., Any]
Until = Callable[..., Awaitable[None]]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"version": 9}', b'{"version": "\xff"}'])
async def test_whatever_current_json_says_the_task_lives(
    settings: Settings, publish: Publish, bench, content: bytes
) -> None:
    settings.checkpoints.mkdir(parents=True)
    (settings.checkpoints / "current.json").write_bytes(content)
    await bench.swapper.check()
    assert bench.value("agerank_swaps_total", result="refused") == 1
    publish(settings.checkpoints)
    await bench.swapper.check()
    assert bench.version == 0


async def test_without_redis_it_polls(settings: Settings, publish: Publish, make: Make, until: Until) -> None:
    nobody = connect_async("redis://127.0.0.1:1/0", name="test-swap")
    bench = make(settings, nobody)
    async with bench.following():
        await asyncio.to_thread(publish, settings.checkpoints, 4)
        await until(lambda: bench.version == 4)
    await nobody.aclose()


class Remote(LocalStore):
    """A place that cannot always be reached."""

    down = False

    def stamp(self, name: str) -> str | None:
        if self.down:
            raise StoreError("no route to host")
        return super().stamp(name)

    def read(self, folder: str, name: str, sha256: str = "") -> bytes:
        if name == "golden.safetensors" and (self.root / "lost").exists():
            raise StoreError("connection reset")
        return super().read(folder, name, sha256)


async def test_too_many_open_files_are_no_fault_of_a_version(settings: Settings, publish: Publish, bench) -> None:
    publish(settings.checkpoints, 1)
    await bench.swapper.check()
    publish(settings.checkpoints, 2)
    free = os.dup(0)
    os.close(free)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for few in (free, free + 1):  # no file can be opened; one, and no folder within
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, limits[1]))
        try:
            await bench.swapper.check()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert bench.value("agerank_swaps_total", result="refused") is None
    await bench.swapper.check()
    assert bench.version == 2


async def test_an_outage_of_the_checkpoints_is_no_fault_of_a_version(
    settings: Settings, publish: Publish, redis_url: str, capsys: pytest.CaptureFixture[str], make: Make
) -> None:
    connection, store = connect_async(redis_url, name="test-swap"), Remote(settings.checkpoints)
    bench = make(settings, connection, store=store)
    publish(settings.checkpoints, 1)
    await bench.swapper.check()
    store.down = True
    publish(settings.checkpoints, 2)
    for _ in range(3):
        await bench.swapper.check()
    store.down = False
    (store.root / "lost").touch()  # it breaks off in the middle of a version
    for _ in range(3):
        await bench.swapper.check()
    assert bench.version == 1
    assert bench.value("agerank_swaps_total", result="refused") is None
    assert capsys.readouterr().out.count("cannot be reached") == 1
    (store.root / "lost").unlink()
    await bench.swapper.check()
    assert bench.version == 2
    await connection.aclose()
