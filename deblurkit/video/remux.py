"""Copying the streams beside the picture from the source into the result, packet by packet, without decoding."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import av.error
from av.stream import Discard, Disposition

from deblurkit.errors import VideoError
from deblurkit.video.codecs import SILENT

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream

    from deblurkit.video.reader import VideoReader

#: Packets among which the first one of a stream is looked for.
_EARLY = 5000

QUICKTIME = (".mp4", ".m4v", ".mov", ".3gp", ".3g2")


def copied_streams(container: InputContainer) -> list[Stream]:
    """The streams that always travel with the picture: audio and subtitles of a known codec."""
    return [s for s in container.streams if s.type in ("audio", "subtitle") and s.codec_context is not None]


def other_streams(reader: VideoReader, suffix: str) -> tuple[list[int], list[str]]:
    """Cover pictures, data tracks, attachments and further videos: which of them a file with this ending can hold.

    libav does not tell for most of them, so each is tried: its header and its first packet go into a scratch file.

    Returns:
        indices of the streams that travel, and in words those that do not.
    """
    carried: list[int] = []
    left: list[str] = []
    with reader.open() as container:
        main = [reader.stream_of(container), *(copied_streams(container) if suffix not in SILENT else [])]
        for stream in container.streams:
            if stream in main or _is_made_anew(stream, container, suffix):
                continue
            if stream.type == "attachment" or (_is_cover(stream) and suffix == ".mkv"):
                fits = suffix == ".mkv"  # it stands in the header, of which there is none without a track
            else:
                fits = _fits(reader, stream.index, suffix)
            if fits:
                carried.append(stream.index)
            else:
                kind = "cover picture" if _is_cover(stream) else f"{stream.type} track"
                left.append(f"{kind} {stream.index}" + _called(stream.metadata.get("handler_name", "")))
    return carried, left


def _is_cover(stream: Stream) -> bool:
    return stream.type == "video" and bool(stream.disposition & Disposition.attached_pic)


def _is_made_anew(stream: Stream, container: InputContainer, suffix: str) -> bool:
    """The muxer writes chapters and the time code as tracks of their own, from what the writer tells it."""
    if stream.type != "data":
        return False
    chapters = stream.discard == Discard.all and bool(container.chapters())
    return chapters or ("timecode" in stream.metadata and suffix in QUICKTIME)


def unfit_streams(reader: VideoReader, suffix: str) -> list[str]:
    """Formats of the sound and subtitles that a file with this ending does not take, whatever libav says of them.

    (MP4 holds PCM sound, but not the one of an AVI, which does not say where its channels play.)
    """
    with reader.open() as container:
        streams = copied_streams(container) if suffix not in SILENT else []
        found = {s.index: s.codec_context.name for s in streams}
    return [name for index, name in found.items() if not _fits(reader, index, suffix)]


def _fits(reader: VideoReader, index: int, suffix: str) -> bool:
    """True where a file that holds nothing but the first packet of this stream can be written and read."""
    with tempfile.TemporaryDirectory() as folder, reader.open() as container:
        path = Path(folder) / f"trial{suffix}"
        try:
            source = container.streams[index]
            first = _first_packet(container, index)
            with av.open(f"file:{path}", "w") as output:
                target = add_copy(output, source, first, suffix)
                if first is None or target is None:
                    output.start_encoding()
                    return source.type in ("audio", "subtitle")
                first.stream = target
                output.mux_one(first)
            with av.open(f"file:{path}") as written:
                return len(written.streams) == 1
        except (av.error.FFmpegError, ValueError):
            return False


def _first_packet(container: InputContainer, index: int) -> Packet | None:
    """The first packet of a stream, if it comes early; a film is not read to its end for one."""
    packets = itertools.islice(container.demux(), _EARLY)
    return next((packet for packet in packets if packet.stream_index == index and packet.size), None)


def add_copy(output: OutputContainer, source: Stream, first: Packet | None, suffix: str) -> Stream | None:
    """Add a stream that holds a copy of `source`; None where its content is in the header and no packet follows.

    Args:
        first: its first packet: a cover picture becomes an attachment in Matroska.

    Raises:
        ValueError, FFmpegError: the container cannot hold it.
    """
    metadata = {k: v for k, v in source.metadata.items() if not is_written_anew(k)}
    if _is_cover(source) and suffix == ".mkv":
        codec = source.codec_context.name if source.codec_context else ""
        kind = {"mjpeg": "jpeg"}.get(codec, codec)
        name = metadata.get("filename") or f"cover.{kind.replace('jpeg', 'jpg')}"
        output.add_attachment(name, f"image/{kind}", bytes(first) if first is not None else b"")
        return None
    target = output.add_stream_from_template(source, opaque=True)
    target.metadata.update(metadata)
    target.disposition = cast("Disposition", source.disposition.value)  # av 17 takes the number only
    return None if source.type == "attachment" else target


def _called(name: str) -> str:
    name = "".join(c for c in name if c.isprintable()).strip()
    return f" ({name})" if name else ""


class StreamCopier:
    """Moves packets from a second pass over the source, in step with the video, so that only one waits in memory.

    Args:
        reader: the source. container: the source, opened for this alone. output: where the streams are added.
        others: indices of the streams that travel besides sound and subtitles. suffix: the ending of the result.
        shift: seconds to add.
    """

    def __init__(
        self,
        reader: VideoReader,
        container: InputContainer,
        output: OutputContainer,
        others: list[int],
        suffix: str,
        shift: Fraction,
    ) -> None:
        self._name, self._output, self._shift = str(reader.path), output, shift
        self._targets: dict[int, Stream] = {}
        sources = (copied_streams(container) if suffix not in SILENT else []) + [
            container.streams[index] for index in others
        ]
        for source in sorted(sources, key=lambda stream: stream.index):
            first = None
            if _is_cover(source):
                with reader.open() as again:
                    first = _first_packet(again, source.index)
            target = add_copy(output, source, first, suffix)
            if target is not None:
                self._targets[source.index] = target
        moving = [source for source in sources if source.index in self._targets]
        self._packets: Iterator[Packet] = container.demux(moving) if moving else iter(())
        self._waiting: Packet | None = None

    def copy_until(self, time: Fraction | None) -> None:
        """Copy every packet that belongs before `time` (seconds, before the shift); None: all that are left.

        Raises:
            VideoError: the source is damaged.
        """
        while True:
            packet = self._waiting or self._next()
            self._waiting = None
            if packet is None:
                return
            stamp = packet.dts if packet.dts is not None else packet.pts
            if time is not None and stamp is not None and stamp * packet.time_base > time:
                self._waiting = packet
                return
            ticks = round(self._shift / packet.time_base)
            if packet.pts is not None:
                packet.pts += ticks
            if packet.dts is not None:
                packet.dts += ticks
            packet.stream = self._targets[packet.stream_index]
            self._output.mux_one(packet)

    def _next(self) -> Packet | None:
        try:
            return next((packet for packet in self._packets if packet.size), None)
        except av.error.FFmpegError as error:
            raise VideoError(f"{self._name}: its sound or subtitles are damaged: {error.strerror or error}") from None


def is_written_anew(key: str) -> bool:
    """Metadata that describes the source's own encoding or container and that the muxer writes itself."""
    key = key.lower()
    own = ("encoder", "vendor_id", "duration", "major_brand", "minor_version", "compatible_brands", "number_of_frames")
    return key in own or key.startswith(("_statistics", "number_of_bytes", "bps"))
