"""Frames cut into square tiles, plain or packed without loss, so that a crop costs only the tiles that it touches.

A frame is cut from its upper left corner, row by row; tiles at the right and lower border are smaller.

- Plain (`pack_raw`): the tiles' pixels, row-major and little-endian, one tile after the other.
- Packed (`pack_lossless`): a table with, for every tile, the byte at which it ends (counted from the table's end) and
  its CRC-32, both little-endian uint32; then the tiles. Pixels of 8 bits are lossless WebP at its fastest setting,
  those of 16 bits PNG. Red and blue are swapped in both, so that what OpenCV decodes (BGR) is RGB as it stands.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from deblurkit.data.png import png_header
from deblurkit.errors import DataError
from deblurkit.image_io import Pixels, cv2

if TYPE_CHECKING:
    from deblurkit.data.store import Window

#: Side of a packed tile in pixels, if not said otherwise: a crop of 256x256 then decodes 2.3 times its pixels.
TILE = 128
_PNG_LEVEL = 1
_TABLE_ENTRY = 8  # bytes


class Tile(NamedTuple):
    """Where a tile lies in its frame, in pixels, and its number in the order of storage."""

    number: int
    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True)
class TileGrid:
    """The tiles of a frame of `height` x `width` pixels; `side` is that of a whole tile."""

    height: int
    width: int
    side: int

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width // self.side)

    def __len__(self) -> int:
        return self.columns * -(-self.height // self.side)

    def touched(self, window: Window) -> Iterator[Tile]:
        """The tiles that a window, which lies within the frame, touches, in the order of storage."""
        top, left, height, width = window
        side = self.side
        for row in range(top // side, -(-(top + height) // side)):
            for column in range(left // side, -(-(left + width) // side)):
                y, x = row * side, column * side
                yield Tile(row * self.columns + column, y, x, min(side, self.height - y), min(side, self.width - x))

    def __iter__(self) -> Iterator[Tile]:
        return self.touched((0, 0, self.height, self.width))


def pack_raw(pixels: Pixels, side: int) -> bytes:
    """Plain tiles of a frame `(h, w, 3)`."""
    ordered = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    return b"".join(
        ordered[t.y : t.y + t.height, t.x : t.x + t.width].tobytes() for t in TileGrid(*_size(pixels), side)
    )


def read_raw(data: memoryview, grid: TileGrid, dtype: np.dtype[Any], window: Window) -> Pixels:
    """A window of a frame of plain tiles, as an array of its own. `data` has the length of the frame's pixels."""
    stored = np.frombuffer(data, dtype)

    def tiles() -> Iterator[tuple[Tile, Pixels]]:
        for tile in grid.touched(window):
            first = 3 * (tile.y * grid.width + tile.x * tile.height)
            part = stored[first : first + 3 * tile.height * tile.width]
            yield tile, part.reshape(tile.height, tile.width, 3)

    return _assemble(tiles(), dtype.newbyteorder("="), window)


def pack_lossless(pixels: Pixels, side: int) -> bytes:
    """Packed tiles of a frame `(h, w, 3)`, uint8 or uint16."""
    pack = _pack_8_bits if pixels.dtype == np.uint8 else _pack_16_bits
    tiles = [pack(pixels[t.y : t.y + t.height, t.x : t.x + t.width]) for t in TileGrid(*_size(pixels), side)]
    ends = np.cumsum([len(tile) for tile in tiles])
    table = np.stack([ends, [zlib.crc32(tile) for tile in tiles]], 1).astype("<u4")
    return b"".join([table.tobytes(), *tiles])


def pick_tiles(data: memoryview, grid: TileGrid, window: Window, place: str) -> list[tuple[Tile, bytes]]:
    """Copies of the packed tiles that a window touches; no other bytes are read.

    Args:
        data: the frame's packed tiles. place: for messages.

    Raises:
        DataError: the table does not fit the data.
    """
    head = _TABLE_ENTRY * len(grid)
    if len(data) < head:
        raise DataError(f"{place}: is damaged ({len(data)} bytes, its table alone has {head}); make the LMDB again")
    table = np.frombuffer(data[:head], "<u4").reshape(-1, 2)
    found = []
    for tile in grid.touched(window):
        first = int(table[tile.number - 1, 0]) if tile.number else 0
        end, expected = table[tile.number].tolist()
        packed = bytes(data[head + first : head + end])
        if zlib.crc32(packed) != expected or len(packed) != end - first:
            raise DataError(f"{place}: its tile {tile.number} is damaged (wrong checksum); make the LMDB again")
        found.append((tile, packed))
    return found


