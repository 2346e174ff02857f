"""What a picture file says beside its pixels: the colour profile (ICC) and the camera's notes (EXIF).

PNG (W3C PNG 3), JPEG (ITU-T T.81; ICC.1 annex B.4) and WebP are read; PNG and JPEG are written. Without its profile a
Display P3 photo from a telephone would come out with dull colours.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_ICC = b"ICC_PROFILE\x00"
_EXIF = b"Exif\x00\x00"

#: Bytes of a profile that one JPEG segment holds.
_SEGMENT = 65535 - 2 - len(_ICC) - 2

#: What a PNG says of its colours; copied as it is from PNG to PNG.
_PNG_COLOURS = (b"cICP", b"sRGB", b"gAMA", b"cHRM", b"mDCV", b"cLLI")

_ORIENTATION = 0x0112


@dataclass(frozen=True)
class PictureTags:
    """What a picture carries beside its pixels.

    Attributes:
        icc: colour profile. exif: EXIF as a TIFF structure, without the rotation (which reading applies) and without
            the small picture (which shows the blurry one). png_colours: whole chunks of a PNG.
    """

    icc: bytes = b""
    exif: bytes = b""
    png_colours: bytes = b""


def read_tags(data: bytes) -> PictureTags:
    """The tags of a picture file; empty for formats other than PNG, JPEG and WebP, and where they are damaged."""
    icc = exif = colours = b""
    if data.startswith(PNG_SIGNATURE):
        for kind, body, whole in png_chunks(data):
            if kind == b"iCCP":
                icc = _inflated(body.partition(b"\x00")[2][1:])
            elif kind == b"eXIf":
                exif = body
            elif kind in _PNG_COLOURS:
                colours += whole
    elif data.startswith(b"\xff\xd8\xff"):
        parts = {}
        for marker, body in jpeg_segments(data):
            if marker == 0xE2 and body.startswith(_ICC) and len(body) > len(_ICC) + 2:
                parts[body[len(_ICC)]] = body[len(_ICC) + 2 :]
            elif marker == 0xE1 and body.startswith(_EXIF):
                exif = exif or body[len(_EXIF) :]
        icc = b"".join(parts[number] for number in sorted(parts))
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        chunks = dict(webp_chunks(data))
        icc, exif = chunks.get(b"ICCP", b""), chunks.get(b"EXIF", b"").removeprefix(_EXIF)
    return PictureTags(icc, _upright(exif), colours)


def with_tags(data: bytes, tags: PictureTags) -> bytes:
    """A PNG or JPEG file with tags put in; other formats as they are."""
    if data.startswith(PNG_SIGNATURE):
        new = tags.png_colours
        if tags.icc:
            new += _png_chunk(b"iCCP", b"ICC profile\x00\x00" + zlib.compress(tags.icc))
        if tags.exif:
            new += _png_chunk(b"eXIf", tags.exif)
        at = len(PNG_SIGNATURE) + 25  # the header comes first and is always of this length
        return data[:at] + new + data[at:]
    if data.startswith(b"\xff\xd8\xff"):
        new = _jpeg_segment(0xE1, _EXIF + tags.exif) if 0 < len(tags.exif) <= 65535 - 8 else b""
        pieces = [tags.icc[at : at + _SEGMENT] for at in range(0, len(tags.icc), _SEGMENT)]
        for number, piece in enumerate(pieces, 1):
            new += _jpeg_segment(0xE2, _ICC + bytes((number, len(pieces))) + piece)
        at = 2
        if data[2:4] == b"\xff\xe0":  # JFIF wants to be first
            at += 2 + int.from_bytes(data[4:6], "big")
        return data[:at] + new + data[at:]
    return data


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Chunks before the pixels: kind, content, and the chunk whole."""
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data) and data[at + 4 : at + 8] != b"IDAT":
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : end - 4], data[at:end]
        at = end


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Segments before the pixels: marker and content."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xFF:  # padding before a marker
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], data[at + 4 : end]
        at = end


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Chunks of a WebP file: kind and content."""
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _jpeg_segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompress(data)
    except zlib.error:
        return b""  # as decoders do, which warn and go on without the profile


def tiff_entries(data: bytes) -> Iterator[tuple[int, int, str]]:
    """The first directory of a TIFF structure: tag, where its value lies, and the byte order for `struct`.

    The last one has tag -1: where the offset of the next directory lies. Nothing where it is damaged or no TIFF.
    """
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(bytes(data[:4]), "")
    try:
        (at,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, at)
        struct.unpack_from(order + "I", data, at + 2 + 12 * count)
    except struct.error:
        return
    if order:
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            yield struct.unpack_from(order + "H", data, entry)[0], entry + 8, order
        yield -1, at + 2 + 12 * count, order


def _upright(exif: bytes) -> bytes:
    """EXIF whose picture is upright and that holds no thumbnail; empty where it is damaged."""
    patched = bytearray(exif)
    whole = False
    for tag, at, order in tiff_entries(exif):
        if tag == _ORIENTATION:
            struct.pack_into(order + "H", patched, at, 1)
        elif tag == -1:
            struct.pack_into(order + "I", patched, at, 0)  # a further directory is the thumbnail's
            whole = True
    return bytes(patched) if whole else b""
