"""The same bits as `models.noise`, whatever the seeds, scopes and shapes."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import noise
from models.noise_torch import TorchNoise, signed
from models.types import Array, NoiseInput

BITS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**64 - 1])
INPUTS = st.builds(
    NoiseInput,
    name=st.sampled_from(["masks", "coin", "uniform"]),
    distribution=st.sampled_from(["dropout", "uniform"]),
    scope=st.sampled_from(["request", "candidate", "version"]),
    draws=st.integers(1, 5),
    width=st.integers(1, 40),
    rate=st.floats(0.0, 1.0, exclude_max=True, width=32) | st.sampled_from([0.01, 0.1, 0.3, 0.5, 1 / 3]),
)
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]


def tensor(values: Sequence[int], device: str) -> torch.Tensor:
    return torch.tensor([signed(value) for value in values], dtype=torch.int64, device=device)


def array(values: Sequence[int]) -> Array:
    return np.array(values, dtype=np.uint64)


@pytest.mark.parametrize("device", DEVICES)
@given(one=INPUTS, seeds=st.lists(BITS, min_size=1, max_size=3), version=st.integers(0, 2**40), data=st.data())
def test_rows_of_several_requests_have_the_bits_of_each_alone(
    device: str, one: NoiseInput, seeds: list[int], version: int, data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.tuples(st.integers(0, len(seeds) - 1), BITS), min_size=1, max_size=6))
    of, items = zip(*rows, strict=True)
    found = (
        TorchNoise([one])
        .draw(
            request_seed=tensor(seeds, device),
            version=tensor([version], device),
            item_hash=tensor(items, device),
            request=tensor(of, device),
        )[one.name]
        .numpy(force=True)
    )
    seed = array([seeds[which] for which in of])
    expected = noise.draw([one], request_seed=seed, version=version, item_hash=array(items))[one.name]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@given(BITS)
def test_signed_keeps_the_bits(value: int) -> None:
    assert np.array([signed(value)], dtype=np.int64).view(np.uint64)[0] == value
