"""The size of a picture file, without decoding it where its format allows that."""

from __future__ import annotations

from pathlib import Path

from deblurkit.data.png import HEADER_BYTES, png_header
from deblurkit.errors import DataError
from deblurkit.image_io import decode_image

#: Markers of JPEG that begin a picture's header: all "start of frame" but those for tables.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture as it is to be seen.

    Of PNG and of JPEG without EXIF data (which may ask to turn the picture) the header is read; others are decoded.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as file:
            data = file.read(HEADER_BYTES)
            header = png_header(data)
            if header:
                return header.height, header.width
            data += file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    height, width = jpeg_size(data) or decode_image(data, str(path)).shape[:2]
    return height, width


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width from a JPEG's header; None: there is none to be found, or EXIF data stands before it."""
    if not data.startswith(b"\xff\xd8"):
        return None
    at = 2
    while data[at : at + 1] == b"\xff" and at + 9 <= len(data):
        marker = data[at + 1]
        if marker in _JPEG_FRAMES:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        if marker == 0xE1 and data[at + 4 : at + 8] == b"Exif":
            return None
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
