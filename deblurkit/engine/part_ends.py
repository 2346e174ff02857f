"""The two ends of a part of a video: the frames that it needs, and the segments that its results go into."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deblurkit.engine.calls import Snapshot
from deblurkit.engine.parts import Parts, save_state
from deblurkit.image_io import Pixels
from deblurkit.video.reader import Timing, VideoReader
from deblurkit.video.segment_file import Description, SegmentWriter

if TYPE_CHECKING:
    from deblurkit.engine.restore import Restorer

#: Frames before a border that are noted, so that what lies on its two sides can be compared.
NOTED = 4


class ElsewhereError(Exception):
    """The frames of a video are not where its index has them."""


class Borders:
    """Where the segments of a share begin and end: every `segment` frames from `begin` on, and at `stop`."""

    def __init__(self, begin: int, stop: int | None, segment: int) -> None:
        self.begin, self.stop, self._segment = begin, stop, segment

    def __contains__(self, position: int) -> bool:
        return (position - self.begin) % self._segment == 0 or position == self.stop


class PartSource:
    """The frames of a video that a part needs; remembers the times of those that are restored.

    Args:
        first: of the frames that are restored. starts_at: of those that are needed. until: where they stop, None: at
            the end. borders: of its segments.
        earlier: the segment that ends before `first`, of an earlier run.

    Attributes:
        times: by position. count: frames in the video, once it has ended (not: was cut off).
    """

    def __init__(
        self,
        reader: VideoReader,
        first: int,
        starts_at: int,
        until: int | None,
        borders: Borders,
        earlier: Description | None,
    ) -> None:
        self._reader, self._first, self._starts_at, self._until = reader, first, starts_at, until
        self._borders, self._earlier = borders, earlier
        self._notes: dict[int, list[int]] = {}
        self.times: dict[int, Timing] = {}
        self.count: int | None = None

    def stamped(self) -> Iterator[tuple[Pixels, None]]:
        """As `StampedSource`; the stamps are in `times`.

        Raises:
            ElsewhereError: the last frames before `first` are not those that the earlier segment ends with.
        """
        position = start = max(min(self._starts_at, self._first - NOTED), 0)
        for pixels, timing in self._reader.stamped(start):
            if position == self._until:
                return
            if any(position + ahead in self._borders for ahead in range(1, NOTED + 1)):
                self._notes[position] = [timing.pts, zlib.crc32(pixels.tobytes())]
            if position >= self._first:
                self.times[position] = timing
            elif position == self._first - 1:
                self._check()
            position += 1
            if position > self._starts_at:
                yield pixels, None
        if position > start:
            self.count = position

    def _check(self) -> None:
        if self._reader.enters and self._earlier is not None and self._starts_at > 0:
            own = Description(0, 0, 0, "", "", before=self.notes(self._first))
            if not own.follows(self._earlier):
                raise ElsewhereError

    def notes(self, border: int) -> list[list[int]]:
        """Position, time and checksum of the frames shortly before a border."""
        places = range(border - NOTED, border)
        return [[place, *self._notes[place]] for place in places if place in self._notes]


class PartSink:
    """Writes restored frames into one segment after the other.

    Args:
        new_writer: makes the writer of a segment file. shots: frames with which shots begin, as far as they are known.
    """

    def __init__(
        self,
        restorer: Restorer,
        parts: Parts,
        source: PartSource,
        first: int,
        borders: Borders,
        new_writer: Callable[[Path], SegmentWriter],
        shots: list[int],
    ) -> None:
        self._restorer, self._parts, self._source, self._borders = restorer, parts, source, borders
        self._new_writer, self._shots = new_writer, shots
        self._first = self._position = first
        self._writer: SegmentWriter | None = None

    def __enter__(self) -> PartSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """Keep what was begun where the video ends; throw it away after an error."""
        if self._writer is None:
            return
        if kind is None:
            self._close()
        else:
            self._writer.__exit__(kind, error, trace)

    def passing(self, position: int, take: Callable[[], Snapshot]) -> None:
        """Keep the state of a stream where a segment ends."""
        if position in self._borders and position > self._first:
            save_state(self._parts.state(position), take())

    def write(self, pixels: Pixels, stamp: None) -> None:
        """Append a frame."""
        if self._writer is None:
            # the last segment of a video is shorter: its name is set right when it ends
            self._path = self._parts.folder / f"{self._position:08d}.unfinished"
            self._writer = self._new_writer(self._path)
            self._writer.__enter__()
        self._writer.write(pixels, self._source.times.pop(self._position))
        self._position += 1
        if self._position in self._borders:
            self._close()

    def _close(self) -> None:
        assert self._writer is not None
        writer, self._writer = self._writer, None
        first, stop = self._position - writer.frames, self._position
        writer.notes = {
            "tile": self._restorer.tile_in_use,
            "shot": max((shot for shot in self._shots if shot < stop), default=None),
            "before": self._source.notes(first),
            "last": self._source.notes(stop),
        }
        writer.__exit__(None, None, None)
        self._path.replace(self._parts.segment(first, stop))
        self._parts.forget_states(self._borders.begin, stop)
