"""The heap of a trainer that has settled, in a process of its own."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import ctypes, gc, resource, sys
import numpy as np
from service.training.heap import settle

ctypes.CDLL(None).prctl(41, *map(ctypes.c_ulong, (1, 0, 0, 0)))  # small pages alone, whatever this machine's rule is
if sys.argv[1] == "settled":
    settle()
    assert gc.get_freeze_count() > 10_000

def step():
    arrays = [np.ones(1 << 19) for _ in range(8)]  # 4 MiB each, which are 1,024 pages

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages that 20 steps after the first ask the system for."""
    run = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another libc")
def test_what_a_step_frees_is_there_for_the_next() -> None:
    assert faults("settled") < 1_000
    assert faults("as it comes") > 20_000
