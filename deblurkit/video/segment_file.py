"""Encoded parts of a video: each from an encoder of its own, joined by copying packets when all are there.

A segment file holds packets as the encoder gave them, so that nothing is lost to a container's clock. It begins with a
key frame, and no frame of it refers to another segment. Layout: a mark, the packets (`_RECORD` and their bytes), a
description in JSON, its length in 8 bytes.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from deblurkit.errors import VideoError
from deblurkit.files import atomic_path
from deblurkit.video.reader import VideoReader
from deblurkit.video.writer import VideoWriter

_MARK = b"deblurkit-segment/1\n"
#: pts, dts, duration, is key frame, number of bytes.
_RECORD = struct.Struct("<qqq?Q")
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Description:
    """What a segment holds.

    Attributes:
        frames: how many. width, height, dtype: of the pixels that were encoded. time_base: of the packets, in seconds.
        tile: with which tiles it was restored (0: whole frames). shot: the shot of its last frame begins with this one.
        before, last: what the source had shortly before its first frame, and at its end: `[position, time, checksum]`
            of some frames. Where two segments meet, they tell whether both counted the frames of the source alike.
    """

    frames: int
    width: int
    height: int
    dtype: str
    time_base: str
    tile: int = 0
    shot: int | None = None
    before: list[list[int]] = field(default_factory=list)
    last: list[list[int]] = field(default_factory=list)

    def follows(self, earlier: Description) -> bool:
        """Whether both know the same frames where this one begins and the earlier one ends."""
        known = {position: rest for position, *rest in earlier.last}
        common = [known[position] == rest for position, *rest in self.before if position in known]
        return bool(common) and all(common)


class SegmentWriter(VideoWriter):
    """Writes a part of a video into a segment file; otherwise as `VideoWriter`.

    Args:
        segment: the file. target: of the whole video; its ending, `like` and `encoding` decide how frames are encoded.

    Attributes:
        notes: further entries of the `Description`, to be set before the end.
    """

    def __init__(self, segment: Path, target: Path, like: VideoReader, **encoding: Any) -> None:
        super().__init__(target, like, **encoding)
        self._segment, self._records = segment, 0
        self._file: BinaryIO | None = None
        self._kind: tuple[int, int, str] = (0, 0, "")
        self._clock: Fraction | None = None
        self.notes: dict[str, Any] = {}

    def __enter__(self) -> SegmentWriter:
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self._segment))
            # libav wants a file for the container that the encoder is set up for; nothing is written to it
            self._place = stack.enter_context(_scratch(temporary.with_suffix(self._suffix)))
            self._file = stack.enter_context(temporary.open("wb"))
            self._file.write(_MARK)
            assert self._like is not None
            self._source = stack.enter_context(self._like.open())
            stack.push(self._end)
            self._resources = stack.pop_all()
        return self

    def _begin(self, pixels: Any) -> None:
        super()._begin(pixels)
        self._kind = (pixels.shape[1], pixels.shape[0], str(pixels.dtype))

    def _mux(self, frame: av.VideoFrame | None) -> None:
        assert self._stream is not None
        assert self._file is not None
        with self._errors():
            for packet in self._stream.encode(frame):
                self._clock = packet.time_base
                dts = packet.pts if packet.dts is None else packet.dts
                self._file.write(
                    _RECORD.pack(packet.pts, dts, packet.duration or 0, bool(packet.is_keyframe), packet.size)
                )
                self._file.write(bytes(packet))
                self._records += 1

    def _finish(self) -> None:
        if self._stream is None:
            raise VideoError(f"{self._segment}: not one frame came to be written")
        self._mux(None)
        assert self._file is not None
        if self._records != self.frames:
            raise VideoError(f"{self.target}: the encoder made {self._records} packets of {self.frames} frames")
        width, height, dtype = self._kind
        description = Description(self.frames, width, height, dtype, str(self._clock), **self.notes)
        text = json.dumps(asdict(description)).encode()
        self._file.write(text + _LENGTH.pack(len(text)))


@contextlib.contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def describe_segment(path: Path) -> Description:
    """What a segment file holds.

    Raises:
        VideoError: it is none.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_MARK)) == _MARK:
                return _description(file)[0]
    except (OSError, ValueError, TypeError, struct.error):
        pass
    raise VideoError(f"{path}: is no segment of a video; delete it")


def _description(file: BinaryIO) -> tuple[Description, int]:
    """The description, and where it begins."""
    file.seek(-_LENGTH.size, 2)
    end = file.tell()
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    file.seek(end - length)
    return Description(**json.loads(file.read(length))), end - length


def _records(path: Path, with_data: bool) -> Iterator[tuple[int, int, int, bool, bytes]]:
    """pts, dts, duration, is key frame, and bytes (none without `with_data`) of each packet."""
    with path.open("rb") as file:
        _, end = _description(file)
        file.seek(len(_MARK))
        while file.tell() < end:
            pts, dts, duration, is_key, size = _RECORD.unpack(file.read(_RECORD.size))
            data = file.read(size) if with_data else b""
            if not with_data:
                file.seek(size, 1)
            yield pts, dts, duration, is_key, data


class JoiningWriter(VideoWriter):
    """A `VideoWriter` that takes segments instead of frames."""

    def __enter__(self) -> JoiningWriter:
        super().__enter__()
        return self

    def join(self, segments: Sequence[Path]) -> int:
        """Copy the packets of segments, in order, with the sound that belongs between them.

        Decode times are made anew: within the whole, a packet is decoded when the frame is shown that is as many
        frames before it as B-frames need.

        Returns:
            number of frames.

        Raises:
            VideoError: segments that do not follow each other in time. And as `write`.
        """
        first = describe_segment(segments[0])
        clock = Fraction(first.time_base)
        self._begin(np.empty((first.height, first.width, 3), first.dtype))
        assert self._stream is not None
        shown: list[int] = []
        lead, start = 0, 0
        for path in segments:
            own = [record[0] for record in _records(path, with_data=False)]
            rank = {pts: place for place, pts in enumerate(sorted(own))}
            lead = max(lead, *(place - rank[pts] for place, pts in enumerate(own)), 0)
            if shown and min(own) <= shown[-1]:
                raise VideoError(f"{path}: does not follow the segment before it; delete the folder and start again")
            shown += sorted(own)
        step = max(shown[1] - shown[0], 1) if len(shown) > 1 else 1
        early = [shown[0] - (lead - place) * step for place in range(lead)]
        for path in segments:
            for pts, _, duration, is_key, data in _records(path, with_data=True):
                packet = av.Packet(data)
                packet.pts, packet.duration, packet.time_base = pts, duration, clock
                packet.dts = early[start] if start < lead else shown[start - lead]
                packet.is_keyframe, packet.stream = is_key, self._stream
                with self._errors():
                    self._put(packet)
                start += 1
        self.frames = start
        return start

    def _mux(self, frame: av.VideoFrame | None) -> None:
        """There is nothing in the encoder."""
