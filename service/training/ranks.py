"""Ranks: the processes that train one lane together. All go through the same rounds, and no round starts without all.

They are started by torchrun, which tells each who it is, and talk over gloo. One process alone is a rank of one, to
which all of this is free.
"""

import ctypes
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.distributed import DistError, ProcessGroup, Store, TCPStore, Work  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

# A rank that is killed ends the others at once, for their connections break. One that waits for Redis, or for slow
# storage, is waited for.
_PATIENCE = timedelta(days=1)
# Where the connection breaks in the middle of a message, gloo goes on waiting for its end; other calls tell.
_LOOK, _LOOK_TAG = timedelta(seconds=1), 1
_CALL = timedelta(seconds=2)  # to a store, which answers at once
_STANDING_S = 0.01
_PORT = "agerank.port"
_SHORT = 2_048  # bytes that travel without the length being known before
_LENGTH = struct.Struct("<q")


class Ranks:
    """All of them, as one of them sees it.

    Every method but `owns` waits for the same call on every rank, and raises OSError where one is gone.

    Args:
        group: that they talk over, None for one alone.

    Attributes:
        rank: ours; the first, 0, is the one that publishes.
        size: how many there are.
    """

    def __init__(self, group: ProcessGroup | None = None) -> None:
        self._group = group
        self.rank, self.size = (group.rank(), group.size()) if group else (0, 1)

    @property
    def peers(self) -> "Ranks | None":
        """Of a learner."""
        return self if self.size > 1 else None

    def owns(self, partition: int) -> bool:
        """Whether this partition of the log is ours to read."""
        return partition % self.size == self.rank

    def swap(self, given: Sequence[Tensor], sizes: Sequence[int]) -> Callable[[], list[Tensor]]:
        """Begins to give each rank its (N,) float32.

        Returns:
            What waits for it, and returns what each gives us, which has these sizes.
        """
        group = self._group
        if not group:
            return lambda: list(given)
        out, into = list(given), list(sizes)
        out[self.rank], into[self.rank] = torch.empty(0), 0  # our own does not travel
        found, sent = torch.empty(sum(into)), torch.cat(out)
        work = group.alltoall_base(found, sent, into, [len(one) for one in out])

        def arrived() -> list[Tensor]:
            _done(group, work)
            parts = list(torch.split(found, into))
            parts[self.rank] = given[self.rank]
            return parts

        return arrived

    def gather(self, content: bytes, *, resting: bool = False) -> list[bytes]:
        """What every rank gives, in their order.

        Args:
            resting: nothing is urgent, or others may be waiting for something else: we give our core away until they
                come.
        """
        if not self._group:
            return [content]
        head = _LENGTH.pack(len(content)) + content[:_SHORT]
        heads = self._all(self._group, head, _LENGTH.size + _SHORT, resting=resting)
        lengths = [_LENGTH.unpack_from(head)[0] for head in heads]
        if max(lengths) <= _SHORT:
            return [head[_LENGTH.size :][:length] for head, length in zip(heads, lengths, strict=True)]
        return [
            part[:length] for part, length in zip(self._all(self._group, content, max(lengths)), lengths, strict=True)
        ]

    def most(self, number: int, *, resting: bool = False) -> int:
        """The largest of what each gives, non-negative and below 2^63. Args: resting: as of `gather`."""
        return max(int(_LENGTH.unpack(one)[0]) for one in self.gather(_LENGTH.pack(number), resting=resting))

    def collect(self, content: bytes) -> list[bytes]:
        """The same on rank 0, and nothing elsewhere: for what is large."""
        if not self._group:
            return [content]
        lengths = [_LENGTH.unpack(one)[0] for one in self.gather(_LENGTH.pack(len(content)))]
        own = _tensor(content, max(lengths))
        parts = [] if self.rank else [torch.empty_like(own) for _ in lengths]
        _done(self._group, self._group.gather([parts] if parts else [], [own]))
        return [part[:length].numpy().tobytes() for part, length in zip(parts, lengths, strict=False)]

    def spread(self, content: bytes) -> bytes:
        """What rank 0 gives."""
        if not self._group:
            return content
        length = _LENGTH.unpack(self.gather(_LENGTH.pack(len(content)))[0])[0]
        own = _tensor(content if self.rank == 0 else b"", length)
        _done(self._group, self._group.broadcast([own]))
        return own.numpy().tobytes()

    def _all(self, group: ProcessGroup, content: bytes, width: int, *, resting: bool = False) -> list[bytes]:
        """What every rank gives, with zeros after it up to the width; but ours as it is."""
        into = [0 if rank == self.rank else width for rank in range(self.size)]
        found = torch.empty(sum(into), dtype=torch.uint8)
        own = _tensor(content, width).repeat(self.size - 1)
        # A third of the time of an allgather.
        _done(group, group.alltoall_base(found, own, into, into), resting=resting)
        parts = [part.numpy().tobytes() for part in torch.split(found, into)]
        return [content if rank == self.rank else part for rank, part in enumerate(parts)]


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks that torchrun started, or one alone. Comes when all are there."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    given, rank, _ = next(rendezvous("env://", timeout=_PATIENCE))
    store = own_store(given, os.environ["MASTER_ADDR"], rank)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    yield Ranks(torch.distributed.group.WORLD)
    # Not where one of us fails: it would wait for the others, who wait for it.
    torch.distributed.destroy_process_group()


def own_store(given: Store, host: str, rank: int) -> Store:
    """A store that only ranks which started together have used.

    The one that torchrun gives to ranks that it restarts may hold the addresses of those before: who finds one of them
    there would call the dead for as long as our patience lasts.

    Args:
        given: by torchrun.
        host: where rank 0 is.
    """
    if rank == 0:
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=_PATIENCE)
        given.set(_PORT, str(store.port))
        return store
    while True:
        port = int(given.get(_PORT))
        try:
            store = TCPStore(host, port, is_master=False, timeout=_CALL)
        except DistError:  # of a rank 0 that is gone: the next one is about to say where it is
            continue
        store.set_timeout(_PATIENCE)
        return store


def _done(group: ProcessGroup, work: Work, *, resting: bool = False) -> None:
    """Waits, at first on our feet: a virtual core that was given away takes up to milliseconds to come back."""
    end_s = time.perf_counter() + (0.0 if resting else _STANDING_S)
    while not work.is_completed() and time.perf_counter() < end_s:
        os.sched_yield()  # to gloo's threads
    try:
        while not work.is_completed():
            with suppress(RuntimeError):  # not yet; or what the last line says again
                work.wait(_PATIENCE if resting else _LOOK)
            if not work.is_completed():
                _look(group)
        work.wait()
    except RuntimeError as error:  # of gloo, which goes on with good wishes
        raise ConnectionError(f"another rank is gone: {str(error).partition('. ')[0]}") from None


def _look(group: ProcessGroup) -> None:
    """Raises RuntimeError where a connection is broken. Nobody receives what it sends, and nobody waits for that."""
    try:
        for rank in range(group.size()):
            if rank != group.rank():
                group.send([torch.empty(0)], rank, _LOOK_TAG)
    except RuntimeError:
        # The group's end would wait for its thread, which still waits. So it has none: we end without.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
        raise


def _tensor(content: bytes, width: int) -> Tensor:
    """(width,) uint8, zeros after the content."""
    own = torch.zeros(width, dtype=torch.uint8)
    own.numpy()[: len(content)] = np.frombuffer(content, dtype=np.uint8)
    return own