def unpack_tiles(tiles: Iterable[tuple[Tile, bytes]], dtype: np.dtype[Any], window: Window, place: str) -> Pixels:
    """A window of a frame, decoded from what `pick_tiles` gave.

    Raises:
        DataError: a tile is not the picture that it should be.
    """
    return _assemble(((tile, _decode(tile, packed, dtype, place)) for tile, packed in tiles), dtype, window)


def _assemble(tiles: Iterable[tuple[Tile, Pixels]], dtype: np.dtype[Any], window: Window) -> Pixels:
    top, left, height, width = window
    found = np.empty((height, width, 3), dtype)
    for tile, pixels in tiles:
        y, x = max(tile.y, top), max(tile.x, left)
        bottom, right = min(tile.y + tile.height, top + height), min(tile.x + tile.width, left + width)
        part = pixels[y - tile.y : bottom - tile.y, x - tile.x : right - tile.x]
        found[y - top : bottom - top, x - left : right - left] = part
    return found


def _size(pixels: Pixels) -> tuple[int, int]:
    return pixels.shape[0], pixels.shape[1]


def _pack_16_bits(pixels: Pixels) -> bytes:
    module = cv2()
    _, data = module.imencode(".png", np.ascontiguousarray(pixels), [module.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])
    return bytes(data)


_local = threading.local()


def _pack_8_bits(pixels: Pixels) -> bytes:
    """Lossless WebP. FFmpeg's encoder has a setting for speed, which OpenCV's (ten times slower) has not."""
    import av

    height, width = _size(pixels)
    encoders: dict[tuple[int, int], Any] = _local.__dict__.setdefault("encoders", {})
    if (height, width) not in encoders:
        try:
            encoder: Any = av.CodecContext.create("libwebp", "w")
        except ValueError:  # a PyAV that was built against an FFmpeg of the system
            raise DataError("codec tiled needs libwebp, which this PyAV lacks; install its wheel, or use raw") from None
        encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "bgra", Fraction(1)
        encoder.thread_count = 1  # the frames are shared out among threads already
        encoder.options = {"lossless": "1", "compression_level": "0"}
        encoders[height, width] = encoder
    opaque = np.full((height, width, 4), 255, np.uint8)
    opaque[..., :3] = pixels
    frame = av.VideoFrame.from_ndarray(opaque, format="bgra")
    frame.pts = 0
    (packet,) = encoders[height, width].encode(frame)
    return bytes(packet)


def _decode(tile: Tile, packed: bytes, dtype: np.dtype[Any], place: str) -> Pixels:
    # what the picture says of its size is looked at first: a decoder would believe it, and allocate that much
    if _picture_size(packed) == (tile.height, tile.width):
        module = cv2()
        pixels = module.imdecode(np.frombuffer(packed, np.uint8), module.IMREAD_COLOR | module.IMREAD_ANYDEPTH)
        if pixels is not None and pixels.shape == (tile.height, tile.width, 3) and pixels.dtype == dtype:
            return pixels
    raise DataError(
        f"{place}: its tile {tile.number} is no picture of {tile.width}x{tile.height} {dtype}; make the LMDB again"
    )


def _picture_size(packed: bytes) -> tuple[int, int] | None:
    """Height and width as a lossless WebP or a PNG states them in its header."""
    if packed[:4] == b"RIFF" and packed[8:16] == b"WEBPVP8L" and packed[20:21] == b"\x2f":
        sizes = int.from_bytes(packed[21:25], "little")  # width - 1 and height - 1, 14 bits each
        return (sizes >> 14 & 0x3FFF) + 1, (sizes & 0x3FFF) + 1
    header = png_header(packed)
    return (header.height, header.width) if header else None
