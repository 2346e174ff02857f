"""Writing videos with PyAV: every frame at its time, with the source's sound, subtitles, chapters and metadata."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import av
import av.error
from av.codec.context import Flags, ThreadType
from av.video.format import VideoFormat

from deblurkit.console import warn
from deblurkit.errors import VideoError
from deblurkit.files import atomic_path
from deblurkit.image_io import Pixels
from deblurkit.still import Still, fitted_alpha
from deblurkit.video.codecs import (
    SILENT,
    Choice,
    check_container,
    choose,
    container_name,
    default_suffix,
    encoder_name,
)
from deblurkit.video.color import BT709, FULL, LIMITED, RGB_MATRIX, ColorTags, FromRGB, depth_of, used_matrix
from deblurkit.video.hdr import HDR_ENCODERS, StaticHDR, with_static_hdr
from deblurkit.video.palette import gif_options, to_palette
from deblurkit.video.reader import Timing, VideoReader
from deblurkit.video.remux import QUICKTIME, StreamCopier, is_written_anew, other_streams, unfit_streams

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Disposition
    from av.video.stream import VideoStream


#: Videos of up to so many frames come out of the encoder in one piece, at their end.
_SHORT = 4


class VideoWriter:
    """A video file under construction; use it as a context manager.

    The file appears under its name only when the block ends well. The frames are stored upright; odd sizes are kept.
    Colour tags and the shape of pixels are the source's; audio, subtitles, chapters and metadata are copied.

    Args:
        target: the file; its ending decides the container.
        like: the video that the frames come from. None: a new video of `rate` frames per second, without sound.
        rate: frames per second where there is no `like`.
        codec: an encoder of `deblurkit.video.codecs.ENCODERS`; None: libx264 (libx265 for more than 8 bits, FFV1 for
            lossless work). crf: quality on its scale; None: visually transparent.
        lossless: keep every RGB value. threads: for encoding; 0: as many as there are cores.
        into: where the bytes go, instead of a file: a pipe. `target` then only names it and says the container.

    Attributes:
        target: the file. codec: what its pictures are stored as, such as `h264`. frames: how many were written.
        left_out: what of `like` does not come along, in words: streams that the container cannot hold.

    Raises:
        VideoError: the container does not hold the codec or one of the copied streams; unknown or missing codec; a
            setting that the codec does not have.
    """

    def __init__(
        self,
        target: str | Path,
        like: VideoReader | None = None,
        *,
        rate: Fraction | int = 25,
        codec: str | None = None,
        crf: int | None = None,
        lossless: bool = False,
        threads: int = 0,
        into: BinaryIO | None = None,
    ) -> None:
        self.target, self._into = Path(target), into
        self._suffix = self.target.suffix.lower()
        self._like, self._codec, self._crf, self._lossless, self._threads = like, codec, crf, lossless, threads
        self._rate = like.rate if like else Fraction(rate)
        self._time_base = like.time_base if like else 1 / self._rate
        self._check_container()
        self._source: InputContainer | None = None
        self._output: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._copier: StreamCopier | None = None
        self._shift = Fraction(0)
        self._last: int | None = None
        self._warned = False
        self.frames = 0

    def _choose(self, size: tuple[int, int], depth: int) -> Choice:
        full_chroma = self._like is not None and self._like.full_chroma
        return choose(self._codec, size, depth, full_chroma, self._crf, self._lossless, self._suffix)

    def _check_container(self) -> None:
        """Find out before the work, not after it, that the file cannot be made."""
        like = self._like
        choice = self._choose((like.width, like.height) if like else (64, 64), like.depth if like else 8)
        self.codec = choice.codec
        copied = like.copied_codecs if like and self._suffix not in SILENT else []
        check_container(self.target, [self.codec, *copied])
        unfit = unfit_streams(like, self._suffix) if like else []
        if unfit:
            raise VideoError(f"{self.target}: {self._suffix} files cannot hold this {', '.join(unfit)}; use .mkv")
        self._others, self.left_out = other_streams(like, self._suffix) if like else ([], [])
        if like is not None:
            self.left_out += _lost(like, choice)

    def __enter__(self) -> VideoWriter:
        with contextlib.ExitStack() as stack:
            self._place: Any = _Pipe(self._into) if self._into else stack.enter_context(atomic_path(self.target))
            if self._like is not None:
                self._source = stack.enter_context(self._like.open())
            stack.push(self._end)
            self._resources = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.__exit__(kind, error, trace)

    def _end(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._output is not None:
                with contextlib.suppress(av.error.FFmpegError):  # closed already, or the file goes away with an error
                    self._output.close()

    def write(self, pixels: Pixels, timing: Timing | Still | None = None) -> None:
        """Append a frame.

        Args:
            pixels: `(H, W, 3)` RGB, uint8 or uint16; all frames have one size.
            timing: when it is shown, in the source's time base; None, or a picture: one frame's time after the last.

        Raises:
            VideoError: the size changes, or the encoder fails. OSError: the disk is full (`with` turns it into an error
                that names the file).
        """
        if self._stream is None:
            self._begin(pixels)
        assert self._stream is not None
        size, first = pixels.shape[1::-1], (self._stream.width, self._stream.height)
        if size != first:
            raise VideoError(f"{self.target}: frame {self.frames} has size {size}, the first has {first}")
        step = max(round(1 / (self._rate * self._time_base)), 1)
        if not isinstance(timing, Timing):
            alpha = timing.alpha if timing is not None else None
            timing = Timing(0 if self._last is None else self._last + step, step, alpha)
        pts = timing.pts + round(self._shift / self._time_base)
        # Encoders refuse times that do not grow; a source with two frames at one time keeps both, a tick apart.
        self._last = pts if self._last is None else max(pts, self._last + 1)
        frame = self._frame(pixels, timing)
        frame.pts, frame.time_base, frame.duration = self._last, self._time_base, timing.duration
        self._mux(frame)
        self.frames += 1

    def _frame(self, pixels: Pixels, timing: Timing) -> av.VideoFrame:
        if self._suffix == ".gif":
            return to_palette(pixels, fitted_alpha(timing.alpha, pixels))
        if timing.alpha is not None and not self._warned:
            self._warned = True
            warn(f"{self.target}: {self._suffix} files are written without transparency")
        return self._to_frame(pixels)

    def _begin(self, pixels: Pixels) -> None:
        height, width = pixels.shape[:2]
        depth = 8 if pixels.dtype.itemsize == 1 else max(self._like.depth if self._like else 10, 9)
        choice = self._choose((width, height), depth)
        if choice.name == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # it writes pages to stderr otherwise
        tags = _output_tags(self._like, choice, width, height)
        if choice.pixel_format != "pal8":
            self._to_frame = FromRGB(choice.pixel_format, tags)
        metadata = self._like.metadata if self._like else {}
        # QuickTime's long keys (place, camera) survive only in a form of metadata that other players read less well.
        long_keys = any(key.startswith(("com.apple.", "com.android.")) for key in metadata)
        options = {"movflags": "+use_metadata_tags"} if long_keys else {}
        if self._suffix in QUICKTIME:
            # when a track begins is said on the clock of the film, by default in whole milliseconds
            options["movie_timescale"] = str(min(self._time_base.denominator, 1_000_000))
        if self._suffix == ".gif":
            options = gif_options(self._like)
        if self._suffix in (".mkv", ".webm"):
            # AAC in MP4 begins a packet before zero; libav would move everything later by that
            options = {"avoid_negative_ts": "disabled"}
        with self._errors():
            if self._into is None:
                self._output = output = av.open(f"file:{self._place}", "w", container_options=options)
            else:
                name = container_name(self._suffix)
                self._output = output = av.open(self._place, "w", format=name, container_options=options)
            options = with_static_hdr(choice.name, choice.options, self._like.hdr if self._like else StaticHDR())
            added = output.add_stream(choice.name, rate=self._rate, options=options)
            self._stream = stream = cast("VideoStream", added)
            stream.width, stream.height, stream.pix_fmt = width, height, choice.pixel_format
            context = stream.codec_context
            context.time_base = stream.time_base = self._time_base
            context.thread_count, context.thread_type = self._threads, ThreadType.AUTO
            context.flags |= Flags.frame_duration
            context.color_primaries, context.color_trc = tags.primaries, tags.transfer
            context.colorspace, context.color_range = tags.matrix, tags.range
            if self._suffix == ".flv":  # has no times before zero, and reordered frames would make all others late
                context.max_b_frames = 0
            if choice.codec == "hevc" and self._suffix in QUICKTIME:
                context.codec_tag = "hvc1"  # Apple's players know HEVC by this tag only
            if self._like is not None and self._source is not None:
                self._copy_from(self._like, self._source, stream)

    def _copy_from(self, like: VideoReader, source: InputContainer, stream: VideoStream) -> None:
        assert self._output is not None
        if like.aspect and like.aspect != 1:
            stream.codec_context.sample_aspect_ratio = like.aspect
        if source.format.name in ("mpegts", "mpeg") and source.start_time:
            self._shift = -Fraction(source.start_time, 1_000_000)  # broadcast clocks start anywhere
        self._output.metadata.update({k: v for k, v in source.metadata.items() if not is_written_anew(k)})
        own = like.stream_of(source)
        stream.metadata.update({k: v for k, v in own.metadata.items() if not is_written_anew(k)})
        stream.disposition = cast("Disposition", own.disposition.value)  # av 17 takes the number only
        if source.chapters():
            self._output.set_chapters(source.chapters())
        self._copier = StreamCopier(like, source, self._output, self._others, self._suffix, self._shift)

    def _mux(self, frame: av.VideoFrame | None) -> None:
        """Encode a frame (None: what the encoder still holds) and write what comes out."""
        assert self._stream is not None
        with self._errors():
            packets = self._stream.encode(frame)
            if frame is None and self.frames <= _SHORT:
                mend_decode_times(packets)
            for packet in packets:
                self._put(packet)

    def _put(self, packet: Packet) -> None:
        """Write a packet behind the sound that belongs before it."""
        assert self._output is not None
        if self._copier is not None and packet.dts is not None:
            self._copier.copy_until(packet.dts * packet.time_base - self._shift)
        self._output.mux_one(packet)

    def _finish(self) -> None:
        if self._output is None:
            raise VideoError(f"{self.target}: not one frame came to be written")
        self._mux(None)
        with self._errors():
            if self._copier is not None:
                self._copier.copy_until(None)
            self._output.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Errors of the operating system pass (`atomic_path` names the file); libav's own become VideoErrors."""
        try:
            yield
        except OSError:
            raise
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(f"{self.target}: cannot be encoded: {error}") from error


