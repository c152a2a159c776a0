"""Sizes of batches."""

from service.scoring.engines.device import sizes


def test_sizes_double_up_to_the_largest() -> None:
    assert sizes(2_048) == [128, 256, 512, 1_024, 2_048]
    assert sizes(1_000) == [128, 256, 512, 1_000]
    assert (sizes(128), sizes(129), sizes(7)) == ([128], [128, 129], [7])
