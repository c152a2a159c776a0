"""What was refused, damaged or could not be written is no base of a delta, and what serves can always be loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]


def test_a_damaged_delta_gives_way_to_the_full_version(start: Start, parts, tmp_path: Path) -> None:
    run = start(tmp_path)
    run.follow(parts[:2])
    (tmp_path / "deltas" / f"{0:012d}-{run.current:012d}" / "delta.safetensors").write_bytes(b"")
    again = start(tmp_path)
    assert (again.first.version, again.current) == (0, 0)
    assert again.refused.labels("hash_mismatch")._value.get() == 1


def test_what_was_not_written_is_in_the_next_delta(start: Start, parts, bits, content, tmp_path: Path) -> None:
    run = start(tmp_path, full_every=9)
    run.guard.refuses = True
    assert run.publish(parts[0]) is None
    assert run.published == ("refused", None, ("pcoc", "too high"))
    assert run.current == 0
    run.guard.refuses = False
    (tmp_path / "incoming").write_bytes(b"")  # in the way
    with pytest.raises(OSError, match="incoming"):
        run.publish(parts[1])
    (tmp_path / "incoming").unlink()
    found = run.publish(parts[2])
    assert found is not None
    assert found.base is not None
    assert (found.kind, found.base.version) == ("delta", 0)
    assert bits(content(run.store, run.current)) == bits(run.trainer.weights())


def test_a_refused_full_version_is_kept_to_continue_from(start: Start, parts, bits, tmp_path: Path) -> None:
    run = start(tmp_path, full_every=2)
    run.publish(parts[0])
    served = run.current
    run.guard.refuses = True
    kept = run.publish(parts[1])
    assert kept is not None
    assert (kept.kind, kept.refused, run.current) == ("full", "pcoc: too high", served)
    again = start(tmp_path)
    assert (again.first.version, again.current) == (kept.version, served)
    found = again.publish(parts[2])
    assert found is not None
    assert (found.kind, again.current) == ("full", found.version)
    run.guard.refuses = False
    found = run.publish(parts[2])  # as if it had gone on: on what it published last
    assert bits(again.trainer.weights()) == bits(run.trainer.weights())


@pytest.mark.parametrize("refused", [True, False])
def test_a_stop_in_good_order_writes_what_was_kept_from_serving(
    start: Start, parts, bits, tmp_path: Path, refused: bool
) -> None:
    """Because the guard refused the delta, or because what serves knows more."""
    run = start(tmp_path, full_every=9)
    if not refused:
        run.follow(parts[:5])
        run = start(tmp_path, full_every=9)  # it has to learn all of it again
        run.publish(parts[0])  # a full version, being the first
    run.guard.refuses = refused
    served = run.current
    assert run.publish(parts[1 - refused]) is None
    assert not run.publisher.whole
    found = run.publish([], whole=True)
    assert found is not None
    assert (found.kind, run.publisher.whole, run.current) == ("full", True, served)
    again = start(tmp_path)
    assert again.first.digest == found.digest
    assert bits(again.trainer.weights()) == bits(run.trainer.weights())


@pytest.mark.parametrize("full", [False, True])
def test_what_could_not_be_made_current_is_no_base_of_itself(
    start: Start, parts, bits, content, tmp_path: Path, full: bool
) -> None:
    start(tmp_path)
    run = start(tmp_path, full_every=9)  # a restart, which begins with a full version
    tried, later = (parts[0], parts[1]) if full else (parts[1], parts[2])
    if not full:
        run.publish(parts[0])
    blocked = tmp_path / "current.json.draft"
    blocked.mkdir()
    with pytest.raises(OSError, match="draft"):
        run.publish(tried)
    blocked.rmdir()
    for part in (tried[:0], later):  # it is tried again before anything was learned
        assert run.publish(part)
        assert run.current == run.trainer.learner.step
        assert bits(content(run.store, run.current)) == bits(run.trainer.weights())


def test_a_current_delta_that_is_damaged_gives_way_where_the_newest_was_refused(
    start: Start, parts, tmp_path: Path
) -> None:
    run = start(tmp_path, full_every=2)
    run.publish(parts[0])
    run.guard.refuses = True
    run.publish(parts[1])
    (tmp_path / "deltas" / f"{0:012d}-{run.current:012d}" / "delta.safetensors").write_bytes(b"")
    assert start(tmp_path).first.refused
    assert run.current == 0
