"""Pixels of those TIFF files that OpenCV reads wrongly or not whole: transparent ones, planes apart, odd bit depths.

OpenCV drops the alpha of grey pictures (and their lower 8 bits), multiplies colours by alpha, mixes up samples that
lie in planes, gives white of 12 bits as 65,520, and passes over "white is zero" at 16 bits. (TIFF 6.0; alpha: page 31.)
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from deblurkit.errors import DataError
from deblurkit.image_io import Pixels, Planes, cv2, turned
from deblurkit.tiff import LONG, Directory, first_directory, pack_directory, pages, shorts

_NONE, _LZW, _DEFLATE, _DEFLATE_OLD, _PACKBITS = 1, 5, 8, 32946, 32773
_COMPRESSIONS = (_NONE, _LZW, _DEFLATE, _DEFLATE_OLD, _PACKBITS)
_FAX_AND_JPEG = (2, 3, 4, 7)  # which OpenCV unpacks too; of others it may make a black picture
_MOST_SAMPLES = 1 << 32  # OpenCV takes 2**30 pixels
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK = 0, 1, 2, 3, 5
_MULTIPLIED, _PLAIN = 1, 2
_REDUCED = 1  # a page that is a small copy of another one


class _Layout:
    """How the pixels of a directory are stored."""

    def __init__(self, directory: Directory) -> None:
        def one(tag: int, default: int) -> int:
            return (directory.numbers(tag, default) or (default,))[0]

        self.width, self.height = one(256, 0), one(257, 0)
        self.samples = one(277, 1)
        self.bits = one(258, 1)
        self.one_depth = len(set(directory.numbers(258, 1))) == 1
        self.formats = set(directory.numbers(339, 1))
        self.compression, self.photometric, self.fill_order = one(259, _NONE), one(262, _BLACK_IS_ZERO), one(266, 1)
        self.apart = one(284, 1) == 2 and self.samples > 1
        self.predicted = one(317, 1) == 2
        self.orientation = one(274, 1)
        self.tiled = 322 in directory.entries
        self.part_width = one(322, 0) if self.tiled else self.width
        self.part_height = one(323, 0) if self.tiled else min(one(278, self.height), self.height)
        self.offsets = directory.numbers(324 if self.tiled else 273)
        self.lengths = directory.numbers(325 if self.tiled else 279)
        self.extra = directory.numbers(338)
        self.colours = {_RGB: 3, _CMYK: 4}.get(self.photometric, 1)

    @property
    def more(self) -> int:
        """Samples beside the colours."""
        return self.samples - self.colours

    @property
    def alpha(self) -> int | None:
        """Which sample is alpha, counted behind the colours. Many programs leave out what kind the only one is of."""
        known = [number for number, kind in enumerate(self.extra[: self.more]) if kind in (_MULTIPLIED, _PLAIN)]
        return known[0] if known else 0 if self.more == 1 else None

    @property
    def known(self) -> bool:
        """What can be read here."""
        return self.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) and self.compression in _COMPRESSIONS

    @property
    def read_well(self) -> bool:
        """OpenCV gives these pixels as they are."""
        plain = self.bits == 1 or self.bits == 8 or (self.bits == 16 and self.photometric != _WHITE_IS_ZERO)
        return plain and not self.more and not self.apart


def decode_tiff(data: bytes, name: str) -> Planes | None:
    """Decode a TIFF that OpenCV does not read well; None: it does, or can say itself that it cannot read it.

    Args:
        data: the file. name: for messages.

    Raises:
        DataError: the pixels are of a kind that is not supported, or the file is damaged.
    """
    directory = first_directory(data)
    if directory is None:
        return None
    layout = _Layout(directory)
    if layout.formats - {1, 4}:  # 4: not said
        kind = "floating point" if 3 in layout.formats else "signed"
        raise DataError(f"{name}: has {kind} pixels of {layout.bits} bits; whole numbers of 8 or 16 bits are supported")
    if not 1 <= layout.bits <= 16 or not layout.one_depth:
        raise DataError(f"{name}: has {layout.bits} bits a channel; 8 and 16 bits are supported")
    if layout.compression not in (*_COMPRESSIONS, *_FAX_AND_JPEG):
        raise DataError(f"{name}: is packed in a way that is not supported (compression {layout.compression}); use LZW")
    if any(at + length > len(data) for at, length in zip(layout.offsets, layout.lengths, strict=False)):
        raise DataError(f"{name}: is cut off ({len(data)} bytes, parts of the picture are missing); copy it again")
    if layout.read_well or not layout.known:
        return None
    sides = (layout.width, layout.height, layout.part_width, layout.part_height)
    most = layout.width * layout.height * layout.samples
    if min(sides) < 1 or most > _MOST_SAMPLES or layout.more < 0:
        raise DataError(f"{name}: is damaged (its size cannot be true); copy it again")
    samples = _to_depth(_samples(data, layout, name), layout.bits)
    white = np.iinfo(samples.dtype).max
    colours = samples[..., : layout.colours]
    if layout.photometric == _WHITE_IS_ZERO:
        colours = white - colours
    alpha = None
    if layout.alpha is not None:
        alpha = np.ascontiguousarray(samples[..., layout.colours + layout.alpha])
        if layout.extra[layout.alpha : layout.alpha + 1] == (_MULTIPLIED,):
            plain = np.rint(colours * (white / np.maximum(alpha, 1)[..., None].astype(np.float64)))
            colours = np.minimum(plain, white).astype(samples.dtype)
    rgb = np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))
    return Planes(turned(rgb, layout.orientation), None if alpha is None else turned(alpha, layout.orientation))


def facts(data: bytes) -> tuple[bool, tuple[str, ...]]:
    """Whether a TIFF is grey, and what of it is not kept."""
    directory = first_directory(data)
    if directory is None:
        return False, ()
    layout = _Layout(directory)
    notes = []
    if any(not page.numbers(254, 0)[0] & _REDUCED for page in pages(directory)):
        notes.append("holds several pictures; the first is restored")
    kept = layout.known and layout.alpha is not None
    if layout.more > kept:
        notes.append("has transparency or channels beside its colours that are not kept")
    if layout.photometric == _CMYK:
        notes.append("is CMYK; the result is RGB, converted without its colour profile")
    return layout.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO), tuple(notes)


def _to_depth(samples: Pixels, bits: int) -> Pixels:
    """Samples of any depth as ones of 8 or 16 bits, white staying white."""
    if bits in (8, 16):
        return samples
    top = (1 << bits) - 1
    white, dtype = (255, np.uint8) if bits < 8 else (65535, np.uint16)
    return ((samples.astype(np.int64) * white + top // 2) // top).astype(dtype)


def _samples(data: bytes, layout: _Layout, name: str) -> Pixels:
    """All samples, `(H, W, samples)`, as whole numbers of their depth."""
    planes, channels = (layout.samples, 1) if layout.apart else (1, layout.samples)
    across, down = -(-layout.width // layout.part_width), -(-layout.height // layout.part_height)
    if len(layout.offsets) < planes * across * down or len(layout.lengths) < len(layout.offsets):
        raise DataError(f"{name}: is damaged (parts of the picture are missing); copy it again")
    found = np.empty((layout.height, layout.width, layout.samples), np.uint8 if layout.bits <= 8 else np.uint16)
    parts = zip(layout.offsets, layout.lengths, _places(planes, across, down), strict=False)
    for offset, length, (plane, row, column) in parts:
        y, x = row * layout.part_height, column * layout.part_width
        rows = layout.part_height if layout.tiled else min(layout.part_height, layout.height - y)
        row_bytes = -(-layout.part_width * channels * layout.bits // 8)
        packed = data[offset : offset + length]
        try:
            content = _unpacked(packed, layout, rows, row_bytes)
        except zlib.error as error:
            raise DataError(f"{name}: is damaged ({error}); copy it again") from None
        if len(content) < rows * row_bytes:
            raise DataError(f"{name}: is damaged or cut off (a part at byte {offset} is too short); copy it again")
        lines = np.frombuffer(content, np.uint8, rows * row_bytes).reshape(rows, row_bytes)
        order = "<u2" if data[:2] == b"II" else ">u2"
        part = _numbers(lines, layout.part_width * channels, layout.bits, order).reshape(rows, -1, channels)
        if layout.predicted:
            part = np.cumsum(part, axis=1, dtype=part.dtype)
        target = found[y : y + rows, x : x + layout.part_width, plane : plane + channels]
        target[...] = part[: target.shape[0], : target.shape[1]]
    return found


def _places(planes: int, across: int, down: int) -> Iterator[tuple[int, int, int]]:
    return ((plane, row, column) for plane in range(planes) for row in range(down) for column in range(across))


def _numbers(lines: Pixels, count: int, bits: int, order: str) -> Pixels:
    """The first `count` numbers of `bits` bits in every line of bytes."""
    if bits == 8:
        return lines[:, :count]
    if bits == 16:
        return lines[:, : 2 * count].view(order).astype(np.uint16)
    flat = np.unpackbits(lines, axis=1)[:, : count * bits].reshape(len(lines), count, bits)
    return flat @ (1 << np.arange(bits)[::-1]).astype(np.uint16)


def _unpacked(packed: bytes, layout: _Layout, rows: int, row_bytes: int) -> bytes:
    if layout.fill_order == 2:
        packed = np.packbits(np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")).tobytes()
    if layout.compression == _NONE:
        return packed
    if layout.compression in (_DEFLATE, _DEFLATE_OLD):
        return zlib.decompressobj().decompress(packed, rows * row_bytes)
    # OpenCV's libtiff unpacks the rest: as a grey picture of one strip, in which each byte is a pixel
    start = 8 + len(packed) + len(packed) % 2
    single = {256: row_bytes, 257: rows, 273: 8, 278: rows, 279: len(packed)}
    values = {
        **{tag: (LONG, struct.pack("<I", number)) for tag, number in single.items()},
        **{tag: shorts(number) for tag, number in ((258, 8), (259, layout.compression), (262, 1), (277, 1))},
    }
    data = struct.pack("<2sHI", b"II", 42, start) + packed.ljust(start - 8, b"\x00") + pack_directory(values, start)
    try:
        found = cv2().imdecode(np.frombuffer(data, np.uint8), cv2().IMREAD_UNCHANGED)
    except cv2().error:  # more bytes than OpenCV takes for pixels: the size is damaged
        return b""
    return b"" if found is None or found.shape != (rows, row_bytes) else bytes(found.tobytes())
