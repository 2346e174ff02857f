"""The size of a picture file, without decoding it where its format allows that."""

from __future__ import annotations

from pathlib import Path

from deblurkit.data.png import png_header
from deblurkit.errors import DataError
from deblurkit.image_io import decode_image
from deblurkit.picture_tags import is_frame, orientation


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture as it is to be seen; see `encoded_size`.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        data = path.read_bytes()  # the whole: a PNG may say behind its pixels how it is to be turned
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    return encoded_size(data, str(path))


def encoded_size(data: bytes, name: str) -> tuple[int, int]:
    """Height and width of the bytes of a picture file, as it is to be seen: EXIF rotation is applied.

    Of PNG and JPEG the header is read; others are decoded.

    Args:
        name: for messages.

    Raises:
        DataError: the bytes are damaged or not a picture.
    """
    header = png_header(data)
    stored = (header.height, header.width) if header else jpeg_size(data)
    if stored is None:
        height, width = decode_image(data, name).shape[:2]
        return height, width
    return (stored[1], stored[0]) if orientation(data) >= 5 else stored


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width from a JPEG's header, as the pixels lie in the file; None: there is none to be found."""
    if not data.startswith(b"\xff\xd8"):
        return None
    at = 2
    while data[at : at + 1] == b"\xff" and at + 9 <= len(data):
        marker = data[at + 1]
        if is_frame(marker):
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
