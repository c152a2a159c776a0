"""Heap: what a trainer tells Python and libc of its memory, once all is there that stays."""

import ctypes
import gc

# Of glibc's mallopt (3). Left to themselves they follow what is freed, and every step gives back what the next one
# asks for: two thousand page faults, a tenth of its time.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 256 << 20  # bytes that are free and stay ours
_LARGE = 32 << 20  # bytes from which on an array is a mapping of its own, which goes back: the state of a checkpoint


def settle() -> None:
    """What is here by now stays, and what is freed from here on is kept for the next step. To be called once."""
    # A full collection over what is here by now takes 40 ms, in which all ranks wait.
    gc.collect()
    gc.freeze()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:  # other libcs have allocators of other kinds
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_TRIM_THRESHOLD, _KEPT)
