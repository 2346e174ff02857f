"""Whole batches handed from loader workers to the trainer in memory that both have mapped.

The stock way makes a new block of shared memory for every tensor, which both sides have to map and to fault in page by
page; that costs more than reading raw crops. Here every worker has a few slots for good. They are mapped, without a
file, before the workers are forked. A worker writes a batch into a free slot of its own and sends only where it is;
the slot is free again when the trainer holds no tensor of that batch any more. Where there is none free, or a batch is
too large, it goes the stock way.
"""

from __future__ import annotations

import itertools
import mmap
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from deblurkit.data.base import Sample

#: Two batches of a worker are under way (torch's prefetch_factor), one is being copied, one may be held for longer.
SLOTS = 4
#: Address space, that is: only what batches really fill is ever backed by memory.
SLOT_BYTES = 256 << 20
_ALIGNMENT = 64


class _Place(NamedTuple):
    """Where a tensor lies in its slot."""

    first: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class StoredBatch:
    """What travels: the slot, and for each entry the place in it, or its value."""

    memory: int
    slot: int
    entries: dict[str, Any]

    def open(self) -> Sample:
        """The batch, in the trainer's process. Its tensors keep the slot."""
        return _memories[self.memory].open(self)

    def pin_memory(self) -> Sample:
        """The batch in pinned memory; called by torch's thread for that."""
        return {name: v.pin_memory() if isinstance(v, Tensor) else v for name, v in self.open().items()}


class BatchMemory:
    """Slots for the batches of the workers that are forked after it was made.

    Args:
        workers: how many there will be.

    Raises:
        OSError: the system does not give that much address space.
    """

    def __init__(self, workers: int) -> None:
        # Python before 3.13 has no name for MAP_NORESERVE
        unreserved = 0x4000 if sys.platform == "linux" else 0
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | unreserved
        count = workers * SLOTS
        self._first = -(-count // mmap.PAGESIZE) * mmap.PAGESIZE  # before it a byte for each slot: 1 while it is taken
        self._map = mmap.mmap(-1, self._first + count * SLOT_BYTES, flags=flags)
        self._taken = np.frombuffer(self._map, np.uint8, count)
        self._number = next(_numbers)
        _memories[self._number] = self

    def put(self, worker: int, samples: Sequence[Sample]) -> StoredBatch | Sample:
        """Collate samples in a worker: into one of its slots if that can be, else as torch does.

        Args:
            worker: its number. samples: whose tensors have one shape an entry.
        """
        own = range(worker * SLOTS, (worker + 1) * SLOTS)
        slot = next((slot for slot in own if not self._taken[slot]), None)
        if slot is None:
            return default_collate(list(samples))
        entries: dict[str, Any] = {}
        sources: dict[str, list[Tensor]] = {}
        end = 0
        for name, first in samples[0].items():
            values = [sample[name] for sample in samples]
            # numbers become a tensor; texts and whatever else there is travel as they are
            value = values if isinstance(first, Tensor) else default_collate(values)
            if isinstance(first, Tensor) or isinstance(value, Tensor):
                sources[name] = list(value)
                entries[name] = place = _Place(end, value[0].dtype, (len(values), *value[0].shape))
                end = -(-(end + place.bytes) // _ALIGNMENT) * _ALIGNMENT
            else:
                entries[name] = value
        if end > SLOT_BYTES:
            return default_collate(list(samples))
        self._taken[slot] = 1
        memory = self._slot(slot, end)
        for name, tensors in sources.items():
            torch.stack(tensors, out=_tensor(memory, entries[name]))
        return StoredBatch(self._number, slot, entries)

    def open(self, batch: StoredBatch) -> Sample:
        """See `StoredBatch.open`."""
        places = [place for place in batch.entries.values() if isinstance(place, _Place)]
        memory = self._slot(batch.slot, max((place.first + place.bytes for place in places), default=0))
        # every tensor of the batch is a view of this array, which thus goes with the last of them
        weakref.finalize(memory, _free, self._taken, batch.slot).atexit = False
        entries = batch.entries.items()
        return {name: _tensor(memory, place) if isinstance(place, _Place) else place for name, place in entries}

    def _slot(self, slot: int, size: int) -> np.ndarray[Any, Any]:
        return np.frombuffer(self._map, np.uint8, max(size, 1), self._first + slot * SLOT_BYTES)


_numbers = itertools.count()
_memories: weakref.WeakValueDictionary[int, BatchMemory] = weakref.WeakValueDictionary()


def _tensor(memory: np.ndarray[Any, Any], place: _Place) -> Tensor:
    part = torch.from_numpy(memory)[place.first : place.first + place.bytes]
    return part.view(place.dtype).view(place.shape)


def _free(taken: np.ndarray[Any, Any], slot: int) -> None:
    taken[slot] = 0
