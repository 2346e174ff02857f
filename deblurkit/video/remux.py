"""Copying audio and subtitles from the source into the result, packet by packet, without decoding."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import av.error

from deblurkit.errors import VideoError

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Disposition, Stream

    from deblurkit.video.reader import VideoReader


def copied_streams(container: InputContainer) -> list[Stream]:
    """The streams that travel with the picture: audio and subtitles of a known codec."""
    return [s for s in container.streams if s.type in ("audio", "subtitle") and s.codec_context is not None]


def left_out(reader: VideoReader) -> list[str]:
    """The streams that do not travel, in words: further videos, cover pictures, data tracks."""
    with reader.open() as container:
        travelling = [reader.stream_of(container), *copied_streams(container)]
        others = [s for s in container.streams if s not in travelling]
        return [f"{s.type} track {s.index}" + _called(s.metadata.get("handler_name", "")) for s in others]


def _called(name: str) -> str:
    name = "".join(c for c in name if c.isprintable()).strip()
    return f" ({name})" if name else ""


class StreamCopier:
    """Moves packets from a second pass over the source, in step with the video, so that only one waits in memory.

    Args:
        name: of the source, for messages. container: the source, opened for this alone.
        output: where the streams are added. shift: seconds to add.
    """

    def __init__(self, name: str, container: InputContainer, output: OutputContainer, shift: Fraction) -> None:
        self._name, self._output, self._shift = name, output, shift
        sources = copied_streams(container)
        self._targets: dict[int, Stream] = {}
        for source in sources:
            target = output.add_stream_from_template(source)
            target.metadata.update({k: v for k, v in source.metadata.items() if not is_written_anew(k)})
            target.disposition = cast("Disposition", source.disposition.value)  # av 17 takes the number only
            self._targets[source.index] = target
        self._packets: Iterator[Packet] = container.demux(sources) if sources else iter(())
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
