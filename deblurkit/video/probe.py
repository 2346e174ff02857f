"""What a file is by its first bytes, and whether its end is missing; nothing here decodes."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Literal

from deblurkit.errors import DataError, VideoError

#: Bytes at the beginning of a file that tell what it is; an animated PNG says so before its first pixels.
_HEAD = 1 << 16

#: Brands of the ISO format that are pictures (MIAF, AVIF, HEIF); libav would give their tiles as frames.
_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")

_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def read_head(path: Path) -> bytes:
    """The first bytes of a file.

    Raises:
        DataError: it is missing, empty or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        raise DataError(f"{path}: does not exist") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not head:
        raise DataError(f"{path}: is empty (0 bytes)")
    return head


def kind_of(head: bytes) -> Literal["picture", "other"]:
    """A still picture by its signature, whatever the file is called; anything else may be a video."""
    if head.startswith(b"\x89PNG") and b"acTL" in head.partition(b"IDAT")[0]:
        return "other"
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    brand = head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS
    return "picture" if webp or brand or head.startswith(_PICTURES) else "other"


def check_whole(path: Path) -> None:
    """Raise VideoError where an MP4/MOV, Matroska/WebM or AVI file says that it is longer than it is."""
    length = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
            end = _end_of_boxes(file, length)
        elif head.startswith(b"\x1a\x45\xdf\xa3"):
            end = _end_of_segment(head)
        elif head.startswith(b"RIFF"):
            end = 8 + int.from_bytes(head[4:8], "little")
        else:
            return
    if end > length:
        raise VideoError(f"{path}: is cut off: {end - length:,} of {end:,} bytes are missing; copy it again")


def _end_of_boxes(file: BinaryIO, length: int) -> int:
    """Where the last top-level box of an ISO media file ends by its own account."""
    position = 0
    while position < length:
        file.seek(position)
        header = file.read(16)
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        if size < 8:  # 0: to the end of the file
            return length
        position += size
    return position


def _end_of_segment(head: bytes) -> int:
    """Where the segment of a Matroska file ends by its own account; 0 where it does not say (live recordings)."""

    def number(at: int) -> tuple[int, int]:
        width = 9 - head[at].bit_length() if at < len(head) else 9
        value = int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1)
        return value, at + width

    size, at = number(4)
    at += size
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return 0
    size, at = number(at + 4)
    unknown = size & (size + 1) == 0  # all ones
    return 0 if unknown else at + size
