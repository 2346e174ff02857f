"""Where decoding can begin in the middle of a video; found from its packets, without decoding."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

#: libav's names for containers that say of every packet when it is shown and whether decoding can begin with it.
_FORMATS = ("mov", "matroska", "mpegts", "avi", "flv")


@dataclass(frozen=True)
class Entry:
    """A packet with which decoding can begin.

    Attributes:
        position: of its frame. pts, dts: when it is shown and decoded (the latter where the file says so).
        size: in bytes.
    """

    position: int
    pts: int
    dts: int | None
    size: int


class FrameIndex:
    """The frames of a video by their times, and where decoding can begin.

    It rests on one frame for each packet; `VideoReader` checks that at the place where it begins.

    Args:
        times: of the frames, ascending. entries: ascending.
    """

    def __init__(self, times: NDArray[np.int64], entries: Sequence[Entry]) -> None:
        self.times, self._entries = times, entries

    def entry(self, position: int) -> Entry | None:
        """The last entry at or before a frame; None: there is no such frame, or none but the beginning of the file."""
        if position >= len(self.times):
            return None
        number = bisect.bisect_right(self._entries, position, key=lambda entry: entry.position) - 1
        found = self._entries[number] if number >= 0 else None
        return found if found is not None and found.position > 0 else None

    @classmethod
    def of(cls, container: InputContainer, stream: VideoStream, first: int | None) -> FrameIndex | None:
        """Read through a file; None where its packets do not tell the order of its frames.

        Args:
            first: time of the first frame that a decoder gives.

        Raises:
            FFmpegError: the file is damaged.
        """
        if not any(name in _FORMATS for name in container.format.name.split(",")):
            return None
        shown: list[int] = []
        keys: list[tuple[int, int | None, int]] = []
        latest: int | None = None
        for number, packet in enumerate(packet for packet in container.demux(stream) if packet.size):
            if packet.pts is None or (number == 0 and not packet.is_keyframe):
                return None
            # a frame that is shown after this one but decoded before it: decoding cannot begin here
            if packet.is_keyframe and not packet.is_discard and (latest is None or packet.pts > latest):
                keys.append((packet.pts, packet.dts, packet.size))
            latest = packet.pts if latest is None else max(latest, packet.pts)
            if not packet.is_discard:
                shown.append(packet.pts)
        times = np.sort(np.array(shown, np.int64))
        if not len(times) or times[0] != first or (np.diff(times) == 0).any():
            return None
        positions = np.searchsorted(times, [pts for pts, _, _ in keys])
        return cls(times, [Entry(int(at), *key) for at, key in zip(positions, keys, strict=True)])


def packets_from(container: InputContainer, stream: VideoStream, entry: Entry) -> Iterator[Packet]:
    """The packets from an entry on; none where the container does not find it."""
    earliest = entry.pts if entry.dts is None else min(entry.pts, entry.dts)
    container.seek(earliest, stream=stream, backward=True)
    packets = container.demux(stream)
    first = next(_up_to(packets, entry), None)
    return iter(()) if first is None else itertools.chain([first], packets)


def _up_to(packets: Iterable[Packet], entry: Entry) -> Iterator[Packet]:
    """The packet of the entry, unless those that are decoded later begin before it comes."""
    for packet in packets:
        if packet.is_keyframe and (packet.pts, packet.size) == (entry.pts, entry.size):
            yield packet
            return
        if packet.dts is not None and entry.dts is not None and packet.dts > entry.dts:
            return
