"""The same bits as `models.noise`, whatever the seeds, scopes and shapes."""

import shutil
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import noise
from models.noise_torch import TorchNoise
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


def array(values: Sequence[int]) -> Array:
    return np.array(values, dtype=np.uint64)


def tensor(values: Array, device: str) -> torch.Tensor:
    """The same bits."""
    return torch.from_numpy(values.view(np.int64)).to(device)


def mixed_key(one: NoiseInput, seeds: Array, of: Array, version: int, items: Array) -> Array:
    seeds = seeds[of] if one.scope == "candidate" else seeds
    return noise.mix(noise.keys(one, request_seed=seeds, version=version, item_hash=items))


@pytest.mark.parametrize("device", DEVICES)
@given(one=INPUTS, seeds=st.lists(BITS, min_size=1, max_size=3), version=st.integers(0, 2**40), data=st.data())
def test_rows_of_several_requests_have_the_bits_of_each_alone(
    device: str, one: NoiseInput, seeds: list[int], version: int, data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.tuples(st.integers(0, len(seeds) - 1), BITS), min_size=1, max_size=6))
    of, items = np.array([request for request, _ in rows]), array([item for _, item in rows])
    key = mixed_key(one, array(seeds), of, version, items)
    found = TorchNoise([one], device).draw({one.name: tensor(key, device)}, torch.from_numpy(of).to(device))
    expected = noise.draw([one], request_seed=array(seeds)[of], version=version, item_hash=items)
    assert found[one.name].dtype == torch.float32
    np.testing.assert_array_equal(found[one.name].numpy(force=True), expected[one.name])


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, about torch
@pytest.mark.parametrize("device", DEVICES)
def test_compiled_it_has_the_same_bits(device: str) -> None:
    """A compiler that reasons about whole numbers must not do so without their wrapping."""
    inputs = [
        NoiseInput(name="masks", distribution="dropout", scope="request", draws=3, width=5, rate=0.4),
        NoiseInput(name="uniform", distribution="uniform", scope="candidate", draws=1, width=1),
    ]
    seeds, of, items = array([2**63, 5]), np.arange(20) % 2, np.arange(20, dtype=np.uint64)
    keys = {one.name: tensor(mixed_key(one, seeds, of, 3, items), device) for one in inputs}
    draw, request = TorchNoise(inputs, device).draw, torch.from_numpy(of).to(device)
    plain, compiled = draw(keys, request), torch.compile(draw, fullgraph=True, dynamic=True)(keys, request)
    for name, values in plain.items():
        assert torch.equal(values, compiled[name])
