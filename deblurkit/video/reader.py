"""Reading videos with PyAV: every frame once, as upright RGB pixels with its time; nothing is kept."""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import av.error
import numpy as np

from deblurkit.console import warn
from deblurkit.errors import DataError, VideoError
from deblurkit.image_io import Pixels
from deblurkit.video.color import ColorTags, ToRGB, alpha_of, depth_of, frame_tags, has_alpha, has_full_chroma
from deblurkit.video.hdr import static_hdr
from deblurkit.video.index import Entry, FrameIndex, packets_from
from deblurkit.video.probe import check_whole, read_head
from deblurkit.video.remux import copied_streams

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

#: Above this size a file without an index is not read through only to count its frames.
_COUNT_UP_TO_BYTES = 2 << 30

#: libav may look at nothing but the file itself: a playlist called .mp4 must not open other files or the network.
_OPTIONS = {"protocol_whitelist": "file"}


@dataclass(frozen=True)
class Timing:
    """When a frame is shown, in units of `VideoReader.time_base`; duration 0 where the file does not say.

    Attributes:
        alpha: `(H, W)` of uint8 for frames that are partly transparent, which GIFs can be; None: opaque.
    """

    pts: int
    duration: int
    alpha: Pixels | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Turn:
    """How stored pictures become upright ones: transpose first, then flip."""

    transpose: bool = False
    horizontal: bool = False
    vertical: bool = False

    def __call__(self, pixels: Pixels) -> Pixels:
        """Turn `(H, W, 3)` pixels or an `(H, W)` mask."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        if self.horizontal:
            pixels = pixels[:, ::-1]
        if self.vertical:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)


class VideoReader:
    """A video file as a source of frames; memory does not depend on its length, and every iteration starts anew.

    Args:
        path: the file. threads: for decoding; 0: as many as there are cores.

    Attributes:
        path, name: the file and its name.
        width, height: of the upright frames (rotation metadata is honoured).
        dtype: uint8, or uint16 where the source has more than 8 bits.
        time_base: seconds per unit of timestamps. rate: average frames per second.
        tags: colour metadata as stored. hdr: of the display that it was graded on. depth: bits per component as stored.
        full_chroma: the source has a colour for every pixel. rgb: it is stored as RGB.
        loses_alpha: it has transparency of a kind that is not read (`Timing.alpha` has that of GIFs).
        interlaced: the first frame holds two moments, in its odd and its even lines.
        aspect: shape of a pixel, width to height, upright.
        enters: `stamped` may begin to decode in the middle of the file.
        metadata: of the container. copied_codecs: of the streams that travel with the picture, audio and subtitles.

    Raises:
        VideoError: no video that can be decoded: missing, empty, cut off, without a video stream, another kind of file.
    """

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self.enters = True
        self._threads = threads
        self._length: int | None = None
        self._counted = False
        self._index: FrameIndex | None = None
        self._indexed = False
        self._stored: tuple[int, int] | None = None
        if self.path.is_dir():
            raise VideoError(f"{self.path}: is a folder, not a video")
        try:
            self._head = read_head(self.path)
        except DataError as error:
            raise VideoError(str(error)) from None
        check_whole(self.path)
        with self.open() as container:
            stream = self.stream_of(container)
            self.metadata = dict(container.metadata)
            self.copied_codecs = [stream.codec_context.name for stream in copied_streams(container)]
            self.time_base = stream.time_base or Fraction(1, 1000)
            self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            aspect = stream.codec_context.sample_aspect_ratio or Fraction(1)
            with contextlib.closing(self._decode(container)) as frames:
                first = next(frames, None)
            if first is None:
                raise VideoError(f"{self.path}: has a video stream, but not one frame of it can be decoded")
            self._stored, self._first_pts = (first.width, first.height), first.pts
            self.tags: ColorTags = frame_tags(first)
            self.depth, self.rgb = depth_of(first.format), first.format.is_rgb
            self.full_chroma = has_full_chroma(first.format)
            self.dtype = np.dtype(np.uint8 if self.depth <= 8 else np.uint16)
            self.turn = _turn(first)
            self.interlaced = first.interlaced_frame
            self.hdr = static_hdr(first)
            marks = {key.lower(): value for key, value in stream.metadata.items()}
            alpha_track = marks.get("alpha_mode") == "1"  # WebM's, which libav's own decoders pass over
            self.loses_alpha = alpha_track or (has_alpha(first.format) and not first.format.is_rgb)
        self.width, self.height = self._stored[::-1] if self.turn.transpose else self._stored
        self.aspect = 1 / aspect if self.turn.transpose and aspect else aspect

    @contextlib.contextmanager
    def open(self) -> Iterator[InputContainer]:
        """The file as libav sees it, opened once more: for what is copied without decoding."""
        try:
            container = av.open(f"file:{self.path}", container_options=dict(_OPTIONS), metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            if self._head[4:8] == b"ftyp":
                raise VideoError(f"{self.path}: has no index (moov): the recording was not finished") from None
            reason = "its content is no video format" if isinstance(error, ValueError) else error.strerror
            raise VideoError(f"{self.path}: is not a video: {reason}") from None
        with container:
            yield container

    def stream_of(self, container: InputContainer) -> VideoStream:
        """The video stream that is restored: the first that is not a cover picture."""
        for stream in container.streams.video:
            if not stream.disposition & av.stream.Disposition.attached_pic:
                if stream.codec_context is None:
                    raise VideoError(f"{self.path}: its video is of a format that this build of PyAV does not know")
                return stream
        others = sorted({stream.type for stream in container.streams})
        raise VideoError(f"{self.path}: has no video stream" + (f", only {', '.join(others)}" if others else ""))

    @property
    def length(self) -> int | None:
        """Number of frames: from the file's index, else counted without decoding; None for big files without an index.

        For progress: a damaged file gives fewer frames than it lists.
        """
        if not self._counted:
            self._length, self._counted = self._count(), True
        return self._length

    def _count(self) -> int | None:
        with self.open() as container:
            stream = self.stream_of(container)
            if stream.frames and len(stream.index_entries) == stream.frames:
                return sum(1 for entry in stream.index_entries if entry.size and not entry.is_discard)
            if self.path.stat().st_size > _COUNT_UP_TO_BYTES:
                return None
            try:
                return sum(1 for packet in container.demux(stream) if packet.size and not packet.is_discard)
            except av.error.FFmpegError:
                return None

    def __iter__(self) -> Iterator[Pixels]:
        """The frames in order, `(H, W, 3)` RGB.

        Raises:
            VideoError: the file is damaged further on.
        """
        for pixels, _ in self.stamped():
            yield pixels

    def stamped(self, start: int = 0) -> Iterator[tuple[Pixels, Timing]]:
        """The frames in order, each with its time.

        Args:
            start: the first of them. Decoding begins at the last frame before it where that is possible; frame
                `start` and those behind it, their times and their number are those of a reader that begins at 0.
        """
        usual = max(round(1 / (self.rate * self.time_base)), 1)
        previous: int | None = None
        to_rgb: ToRGB | None = None
        for position, codec, frame in self._frames(start):
            pts = frame.pts if frame.pts is not None else 0 if previous is None else previous + usual
            previous = pts
            if position < start:
                continue
            to_rgb = to_rgb or ToRGB(codec)
            alpha = alpha_of(frame)
            alpha = None if alpha is None else self.turn(alpha)
            yield self.turn(to_rgb(frame)), Timing(pts, frame.duration or 0, alpha)

    def _frames(self, start: int) -> Iterator[tuple[int, str, av.VideoFrame]]:
        """Position, name of the codec, and decoded frame, from `start` or an earlier frame on."""
        entry = self._entry(start) if start and self.enters else None
        if entry is not None:
            with self.open() as container:
                stream = self.stream_of(container)
                frames = enumerate(self._decode(container, entry), entry.position)
                before = self._arrive(frames, start)
                if before is not None:
                    for position, frame in itertools.chain(before, frames):
                        yield position, stream.codec_context.name, frame
                    return
        with self.open() as container:
            stream = self.stream_of(container)
            for position, frame in enumerate(self._decode(container)):
                yield position, stream.codec_context.name, frame

    def _entry(self, start: int) -> Entry | None:
        if not self._indexed:
            self._indexed = True
            with self.open() as container, contextlib.suppress(av.error.FFmpegError):
                # (what is damaged is named when it is decoded)
                self._index = FrameIndex.of(container, self.stream_of(container), self._first_pts)
        return self._index.entry(start) if self._index is not None else None

    def _arrive(
        self, frames: Iterator[tuple[int, av.VideoFrame]], start: int
    ) -> list[tuple[int, av.VideoFrame]] | None:
        """Decode up to frame `start`; None where a frame on the way is not the one that the index says."""
        assert self._index is not None
        times = self._index.times
        with contextlib.suppress(VideoError):  # what is damaged is named on the way from the beginning
            for position, frame in frames:
                if position >= len(times) or frame.pts != times[position]:
                    return None
                if position == start:
                    return [(position, frame)]
        return None

    def _decode(self, container: InputContainer, entry: Entry | None = None) -> Generator[av.VideoFrame, None, None]:
        """Every frame that the decoder gives, from `entry` on (those before it in time left out).

        A recording that starts between two key frames begins with packets that nothing can decode: those are named in
        a warning. Damage after the first frame is an error, so that no frame is lost unnoticed.
        """
        stream = self.stream_of(container)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = self._threads
        skipped = count = 0
        first = 0 if entry is None else entry.position
        try:
            for packet in container.demux(stream) if entry is None else packets_from(container, stream, entry):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    if count or entry is not None:
                        raise
                    skipped += 1
                    continue
                for frame in frames:
                    if entry is not None and frame.pts is not None and frame.pts < entry.pts:
                        continue  # it refers to frames before the entry
                    if skipped and not count:
                        warn(f"{self.path}: starts between two key frames; its first {skipped} packets are undecodable")
                    if self._stored not in (None, (frame.width, frame.height)):
                        raise VideoError(
                            f"{self.path}: the picture size changes from {self._stored[0]}x{self._stored[1]} to "
                            f"{frame.width}x{frame.height}; split the video there"
                        )
                    count += 1
                    yield frame
        except av.error.FFmpegError as error:
            raise VideoError(
                f"{self.path}: is damaged after frame {first + count}: {error.strerror or error}"
            ) from None


def _turn(frame: av.VideoFrame) -> Turn:
    """The display matrix of a frame as transpose and flips; angles between the quarter turns are left alone."""
    entries: Any = frame.side_data  # typed as a dict of motion vectors only
    for entry in entries:
        if entry.type.name == "DISPLAYMATRIX":
            a, b, _, c, d, *_ = struct.unpack("=9i", bytes(entry)[:36])
            if b == c == 0:
                return Turn(False, a < 0, d < 0)
            if a == d == 0:
                return Turn(True, c < 0, b < 0)
    return Turn()
