"""Picture files made byte by byte, of kinds that OpenCV does not write."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

DEFLATE, LZW, PACKBITS = 8, 5, 32773


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def make_png(samples: Any, bits: int, colour_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of `(H, W, channels)` numbers of `bits` bits, with chunks before the pixels."""
    height, width, _ = samples.shape
    rows = b"".join(b"\0" + _packed(row, bits, ">") for row in samples)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def make_tiff(
    samples: Any,
    bits: int = 8,
    photometric: int = 2,
    extra: tuple[int, ...] = (),
    *,
    compression: int = 1,
    predictor: int = 1,
    apart: bool = False,
    tile: int = 0,
    strip: int = 3,
    order: str = "<",
    big: bool = False,
    more: dict[int, tuple[str, tuple[int, ...]]] | None = None,
) -> bytes:
    """A TIFF of `(H, W, channels)` numbers of `bits` bits.

    Args:
        extra: ExtraSamples. apart: each channel in a plane of its own. tile: side; 0: strips of `strip` lines.
        more: further tags, each with the form of its numbers for `struct`.
    """
    height, width, channels = samples.shape
    planes = [samples[..., c : c + 1] for c in range(channels)] if apart else [samples]
    parts = []
    for plane in planes:
        if tile:
            padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
            corners = [(y, x) for y in range(0, height, tile) for x in range(0, width, tile)]
            parts += [padded[y : y + tile, x : x + tile] for y, x in corners]
        else:
            parts += [plane[y : y + strip] for y in range(0, height, strip)]
    if predictor == 2:
        parts = [np.diff(part, axis=1, prepend=np.zeros_like(part[:, :1])) % (1 << bits) for part in parts]
    stored = [_compressed(b"".join(_packed(row, bits, order) for row in part), compression) for part in parts]
    head = 16 if big else 8
    offsets = [head + sum(map(len, stored[:number])) for number in range(len(stored))]
    where, lengths = (324, 325) if tile else (273, 279)
    tags: dict[int, tuple[str, tuple[int, ...]]] = {
        256: ("I", (width,)), 257: ("I", (height,)), 258: ("H", (bits,) * channels), 259: ("H", (compression,)),
        262: ("H", (photometric,)), 277: ("H", (channels,)), 284: ("H", (1 + apart,)), 317: ("H", (predictor,)),
        where: ("I", tuple(offsets)), lengths: ("I", tuple(map(len, stored))),
        **({322: ("H", (tile,)), 323: ("H", (tile,))} if tile else {278: ("H", (strip,))}),
        **({338: ("H", extra)} if extra else {}), **(more or {}),
    }  # fmt: skip
    word, inline = ("Q", 8) if big else ("I", 4)
    at = head + sum(map(len, stored))
    table, behind = struct.pack(order + ("Q" if big else "H"), len(tags)), b""
    end = at + len(table) + len(tags) * (4 + 2 * inline) + inline
    for tag, (form, numbers) in sorted(tags.items()):
        content = struct.pack(f"{order}{len(numbers)}{form}", *numbers)
        table += struct.pack(f"{order}HH{word}", tag, {"H": 3, "I": 4, "B": 1}[form], len(numbers))
        table += (
            content.ljust(inline, b"\0") if len(content) <= inline else struct.pack(order + word, end + len(behind))
        )
        behind += content if len(content) > inline else b""
    mark = b"II" if order == "<" else b"MM"
    header = struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HI", 42, at)
    return mark + header + b"".join(stored) + table + bytes(inline) + behind


def _packed(row: Any, bits: int, order: str) -> bytes:
    flat = np.asarray(row).reshape(-1, np.shape(row)[-1] * np.shape(row)[-2] if np.ndim(row) == 3 else np.size(row))
    if bits in (8, 16):
        return flat.astype(f"{order}u{bits // 8}").tobytes()
    digits = (flat[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(digits.astype(np.uint8).reshape(len(flat), -1), axis=1).tobytes()


def _compressed(content: bytes, compression: int) -> bytes:
    """Without any search for repetition: every byte as it is, in the form of the compression."""
    if compression == DEFLATE:
        return zlib.compress(content)
    if compression == PACKBITS:
        runs = [content[at : at + 128] for at in range(0, len(content), 128)]
        return b"".join(bytes((len(run) - 1,)) + run for run in runs)
    if compression == LZW:  # the table is cleared (256) before codes need more than 9 bits; 257 ends
        codes = [code for at in range(0, len(content), 200) for code in (256, *content[at : at + 200])]
        digits = (np.array([*codes, 257])[:, None] >> np.arange(9)[::-1]) & 1
        return np.packbits(digits.astype(np.uint8)).tobytes()
    return content


def exif(orientation: int, order: str = "<") -> bytes:
    """A directory with the rotation and a maker, and the link to a thumbnail's directory."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    rotation = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    maker = struct.pack(order + "HHI4s", 0x010F, 2, 4, b"me!\0")
    return mark + struct.pack(order + "IH", 8, 2) + maker + rotation + struct.pack(order + "I", 4711)
