"""Animated GIFs: colours reduced to a palette for every frame, and what the source says of its repetition."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from av import VideoFrame
from av.filter import Graph

from deblurkit.image_io import Pixels

if TYPE_CHECKING:
    from deblurkit.video.reader import VideoReader


#: Index of what is transparent, in every frame: libav's encoder looks it up in the first palette and goes by it for all
#: frames, so that rows of another colour with this index would be left out.
_TRANSPARENT = 255


def to_palette(pixels: Pixels, alpha: Pixels | None = None) -> VideoFrame:
    """A frame of at most 255 colours of its own, dithered by error diffusion.

    Pictures that have no more colours are kept as they are.

    Args:
        pixels: `(H, W, 3)` RGB, uint8 or uint16. alpha: `(H, W)`; pixels below the middle become transparent.
    """
    if pixels.dtype != np.uint8:
        pixels = (pixels >> 8).astype(np.uint8)
    exact = _exact(pixels, alpha)
    if exact is not None:
        return exact
    if alpha is None:
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    else:
        frame = VideoFrame.from_ndarray(np.dstack([pixels, np.where(_is_seen(alpha), 255, 0)]).astype(np.uint8), "rgba")
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    split, sink = graph.add("split"), graph.add("buffersink")
    palette = graph.add("palettegen", stats_mode="single", reserve_transparent="1")  # as the last
    use = graph.add("paletteuse", new="1")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    frame.pts = 0
    graph.push(frame)
    graph.push(None)
    return graph.vpull()


def _is_seen(alpha: Pixels) -> Pixels:
    return np.asarray(alpha > np.iinfo(alpha.dtype).max // 2)


def _exact(pixels: Pixels, alpha: Pixels | None) -> VideoFrame | None:
    """The frame with a palette of exactly its colours, None where they are too many."""
    packed = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    if alpha is not None:
        packed[~_is_seen(alpha)] = -1  # sorts first
    if len(np.unique(packed.ravel()[::97])) > 256:  # true of all but drawings; spares the sorting
        return None
    colours, indices = np.unique(packed, return_inverse=True)
    clear = int(colours[0] < 0)
    colours = colours[clear:]
    if len(colours) > _TRANSPARENT:
        return None
    palette = np.zeros((256, 4), np.uint8)  # alpha, red, green, blue
    palette[:_TRANSPARENT, 0] = 255
    palette[: len(colours), 1:] = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], -1)
    # with `clear`, index 0 of all is that of the transparent ones, which becomes 255
    planes: Any = ((indices.reshape(packed.shape) - clear).astype(np.uint8), palette)  # typed for one array only
    return VideoFrame.from_ndarray(planes, format="pal8")


def gif_options(reader: VideoReader | None) -> dict[str, str]:
    """How often the result plays and how long its last frame stays: as in the source, if that is a GIF."""
    if reader is None or reader.path.suffix.lower() != ".gif":
        return {"loop": "0"}
    with reader.open() as container:
        durations = [packet.duration for packet in container.demux(reader.stream_of(container)) if packet.size]
    options = {"loop": str(_repetitions(reader.path))}
    if durations and durations[-1]:
        options["final_delay"] = str(durations[-1])
    return options


def _repetitions(path: Path) -> int:
    """The loop count of a GIF as libav counts it: 0 for ever, -1 once."""
    with path.open("rb") as file:
        head = file.read(4096)
    at = head.find(b"NETSCAPE2.0\x03\x01")
    return int.from_bytes(head[at + 13 : at + 15], "little") if at >= 0 else -1
