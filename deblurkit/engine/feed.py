"""The frames of a sequence as the restorer reads them: each once, in order, kept as long as they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from deblurkit.errors import DataError
from deblurkit.image_io import Pixels

if TYPE_CHECKING:
    from deblurkit.engine.tiling import Grid
    from deblurkit.engine.transfer import Arriving


@dataclass
class Seen:
    """A frame that was looked at, and may be on its way to the device.

    Attributes:
        begins_shot: a new shot begins with it.
        sent: its grid, of one tile, and the frame as the network takes it, on its way to the device.
    """

    pixels: Pixels
    begins_shot: bool = False
    sent: tuple[Grid, Arriving] | None = None


def checked(
    frames: Iterable[Pixels], one_size: bool, number: int = 0, floats: bool = False, channels: int = 3
) -> Iterator[Pixels]:
    """The frames as they are.

    Args:
        one_size: all have the size of the first. number: of the first, for messages. floats: float32 is right too.
        channels: that the network takes.

    Raises:
        DataError: a frame is no uint8 or uint16 `(H, W, channels)`, or of another size.
    """
    dtypes = (np.uint8, np.uint16, *([np.float32] if floats else []))
    first: tuple[int, ...] | None = None
    for position, frame in enumerate(frames, number):
        if frame.ndim != 3 or frame.shape[2] != channels or frame.dtype not in dtypes:
            wanted = f"not uint8 or uint16 (H, W, {channels})"
            raise DataError(f"frame {position} is {frame.dtype} of shape {frame.shape}, {wanted}")
        first = first or frame.shape
        if one_size and frame.shape != first:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (frame.shape, first)]
            raise DataError(f"frame {position} is {sizes[0]}, the first is {sizes[1]}: a sequence has one size")
        yield frame


class Feed:
    """Frames of a sequence by position, read when asked for and dropped when told to.

    Attributes:
        count: frames read so far; the length once `ended`. tensors: frames on the device, dropped with the frames.
    """

    def __init__(self, frames: Iterable[Seen]) -> None:
        self._frames = iter(frames)
        self._kept: dict[int, Seen] = {}
        self._needed_from = 0
        self.tensors: dict[int, Tensor] = {}
        self.count, self.ended = 0, False

    def read_to(self, position: int) -> None:
        """Read until the frame at `position` is there, or all are."""
        while self.count <= position and not self.ended:
            frame = next(self._frames, None)
            if frame is None:
                self.ended = True
                return
            if self.count >= self._needed_from:
                self._kept[self.count] = frame
            self.count += 1

    def all(self) -> Iterator[Pixels]:
        """The frames, one after the other, none kept."""
        while True:
            self.read_to(self.count)
            if self.ended:
                return
            yield self._kept.pop(self.count - 1).pixels

    def forget_before(self, position: int) -> None:
        """Drop the frames before `position`, also those that are still to be read."""
        self._needed_from = max(position, self._needed_from)
        for old in [p for p in self._kept if p < self._needed_from]:
            del self._kept[old]
            self.tensors.pop(old, None)

    def forget_tensors(self) -> None:
        """Drop what is on the device."""
        self.tensors.clear()
        for frame in self._kept.values():
            frame.sent = None

    def arrived(self, position: int, grid: Grid) -> Tensor | None:
        """The frame on the device, if it was sent there for this grid."""
        frame = self._kept[position]
        sent, frame.sent = frame.sent, None
        return sent[1].here() if sent is not None and sent[0] is grid else None

    def __getitem__(self, position: int) -> Pixels:
        return self._kept[position].pixels
