"""Where frames come from, as the restorer sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from deblurkit.image_io import Pixels


@runtime_checkable
class FrameSource(Protocol):
    """An ordered run of frames of one size; iterating it starts at the first frame.

    Attributes:
        name: for messages and progress.
        length: number of frames where it is known, else None (a pipe, a container without a count).
    """

    name: str

    @property
    def length(self) -> int | None:
        """Number of frames, None where it is not known beforehand."""
        ...

    def __iter__(self) -> Iterator[Pixels]:
        """The frames in order, `(H, W, 3)` RGB, uint8 or uint16."""
        ...


class SequenceSource:
    """Frames that are read one by one when they are asked for: files, LMDB entries, arrays.

    Args:
        name: for messages. readers: one function a frame.
    """

    def __init__(self, name: str, readers: Sequence[Callable[[], Pixels]]) -> None:
        self.name = name
        self._readers = readers

    @property
    def length(self) -> int | None:
        """Number of frames."""
        return len(self._readers)

    def __iter__(self) -> Iterator[Pixels]:
        """Read the frames in order."""
        for read in self._readers:
            yield read()
