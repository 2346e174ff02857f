"""Decoded video frames to RGB pixels and back, by the colour metadata that the video carries.

libav only changes the chroma sampling here, told explicitly where chroma samples lie: left to itself, PyAV reads H.264
as left-sited and writes it as centred, which moves colours by half a pixel. The matrix is our own, exact to rounding
for every depth and range: swscale's shifts full-range chroma by half a step on the way back and makes 10-bit white
65280 of 65535.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deblurkit.errors import VideoError
from deblurkit.image_io import Pixels, cv2
from deblurkit.strips import strips

if TYPE_CHECKING:
    from av import VideoFrame
    from av.filter import Graph
    from av.video.format import VideoFormat

# The code points of ITU-T H.273, as containers and libav use them.
BT709, UNSPECIFIED, BT601 = 1, 2, 6
RGB_MATRIX = 0
LIMITED, FULL = 1, 2

#: (Kr, Kb) by matrix code; others (YCgCo, ICtCp) are taken for what an untagged video would be.
_LUMA = {
    BT709: (0.2126, 0.0722),
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.470 BG
    BT601: (0.299, 0.114),
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
    10: (0.2627, 0.0593),
}

_DEPTHS = (8, 9, 10, 12, 14, 16)


@dataclass(frozen=True)
class ColorTags:
    """Colour metadata as code points of ITU-T H.273: what the file says, "unspecified" included.

    Attributes:
        primaries, transfer, matrix: 2 is unspecified. range: 1 limited, 2 full, 0 unspecified.
    """

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    range: int = 0


def frame_tags(frame: VideoFrame) -> ColorTags:
    """The tags of a decoded frame; the old `yuvj` formats are full range."""
    scope = FULL if frame.format.name.startswith("yuvj") else int(frame.color_range)
    return ColorTags(int(frame.color_primaries), int(frame.color_trc), int(frame.colorspace), scope)


def used_matrix(tags: ColorTags, width: int, height: int) -> int:
    """The matrix to convert with: the tagged one, else by size as players do: BT.709 for HD, BT.601 below."""
    if tags.matrix in _LUMA:
        return tags.matrix
    return BT709 if max(width, height) >= 1280 or min(width, height) > 576 else BT601


def depth_of(pixel_format: VideoFormat) -> int:
    """Bits per component."""
    return max(component.bits for component in pixel_format.components)


def has_full_chroma(source: VideoFormat) -> bool:
    """True for 4:4:4 and planar RGB, which video is graded in; not for 4:2:2, nor for what GIFs and screens are."""
    if len(source.components) < 3 or (source.is_rgb and not source.is_planar):
        return False
    return source.is_rgb or (source.chroma_width(16), source.chroma_height(16)) == (16, 16)


def has_alpha(source: VideoFormat) -> bool:
    """True for formats that can be transparent."""
    return source.has_palette or any(component.is_alpha for component in source.components)


def alpha_of(frame: VideoFrame) -> Pixels | None:
    """The transparency of a frame of 8-bit RGB, `(H, W)` uint8; None where it is opaque or of another format."""
    packed = frame.format.is_rgb and not frame.format.is_planar and depth_of(frame.format) == 8
    if not has_alpha(frame.format) or not (packed or frame.format.has_palette):
        return None
    alpha = frame.to_ndarray(format="rgba")[..., 3]
    unset = frame.format.has_palette and alpha.max() == 0  # palettes of old formats have none
    return None if unset or alpha.min() == 255 else np.ascontiguousarray(alpha)


#: Decoders of formats whose chroma samples lie between luma samples; in every other format they lie on the left ones.
#: (libav's filters do not look at what a frame says of it, and PyAV does not tell.)
_CENTRED = ("mjpeg", "mpeg1video")


class ToRGB:
    """Converts the decoded frames of one video; keeps libav's tables between frames.

    Args:
        decoder: name of the decoder that the frames come from.
    """

    def __init__(self, decoder: str = "") -> None:
        self._layout = _Layout("center" if decoder in _CENTRED else "left")

    def __call__(self, frame: VideoFrame) -> Pixels:
        """`(H, W, 3)` RGB: uint8, or uint16 (white is 65535) where the frame has more than 8 bits.

        Raises:
            VideoError: a pixel format without a conversion (floating point, Bayer).
        """
        depth, name = depth_of(frame.format), frame.format.name
        rgb = frame.format.is_rgb or frame.format.has_palette
        if depth > 16 or name.startswith(("bayer", "xyz")):
            raise VideoError(f"frames of pixel format {name} are not supported")
        if rgb and depth <= 8:
            return np.ascontiguousarray(self._layout(frame, "rgb24").to_ndarray())
        depth = next(known for known in _DEPTHS if known >= depth)
        planes = _planes(self._layout(frame, planar_format("gbrp" if rgb else "yuv444p", depth)), depth)
        if rgb:
            matrix = _gbr_to_rgb(depth)
        else:
            tags = frame_tags(frame)
            matrix = yuv_to_rgb(used_matrix(tags, frame.width, frame.height), tags.range == FULL, depth)
        return _apply(planes, matrix, 255 if depth == 8 else 65535)


class FromRGB:
    """Converts pixels to frames for one encoder.

    Args:
        pixel_format: what the encoder takes. tags: what the output is tagged with; `matrix` and `range` are converted
            to (limited where unspecified).
    """

    def __init__(self, pixel_format: str, tags: ColorTags) -> None:
        from av.video.format import VideoFormat

        self._layout = _Layout("left")
        self._name, self._tags = pixel_format, tags
        layout = VideoFormat(pixel_format, 16, 16)
        self._rgb = layout.is_rgb
        self._depth = next(known for known in _DEPTHS if known >= depth_of(layout))

    def __call__(self, pixels: Pixels) -> VideoFrame:
        """A frame for the encoder from `(H, W, 3)` RGB, uint8 or uint16."""
        from av import VideoFrame

        height, width = pixels.shape[:2]
        if self._rgb and self._depth == 8:
            eight = pixels if pixels.dtype == np.uint8 else _requantise(pixels, 8)
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(eight), format="rgb24")
        else:
            white = 255 if pixels.dtype == np.uint8 else 65535
            if self._rgb:
                to_rgb = _gbr_to_rgb(self._depth, white)
            else:
                code = used_matrix(self._tags, width, height)
                to_rgb = yuv_to_rgb(code, self._tags.range == FULL, self._depth, white)
            name = planar_format("gbrp" if self._rgb else "yuv444p", self._depth)
            frame = _frame(_apply_planar(pixels, _inverse(to_rgb), 2**self._depth - 1), width, height, name)
            if not self._rgb:
                frame.color_range = FULL if self._tags.range == FULL else LIMITED
        made = self._layout(frame, self._name)
        if not self._rgb:  # ProRes is tagged by its frames, not by the encoder's settings
            made.color_primaries, made.color_trc = self._tags.primaries, self._tags.transfer
            made.colorspace = self._tags.matrix
        return made


def planar_format(family: str, depth: int) -> str:
    """The name of the planar format of that depth: `yuv444p`, `gbrp10le`."""
    return family if depth == 8 else f"{family}{depth}le"


def yuv_to_rgb(code: int, full: bool, depth: int, white: int | None = None) -> NDArray[np.float64]:
    """The affine map `(3, 4)` from YUV code values to RGB in 0..`white` (255, or 65535 above 8 bits)."""
    kr, kb = _LUMA[code]
    kg = 1 - kr - kb
    if full:
        luma_zero, luma_span, chroma_span = 0.0, 2.0**depth - 1, 2.0**depth - 1
    else:
        step = 2.0 ** (depth - 8)
        luma_zero, luma_span, chroma_span = 16 * step, 219 * step, 224 * step
    linear = np.array(
        [
            [1, 0, 2 * (1 - kr)],
            [1, -2 * (1 - kb) * kb / kg, -2 * (1 - kr) * kr / kg],
            [1, 2 * (1 - kb), 0],
        ]
    ) / np.array([luma_span, chroma_span, chroma_span])
    offset = -linear @ np.array([luma_zero, 2.0 ** (depth - 1), 2.0 ** (depth - 1)])
    return np.hstack([linear, offset[:, None]]) * (white or (255 if depth == 8 else 65535))


def _gbr_to_rgb(depth: int, white: int = 65535) -> NDArray[np.float64]:
    scale = white / (2**depth - 1)
    return np.array([[0, 0, scale, 0], [scale, 0, 0, 0], [0, scale, 0, 0]])


def _inverse(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.inv(np.vstack([affine, [0, 0, 0, 1]]))[:3], np.float64)


def _apply(planes: list[NDArray[Any]], matrix: NDArray[np.float64], white: int) -> Pixels:
    """Three planes through an affine map to `(H, W, 3)`, rounded and clipped to 0..white."""
    height, width = planes[0].shape
    result = np.empty((height, width, 3), np.uint8 if white == 255 else np.uint16)
    all_rows = list(strips(height, width))
    mixed = _mix((cv2().merge([plane[rows] for plane in planes]) for rows in all_rows), matrix)
    for rows, values in zip(all_rows, mixed, strict=True):
        _quantise(values, white, result[rows])
    return result


def _apply_planar(pixels: Pixels, matrix: NDArray[np.float64], most: int) -> list[NDArray[Any]]:
    """`(H, W, 3)` through an affine map to three planes, rounded and clipped to 0..most."""
    height, width = pixels.shape[:2]
    planes = [np.empty((height, width), np.uint8 if most == 255 else np.uint16) for _ in range(3)]
    all_rows = list(strips(height, width))
    for rows, values in zip(all_rows, _mix((pixels[rows] for rows in all_rows), matrix), strict=True):
        quantised = np.empty(values.shape, planes[0].dtype)
        _quantise(values, most, quantised)
        cv2().split(quantised, [plane[rows] for plane in planes])
    return planes


def _mix(parts: Iterable[Pixels], matrix: NDArray[np.float64]) -> Iterator[NDArray[np.float32]]:
    """Strips of pixels through an affine map, nothing below 0; each result is overwritten by the next."""
    floats = mixed = np.empty(0, np.float32)
    for part in parts:
        if floats.shape != part.shape:
            floats, mixed = np.empty(part.shape, np.float32), np.empty(part.shape, np.float32)
        floats[...] = part
        # OpenCV's paths for integers err by up to 0.74 (8 bits) and 0.008 (16 bits)
        cv2().max(cv2().transform(floats, matrix, mixed), 0, mixed)
        yield mixed


def _quantise(values: NDArray[np.float32], most: int, into: NDArray[Any]) -> None:
    """Values from 0 on, which are overwritten, to the nearest integer up to `most`."""
    if most == 255:
        cv2().convertScaleAbs(values, into)
    else:
        into[...] = np.minimum(np.rint(values, out=values), most, out=values)


def _requantise(pixels: Pixels, depth: int) -> Pixels:
    return np.rint(pixels * ((2**depth - 1) / 65535)).astype(np.uint8)


def _planes(frame: VideoFrame, depth: int) -> list[NDArray[Any]]:
    dtype = np.dtype(np.uint8 if depth == 8 else "<u2")
    planes = []
    for plane in frame.planes[:3]:
        rows = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, plane.line_size // dtype.itemsize)
        planes.append(rows[:, : plane.width])
    return planes


def _frame(planes: list[NDArray[Any]], width: int, height: int, name: str) -> VideoFrame:
    from av import VideoFrame

    frame = VideoFrame(width, height, name)
    for target, plane in zip(frame.planes, planes, strict=True):
        rows = np.frombuffer(memoryview(target), plane.dtype).reshape(height, target.line_size // plane.dtype.itemsize)
        rows[:, :width] = plane
    return frame


class _Layout:
    """Changes the layout and the chroma sampling of frames; matrix and range stay as they are.

    Args:
        siting: where the samples of subsampled chroma lie, "left" or "center".
    """

    def __init__(self, siting: str) -> None:
        self._siting = siting
        self._key: tuple[object, ...] = ()

    def __call__(self, frame: VideoFrame, name: str) -> VideoFrame:
        from av.error import FFmpegError

        if frame.format.name == name:
            return frame
        full = frame.format.is_rgb or frame_tags(frame).range == FULL
        key = (frame.width, frame.height, frame.format.name, full, name)
        try:
            if key != self._key:
                self._graph, self._key = self._make(frame, name, "full" if full else "limited"), key
            frame.pts, stamp = 0, frame.pts
            self._graph.push(frame)
            result = self._graph.vpull()
            frame.pts = stamp
        except (FFmpegError, ValueError) as error:
            raise VideoError(f"frames of pixel format {frame.format.name} do not convert to {name}: {error}") from error
        return result

    def _make(self, frame: VideoFrame, name: str, scope: str) -> Graph:
        from fractions import Fraction

        from av.filter import Graph

        graph = Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
        )
        same = {"range": scope, "chroma_loc": self._siting, "color_matrix": "bt709"}  # of both sides: nothing changes
        sides = {f"{side}_{what}": value for side in ("in", "out") for what, value in same.items()}
        scale = graph.add("scale", flags="bicubic+accurate_rnd+full_chroma_int+full_chroma_inp", **sides)
        graph.link_nodes(source, scale, graph.add("format", name), graph.add("buffersink")).configure()
        return graph
