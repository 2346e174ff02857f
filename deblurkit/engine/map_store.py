"""Maps of the frames of a clip, kept in memory up to a budget and in a temporary file beyond it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import torch
from torch import Tensor

from deblurkit.errors import DeblurkitError

#: Name of the map and position of its frame.
_Key = tuple[str, int]


@dataclass(frozen=True)
class _Place:
    """Where in the file a map lies, and what it is."""

    offset: int
    size: int
    dtype: torch.dtype
    shape: torch.Size


class MapStore:
    """Tensors by name and position of their frame; a context manager.

    Beyond the budget, the maps that were put first go to the file. A clip is walked to and fro: those are what the next
    walk reads last. The file has no name (where the system allows it), so that nothing is left of it whatever happens
    to the process.

    Args:
        budget: bytes of maps that may be in memory. folder: where the file lies; None: the system's temporary folder.

    Attributes:
        in_memory: bytes of maps in memory now. peak: the most there were. on_disk: size of the file.
    """

    def __init__(self, budget: int, folder: str | Path | None = None) -> None:
        self.budget, self._folder = budget, folder
        self.in_memory = self.peak = self.on_disk = 0
        self._kept: dict[_Key, Tensor] = {}
        self._spilled: dict[_Key, _Place] = {}
        self._gaps: dict[int, list[int]] = {}  # offsets of room that maps have left, by its size
        self._file: IO[bytes] | None = None

    def __enter__(self) -> MapStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kept.clear()
        if self._file is not None:
            self._file.close()

    def __contains__(self, key: _Key) -> bool:
        return key in self._kept or key in self._spilled

    def put(self, name: str, position: int, value: Tensor) -> None:
        """Keep a map, in place of the one that there may be.

        Raises:
            DeblurkitError: the folder has no room for it.
        """
        key = (name, position)
        self._forget(key)
        value = value.detach().to("cpu").contiguous()
        size = value.nbytes
        if value.untyped_storage().nbytes() > size:  # a part of something larger, which would stay with it
            value = value.clone()
        while self._kept and self.in_memory + size > self.budget:
            oldest = next(iter(self._kept))
            self._spill(oldest, self._kept[oldest])
            self._release(oldest)
        if size > self.budget:
            self._spill(key, value)
            return
        self._kept[key] = value
        self.in_memory += size
        self.peak = max(self.peak, self.in_memory)

    def get(self, name: str, position: int) -> Tensor:
        """A map, on the CPU. It must not be changed. Raises KeyError where there is none."""
        key = (name, position)
        if key in self._kept:
            return self._kept[key]
        place = self._spilled[key]
        raw = torch.empty(place.size, dtype=torch.uint8)
        assert self._file is not None
        self._file.seek(place.offset)
        rest = raw.numpy().data
        while rest:
            rest = rest[self._file.readinto(rest) :]  # type: ignore[attr-defined]
        return raw.view(place.dtype).view(place.shape)

    def drop(self, name: str) -> None:
        """Forget the maps of this name."""
        for key in [key for key in (*self._kept, *self._spilled) if key[0] == name]:
            self._forget(key)

    def _forget(self, key: _Key) -> None:
        if key in self._kept:
            self._release(key)
        elif key in self._spilled:
            place = self._spilled.pop(key)
            self._gaps.setdefault(place.size, []).append(place.offset)

    def _release(self, key: _Key) -> None:
        self.in_memory -= self._kept.pop(key).nbytes

    def _spill(self, key: _Key, value: Tensor) -> None:
        size = value.nbytes
        gaps = self._gaps.get(size)
        offset = gaps.pop() if gaps else self.on_disk
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, prefix="deblurkit-", buffering=0)  # noqa: SIM115
            self._file.seek(offset)
            rest = value.reshape(-1).view(torch.uint8).numpy().data
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            where = self._folder or tempfile.gettempdir()
            raise DeblurkitError(
                f"{where}: the maps of this clip need more room than there is ({error.strerror}; "
                f"{self.on_disk / 2**30:.1f} GiB are written): choose a folder on a larger disk, or do without exact"
            ) from None
        self.on_disk = max(self.on_disk, offset + size)
        self._spilled[key] = _Place(offset, size, value.dtype, value.shape)
