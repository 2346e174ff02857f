"""What a picture file says beside its pixels: the colour profile (ICC), the camera's notes (EXIF) and XMP.

PNG (W3C PNG 3), JPEG (ITU-T T.81; ICC.1 annex B.4; XMP part 3), WebP (RFC 9649) and TIFF (6.0) are read and written.
Without its profile a Display P3 photo from a telephone would come out with dull colours.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from deblurkit.tiff import BYTE, UNDEFINED, Values, edited, extracted, first_directory

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_ICC = b"ICC_PROFILE\x00"
_EXIF = b"Exif\x00\x00"
_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_PNG_XMP = b"XML:com.adobe.xmp\x00"

#: Bytes that one JPEG segment holds.
_SEGMENT = 65535 - 2

#: What a PNG says of its colours; copied as it is from PNG to PNG.
_PNG_COLOURS = (b"cICP", b"sRGB", b"gAMA", b"cHRM", b"mDCV", b"cLLI")

_ORIENTATION = 0x0112
_TIFF_XMP, _TIFF_ICC = 700, 34675

#: Flags of WebP's VP8X.
_WEBP_ICC, _WEBP_ALPHA, _WEBP_EXIF, _WEBP_XMP = 0x20, 0x10, 0x08, 0x04


@dataclass(frozen=True)
class PictureTags:
    """What a picture carries beside its pixels.

    Attributes:
        icc: colour profile. exif: EXIF as a TIFF structure, without the rotation (which reading applies) and without
            the small picture (which shows the blurry one). xmp: XMP as XML, without the rotation. png_colours: whole
            chunks of a PNG.
    """

    icc: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""
    png_colours: bytes = b""

    def fitting(self, grey: bool) -> PictureTags:
        """Without the profile if it is one for other pixels than those that are written (CMYK, grey, RGB)."""
        space = b"GRAY" if grey else b"RGB "
        return self if not self.icc or self.icc[16:20] == space else replace(self, icc=b"")


def read_tags(data: bytes) -> PictureTags:
    """The tags of a picture file; empty for other formats than those above, and where they are damaged."""
    found = _stored_tags(data)
    xmp = re.sub(rb"""(tiff:Orientation(?:=["']|>))[2-8](?=["'<])""", rb"\g<1>1", found.xmp)
    return replace(found, exif=_upright(found.exif), xmp=xmp)


def orientation(data: bytes) -> int:
    """How the pixels of a PNG, JPEG or WebP file are to be turned: EXIF's number, 1 to 8; 1: not at all."""
    exif = first_directory(_stored_exif(data))
    number = exif.numbers(_ORIENTATION, 1)[0] if exif is not None else 1
    return number if 1 <= number <= 8 else 1


def _stored_exif(data: bytes) -> bytes:
    if data.startswith(PNG_SIGNATURE):
        return next((body for kind, body, _ in png_chunks(data) if kind == b"eXIf"), b"")
    if data.startswith(b"\xff\xd8\xff"):
        found = (body for marker, body in jpeg_segments(data) if marker == 0xE1 and body.startswith(_EXIF))
        return next(found, b"").removeprefix(_EXIF)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return dict(webp_chunks(data)).get(b"EXIF", b"").removeprefix(_EXIF)
    return extracted(data)


def _stored_tags(data: bytes) -> PictureTags:
    icc = xmp = colours = b""
    if data.startswith(PNG_SIGNATURE):
        for kind, body, whole in png_chunks(data):
            if kind == b"iCCP":
                icc = _inflated(body.partition(b"\x00")[2][1:])
            elif kind == b"iTXt" and body.startswith(_PNG_XMP):
                xmp = _international_text(body[len(_PNG_XMP) :])
            elif kind in _PNG_COLOURS:
                colours += whole
    elif data.startswith(b"\xff\xd8\xff"):
        parts = {}
        for marker, body in jpeg_segments(data):
            if marker == 0xE2 and body.startswith(_ICC) and len(body) > len(_ICC) + 2:
                parts[body[len(_ICC)]] = body[len(_ICC) + 2 :]
            elif marker == 0xE1 and body.startswith(_XMP):
                xmp = xmp or body[len(_XMP) :]
        icc = b"".join(parts[number] for number in sorted(parts))
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        chunks = dict(webp_chunks(data))
        icc, xmp = chunks.get(b"ICCP", b""), chunks.get(b"XMP ", b"")
    elif (directory := first_directory(data)) is not None:
        icc, xmp = directory.raw(_TIFF_ICC), directory.raw(_TIFF_XMP)
    return PictureTags(icc, _stored_exif(data), xmp, colours)


def with_tags(data: bytes, tags: PictureTags) -> bytes:
    """A PNG, JPEG, WebP or TIFF file with tags put in; other formats as they are.

    What is too long for a JPEG (64 kB of EXIF or XMP) is left out.
    """
    if tags == PictureTags():
        return data
    if data.startswith(PNG_SIGNATURE):
        at = len(PNG_SIGNATURE) + 25  # the header comes first and is always of this length
        return data[:at] + _png_tags(tags) + data[at:]
    if data.startswith(b"\xff\xd8\xff"):
        at = 2
        if data[2:4] == b"\xff\xe0":  # JFIF wants to be first
            at += 2 + int.from_bytes(data[4:6], "big")
        return data[:at] + _jpeg_tags(tags) + data[at:]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_with(data, tags)
    if data[:4] == b"II*\x00":
        values: Values = {_TIFF_ICC: (UNDEFINED, tags.icc), _TIFF_XMP: (BYTE, tags.xmp)}
        return edited(data, {tag: value for tag, value in values.items() if value[1]}, tags.exif)
    return data


def _png_tags(tags: PictureTags) -> bytes:
    new = tags.png_colours
    if tags.icc:
        new += png_chunk(b"iCCP", b"ICC profile\x00\x00" + zlib.compress(tags.icc))
    if tags.exif:
        new += png_chunk(b"eXIf", tags.exif)
    if tags.xmp:
        new += png_chunk(b"iTXt", _PNG_XMP + bytes(4) + tags.xmp)  # not compressed, no language, no translation
    return new


def _jpeg_tags(tags: PictureTags) -> bytes:
    new = b""
    for mark, content in ((_EXIF, tags.exif), (_XMP, tags.xmp)):
        if 0 < len(content) <= _SEGMENT - len(mark):
            new += _jpeg_segment(0xE1, mark + content)
    length = _SEGMENT - len(_ICC) - 2
    pieces = [tags.icc[at : at + length] for at in range(0, len(tags.icc), length)]
    for number, piece in enumerate(pieces, 1):
        new += _jpeg_segment(0xE2, _ICC + bytes((number, len(pieces))) + piece)
    return new


def _webp_with(data: bytes, tags: PictureTags) -> bytes:
    """A WebP file in its extended form (RFC 9649, section 2.7)."""
    chunks = dict(webp_chunks(data))
    head = chunks.pop(b"VP8X", b"")
    if not head:
        lossless = chunks.get(b"VP8L", b"")
        # a lossy picture: three bytes of frame tag, three of start code; both forms have 14 bits for each side
        bits = int.from_bytes(lossless[1:5] if lossless else chunks[b"VP8 "][6:10], "little")
        if lossless:
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        else:
            width, height = bits & 0x3FFF, bits >> 16 & 0x3FFF
        alpha = _WEBP_ALPHA if lossless and bits >> 28 & 1 else 0
        head = bytes((alpha, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    new = {b"ICCP": tags.icc, b"EXIF": tags.exif, b"XMP ": tags.xmp}
    flags = {b"ICCP": _WEBP_ICC, b"EXIF": _WEBP_EXIF, b"XMP ": _WEBP_XMP}
    first = head[0] | sum(flags[kind] for kind, content in new.items() if content)
    ordered = {b"VP8X": bytes((first,)) + head[1:], b"ICCP": tags.icc, **chunks, b"EXIF": tags.exif, b"XMP ": tags.xmp}
    body = b"WEBP"
    for kind, content in ordered.items():
        if content:
            body += kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Chunks but for the pixels: kind, content, and the chunk whole."""
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind != b"IDAT":
            yield kind, data[at + 8 : end - 4], data[at:end]
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


def is_frame(marker: int) -> bool:
    """The segment of a JPEG that says how its pixels are stored: bits, height, width, channels."""
    return 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Chunks of a WebP file: kind and content."""
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG file, with length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _jpeg_segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _international_text(body: bytes) -> bytes:
    """The text of an iTXt chunk behind its keyword: two flags, a language and a translated keyword come first."""
    text = body[2:].partition(b"\x00")[2].partition(b"\x00")[2]
    return _inflated(text) if body[:1] == b"\x01" else text


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompress(data)
    except zlib.error:
        return b""  # as decoders do, which warn and go on without the profile


def _upright(exif: bytes) -> bytes:
    """EXIF whose picture is upright and that holds no thumbnail; empty where it is damaged."""
    directory = first_directory(exif)
    if directory is None:
        return b""
    patched = bytearray(exif)
    turn = directory.entries.get(_ORIENTATION)
    if turn is not None:
        struct.pack_into(directory.order + "H", patched, turn.at, 1)
    struct.pack_into(directory.order + "I", patched, directory.link, 0)  # a further directory is the thumbnail's
    return bytes(patched)
