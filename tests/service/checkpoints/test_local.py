"""A folder: a version is whole or absent wherever the process dies, and nothing outside of it is ever read."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from service import checkpoints, durable
from service.checkpoints import LocalStore, archive
from service.errors import CheckpointError

OTHER_GRAPHS = {"age": b"age graph", "greedy": b"another greedy graph"}


def folder(root: Path, version: int) -> Path:
    return root / "versions" / f"{version:012d}"


def refusal(kit: Any, root: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        kit.load(LocalStore(root), 1)
    return caught.value.code


def test_a_copy_made_by_hand_is_no_version(tmp_path: Path, kit: Any) -> None:
    store = LocalStore(tmp_path)
    kit.save(store, 1)
    for name in ("1", "000000000001.bak", "²²²²²²²²²²²²"):
        shutil.copytree(folder(tmp_path, 1), tmp_path / "versions" / name)
    kit.save(store, 2, keep=1)
    assert checkpoints.versions(store) == [2]


def test_a_linked_version_folder_is_refused_but_a_linked_root_is_not(tmp_path: Path, kit: Any) -> None:
    kit.save(LocalStore(tmp_path / "lane"), 1)
    (tmp_path / "link").symlink_to(tmp_path / "lane")
    kit.load(LocalStore(tmp_path / "link"), 1)
    folder(tmp_path / "lane", 1).rename(tmp_path / "elsewhere")
    folder(tmp_path / "lane", 1).symlink_to(tmp_path / "elsewhere")
    assert refusal(kit, tmp_path / "lane") == "outside_folder"


def test_no_name_is_on_the_disk_before_what_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies leaves its writes to the kernel; a machine takes all with it that was not synced."""
    calls: list[tuple[str, str]] = []

    def noting(name: str, found: Callable[[Any], Path]) -> None:
        call = getattr(os, name)

        def noted(one: Any, *others: Any, **options: Any) -> None:
            calls.append((name, str(found(one).relative_to(tmp_path))))
            call(one, *others, **options)

        monkeypatch.setattr(os, name, noted)

    def opened(descriptor: int) -> Path:
        inode = os.fstat(descriptor).st_ino
        return next(one for one in (tmp_path, *tmp_path.rglob("*")) if one.stat().st_ino == inode)

    for name, found in (("fsync", opened), ("rename", Path), ("replace", Path)):
        noting(name, found)
    store = LocalStore(tmp_path)
    store.install("versions/1", {"weights": b"w", "graphs/age": b"g"})
    store.put("current.json", b"{}", stamp=None)
    assert calls == [
        ("fsync", "incoming/1/weights"),
        ("fsync", "incoming/1/graphs/age"),
        ("fsync", "incoming/1/graphs"),
        ("fsync", "incoming/1"),
        ("rename", "incoming/1"),
        ("fsync", "versions"),
        ("fsync", "current.json.draft"),
        ("replace", "current.json.draft"),
        ("fsync", "."),
    ]


@pytest.mark.parametrize(
    ("place", "count"),
    [
        ((durable, "write"), 0),
        ((durable, "write"), 3),
        ((durable, "write"), 5),
        ((durable, "install"), 0),
        ((archive, "_prune"), 0),
        ((durable, "overwrite"), 0),
    ],
)
def test_a_process_killed_while_it_saves_leaves_no_half_version(
    tmp_path: Path, kit: Any, place: tuple[ModuleType, str], count: int
) -> None:
    store = LocalStore(tmp_path)
    checkpoints.set_current(store, kit.save(store, 1))
    child = os.fork()
    if child == 0:
        die_in(*place, count)
        checkpoints.set_current(store, kit.save(store, 2, keep=1))
        os._exit(0)  # never reached
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert checkpoints.current(store) == 1
    for version in checkpoints.versions(store):
        kit.load(store, version)
    checkpoints.set_current(store, kit.save(store, 3, keep=1))  # and the next save clears up
    assert checkpoints.current(store) == 3
    kit.load(store, 3)
    assert not (tmp_path / "incoming").exists()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_version_written_anew_is_the_old_or_the_new_wherever_the_process_dies(
    tmp_path: Path, kit: Any, count: int
) -> None:
    store = LocalStore(tmp_path)
    kit.save(store, 1)
    child = os.fork()
    if child == 0:
        die_in(Path, "rename", count)  # the two renames of a replacement, and after them
        kit.save(store, 1, graphs=OTHER_GRAPHS)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    store.recover()
    assert checkpoints.versions(store) == [1]
    kit.load(store, 1)
    found = checkpoints.load_graph(store, checkpoints.load_manifest(store, 1), "greedy")
    assert (found == OTHER_GRAPHS["greedy"]) == (count == 2)
    assert [one.name for one in (tmp_path / "versions").iterdir()] == ["000000000001"]


def die_in(owner: ModuleType | type, place: str, count: int) -> None:
    """Makes this process kill itself at the call of a function, after `count` calls went well."""
    real = getattr(owner, place)
    calls = iter(range(count))

    def fatal(*args: object) -> object:
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    setattr(owner, place, fatal)


class Kept(LocalStore):
    """Whose files may not be deleted by us."""

    def discard(self, folder: str) -> None:
        raise PermissionError(13, "Permission denied", folder)


def test_old_versions_that_cannot_be_deleted_hold_up_no_new_one(
    tmp_path: Path, kit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Kept(tmp_path)
    for version in (1, 2, 3, 4):
        checkpoints.set_current(store, kit.save(store, version, keep=1))
    assert checkpoints.versions(store) == [1, 2, 3, 4]
    assert capsys.readouterr().out.count("pile up") == 1