def mend_decode_times(packets: Sequence[Packet]) -> None:
    """Give all packets of a video of a few frames decode times that follow from the times they are shown at.

    x265 sets the distance between both when the frame arrives that is as far from the first as B-frames reach; a video
    that ends before gets whatever the memory held (x265 4.2), and MP4 refuses it.
    """
    shown = sorted(packet.pts for packet in packets if packet.pts is not None)
    if len(shown) == len(packets):
        lead = max(
            (time - packet.pts for time, packet in zip(shown, packets, strict=True) if packet.pts is not None),
            default=0,
        )
        for time, packet in zip(shown, packets, strict=True):
            packet.dts = time - lead


class _Pipe:
    """Hides that a stream might seek: what is written to it goes on at once."""

    def __init__(self, stream: BinaryIO) -> None:
        self.write = stream.write


def result_suffix(reader: VideoReader, codec: str | None, lossless: bool) -> str:
    """The file ending for what becomes of a video: its own, where that container holds the codec and the sound."""
    size, own = (reader.width, reader.height), reader.path.suffix
    video = av.Codec(encoder_name(codec, size, reader.depth, lossless, own), "w").canonical_name
    return default_suffix(own, video, reader.copied_codecs, lambda suffix: not unfit_streams(reader, suffix))


def _lost(like: VideoReader, choice: Choice) -> list[str]:
    """What the pictures of a video lose in an encoding, in words."""
    lost = ["transparency"] if like.loses_alpha else []
    bits = depth_of(VideoFormat(choice.pixel_format, 16, 16))
    if bits < like.depth:
        lost.append(f"{like.depth - bits} of {like.depth} bits ({choice.name} stores {bits})")
    if like.hdr != StaticHDR() and choice.name not in HDR_ENCODERS:
        lost.append(f"HDR10's brightness of the display ({choice.name} does not store it)")
    return lost


def _output_tags(like: VideoReader | None, choice: Choice, width: int, height: int) -> ColorTags:
    """The source's tags, but for what the format itself settles."""
    tags = like.tags if like else ColorTags(BT709, BT709, BT709, LIMITED)
    if choice.codec == "prores":  # has no full range
        tags = replace(tags, range=LIMITED)
    if VideoFormat(choice.pixel_format, 16, 16).is_rgb:
        return ColorTags(tags.primaries, tags.transfer, RGB_MATRIX, FULL)
    if like is not None and like.rgb:
        return ColorTags(tags.primaries, tags.transfer, used_matrix(ColorTags(), width, height), LIMITED)
    return tags
