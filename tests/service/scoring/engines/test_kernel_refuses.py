"""What the compiled kernel does not take: it would read where nothing is of its own."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.exploration.age import Age
from service.errors import CheckpointError
from service.scoring.engines import kernel
from service.scoring.engines.native import method

if not kernel.LIBRARY.exists():
    pytest.skip("the kernel was not compiled: no C compiler when the project was installed", allow_module_level=True)
Make = Callable[..., Any]  # a case


def test_refuses_a_library_of_another_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editable installation whose source moved on."""
    best = kernel.library().age_best()
    monkeypatch.setattr(kernel, "SOURCE", Path(shutil.copytree(kernel.SOURCE, tmp_path / "age")))
    monkeypatch.setattr(kernel, "LIBRARY", Path(shutil.copy(kernel.LIBRARY, tmp_path / "same.so")))
    assert kernel.library().age_best() == best
    (tmp_path / "age" / "draws.h").write_text("/* changed */")
    monkeypatch.setattr(kernel, "LIBRARY", Path(shutil.copy(kernel.LIBRARY, tmp_path / "_age.so")))
    with pytest.raises(OSError, match="another source"):
        kernel.library()


@pytest.mark.parametrize("bad", [-1, 102, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("side", ["context_index", "item_index"])
def test_refuses_an_index_without_a_row(case: Make, side: str, bad: int) -> None:
    one = case()
    index = getattr(one.batch, side).copy()
    index[-1, -1] = bad
    with pytest.raises(IndexError, match=side.removesuffix("_index")):
        one._replace(batch=one.batch._replace(**{side: index})).found(Age())


def test_refuses_arrays_that_do_not_fit(case: Make) -> None:
    one, age = case(), Age()
    packed, masks = one.kernel(), one.masks(age)
    few = one.batch._replace(item_weight=one.batch.item_weight[1:])
    for batch, mask, impressions in (
        (few, masks, one.impressions),
        (one.batch, masks[:, :, 1:], one.impressions),
        (one.batch, np.repeat(masks, 3, 1), one.impressions),
        (one.batch, masks, one.impressions[1:]),
    ):
        with pytest.raises(ValueError, match="shape"):
            packed.scores(method(asdict(age)), batch, mask, 1.0, impressions)


def test_refuses_what_it_has_no_room_for_and_paths_that_are_not_here(case: Make) -> None:
    with pytest.raises(CheckpointError, match="9"):
        case(1, hidden=(4,) * 9).kernel()
    with pytest.raises(ValueError, match="path"):
        case().kernel(kernel.library().age_best() + 1)
