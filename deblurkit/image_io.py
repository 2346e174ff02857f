"""Pictures in and out of files and bytes: HWC RGB `uint8`, or `uint16` where the source has more than 8 bits."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deblurkit.errors import DataError
from deblurkit.files import atomic_path
from deblurkit.picture_tags import (
    PNG_SIGNATURE,
    is_frame,
    jpeg_segments,
    orientation,
    png_chunk,
    png_chunks,
    webp_chunks,
)
from deblurkit.tiff import edited, shorts

if TYPE_CHECKING:
    from collections.abc import Iterable

#: `(H, W, 3)` RGB, uint8 or uint16.
Pixels = NDArray[Any]

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

#: Those that can be transparent.
ALPHA_ENDINGS = (".png", ".tif", ".tiff", ".webp", ".bmp")

_PNG_LEVEL = 3
_EXTRA_SAMPLES, _PLAIN_ALPHA = 338, 2  # TIFF's tag, and its value for alpha that colours are not multiplied by


def cv2() -> Any:
    """The OpenCV module.

    Raises:
        DataError: it cannot be imported; for a missing libGL the message names the fix.
    """
    try:
        import cv2 as module
    except ImportError as error:
        if "libGL" in str(error) or "libgthread" in str(error):
            raise DataError(
                f"OpenCV cannot start: {error}. Install the system library (Debian, Ubuntu: `apt-get install libgl1 "
                "libglib2.0-0`), or swap the package: `pip uninstall opencv-python; pip install opencv-python-headless`"
            ) from error
        raise
    module.utils.logging.setLogLevel(module.utils.logging.LOG_LEVEL_SILENT)  # what is wrong is told in one line
    module.setNumThreads(0)  # the callers run in worker processes and thread pools of their own
    return module


def is_image(path: Path) -> bool:
    """True for a file name with a picture's ending that is not hidden."""
    return path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".")


def list_images(folder: Path) -> list[Path]:
    """The pictures that lie directly in a folder, sorted by name (digits count as numbers)."""
    return sorted((p for p in folder.iterdir() if is_image(p)), key=natural_key)


def natural_key(path: Path | str) -> tuple[Any, ...]:
    """Sort key for names: `2.png` before `10.png`."""
    import re

    name = path.name if isinstance(path, Path) else path
    parts = [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]
    return (*parts, (-1, name))  # the name again: `1.png` and `01.png` must not tie


def read_image(path: str | Path) -> Pixels:
    """Read a picture; grey becomes RGB, alpha is dropped, EXIF rotation is applied.

    Raises:
        DataError: the file is missing, truncated or not a picture.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    return decode_image(data, str(path))


class Planes(NamedTuple):
    """A decoded picture: `(H, W, 3)` RGB, and `(H, W)` alpha of the same dtype, None where there is none."""

    pixels: Pixels
    alpha: Pixels | None


def decode_image(data: bytes | memoryview, name: str) -> Pixels:
    """Decode the bytes of a picture file; `name` is for messages.

    Raises:
        DataError: the bytes are cut off or not a picture. (OpenCV alone would return a half-grey picture.)
    """
    return decode_planes(data, name, transparent=False).pixels


def decode_planes(data: bytes | memoryview, name: str, transparent: bool = True) -> Planes:
    """Decode the bytes of a picture file with its alpha; EXIF rotation is applied to both.

    Args:
        data: the file. name: for messages. transparent: False: alpha is not wanted.

    Raises:
        DataError: the bytes are cut off, not a picture, or have pixels that are not of 8 or 16 bits.
    """
    from deblurkit.tiff_pixels import decode_tiff

    data = bytes(data)
    check_whole(data, name)
    own = decode_tiff(data, name) if data[:2] in (b"II", b"MM") else None
    if own is not None:
        return own
    module = cv2()
    flags = module.IMREAD_COLOR | module.IMREAD_ANYDEPTH | module.IMREAD_IGNORE_ORIENTATION
    if transparent and _may_be_transparent(data):
        flags = module.IMREAD_UNCHANGED
    try:
        image = module.imdecode(np.frombuffer(data, dtype=np.uint8), flags) if data else None
    except module.error:  # a header that promises more pixels than OpenCV takes
        image = None
    if image is None:
        raise DataError(f"{name}: is not a picture that can be decoded{_reason(data)}")
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{name}: has {image.dtype} pixels; 8 and 16 bits are supported")
    channels = 1 if image.ndim == 2 else image.shape[2]
    to_rgb = {1: module.COLOR_GRAY2RGB, 3: module.COLOR_BGR2RGB, 4: module.COLOR_BGRA2RGB}[channels]
    alpha = np.ascontiguousarray(image[..., 3]) if channels == 4 else None
    pixels = module.cvtColor(image, to_rgb)
    if transparent and alpha is None:
        alpha = _marked_grey(data, pixels)
    turn = orientation(data)
    return Planes(turned(pixels, turn), None if alpha is None else turned(alpha, turn))


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels as they are to be seen, by EXIF's number (1 to 8) for how they lie in the file."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    down, right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if down else 1, :: -1 if right else 1])


def _may_be_transparent(data: bytes) -> bool:
    """By the header; of the formats that it cannot be seen of, AVIF may be."""
    if data.startswith(PNG_SIGNATURE):
        return data[25:26] in (b"\x04", b"\x06") or any(kind == b"tRNS" for kind, _, _ in png_chunks(data))
    if data[:4] == b"RIFF":
        return any(
            (kind == b"VP8X" and bool(body[:1]) and bool(body[0] & 0x10)) or kind == b"VP8L"
            for kind, body in webp_chunks(data)
        )
    if data.startswith(b"BM"):  # newer headers have a mask of the bits that are alpha
        return int.from_bytes(data[14:18], "little") >= 56 and any(data[66:70])
    return data[4:8] == b"ftyp"


def _marked_grey(data: bytes, pixels: Pixels) -> Pixels | None:
    """Alpha of a grey PNG with one value that is transparent, which OpenCV passes over."""
    if not data.startswith(PNG_SIGNATURE) or data[25:26] != b"\x00":
        return None
    marked = next((body for kind, body, _ in png_chunks(data) if kind == b"tRNS" and len(body) == 2), None)
    if marked is None:
        return None
    bits, white = data[24], np.iinfo(pixels.dtype).max
    value = int.from_bytes(marked, "big") & ((1 << bits) - 1)
    if bits < 8:
        value = value * 255 // ((1 << bits) - 1)
    return np.where(pixels[..., 0] == value, 0, white).astype(pixels.dtype)


def _reason(data: bytes) -> str:
    """Why a file that may be whole cannot be decoded; empty where that is not known."""
    if data[4:8] == b"ftyp":
        return "; this build of OpenCV has no AVIF or HEIC, convert it to PNG or JPEG"
    if data.startswith(b"\xff\xd8\xff"):
        bits = next((body[0] for marker, body in jpeg_segments(data) if is_frame(marker) and body), 8)
        return f"; it has {bits} bits a channel, JPEGs of 8 bits are supported" if bits != 8 else ""
    if data[:2] in (b"II", b"MM"):
        return "; if other programs show it, save it as a TIFF or PNG of RGB with 8 or 16 bits"
    return ""


def check_whole(data: bytes | memoryview, name: str) -> None:
    """Raise DataError for a PNG or JPEG whose end is missing; other formats pass."""
    data = bytes(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        whole = b"IEND\xaeB`\x82" in data[-4096:]
    elif data.startswith(b"\xff\xd8\xff"):
        whole = data.find(b"\xff\xd9", _jpeg_scan(data)) > 0
    else:
        return
    if not whole:
        raise DataError(f"{name}: is cut off ({len(data)} bytes, the end of the file is missing); copy it again")


def _jpeg_scan(data: bytes) -> int:
    """Where the picture of a JPEG file begins, after its headers (which may hold a small JPEG of their own).

    Within the picture the two bytes of the end marker occur nowhere else, and behind it cameras put what they like.
    """
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":
        if data[at + 1 : at + 2] == b"\xff":  # padding before a marker
            at += 1
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


def _planes(image: Pixels, alpha: Pixels | None, grey: bool, name: str) -> Pixels:
    """What is encoded: `(H, W)` grey, `(H, W, 2)` grey and alpha, `(H, W, 3)` BGR or `(H, W, 4)` BGRA.

    OpenCV's encoders would make something of other shapes and types too.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{name}: (H, W, 3) pixels of uint8 or uint16 are written, not {image.shape} of {image.dtype}")
    if alpha is not None and (alpha.shape != image.shape[:2] or alpha.dtype != image.dtype):
        raise DataError(f"{name}: alpha {alpha.shape} of {alpha.dtype} for pixels {image.shape} of {image.dtype}")
    if grey:
        luma = np.rint(image @ np.array([0.299, 0.587, 0.114])).astype(image.dtype)
        return luma if alpha is None else np.dstack([luma, alpha])
    bgr = cv2().cvtColor(image, cv2().COLOR_RGB2BGR)
    return np.asarray(bgr if alpha is None else np.dstack([bgr, alpha]))


def encode_png(image: Pixels, level: int = 3) -> bytes:
    """PNG bytes of `(H, W, 3)` RGB pixels; `level` 0 to 9 is zlib's. Raises DataError for other shapes and types."""
    return encode_image(image, ".png", _png_parameters(image.dtype, level), name="PNG")


def _png_parameters(dtype: Any, level: int) -> list[int]:
    """OpenCV's; 8-bit photos take half the time, and a little less room, when only runs are matched, at any level."""
    compression, strategy = cv2().IMWRITE_PNG_COMPRESSION, cv2().IMWRITE_PNG_STRATEGY
    if dtype == np.uint8 and level > 0:
        return [compression, 1, strategy, cv2().IMWRITE_PNG_STRATEGY_RLE]
    return [compression, level]


def encode_image(
    image: Pixels,
    ending: str,
    parameters: Iterable[int] = (),
    *,
    alpha: Pixels | None = None,
    grey: bool = False,
    name: str = "",
) -> bytes:
    """The bytes of a picture file.

    JPEG and WebP get quality 95; formats without 16 bits get the upper 8.

    Args:
        image: `(H, W, 3)` RGB, uint8 or uint16. ending: `.png`. parameters: OpenCV's, instead of the usual ones.
        alpha: `(H, W)` of the same dtype, for formats of `ALPHA_ENDINGS`. grey: store the luma (BT.601) only; three
            times where there is no grey (WebP), or none with alpha (BMP).
        name: for messages.

    Raises:
        DataError: the ending is not a picture format, or the pixels are not RGB of uint8 or uint16.
    """
    module, ending, name = cv2(), ending.lower(), name or ending
    if ending not in IMAGE_ENDINGS:
        raise DataError(f"{name}: pictures are written as {', '.join(IMAGE_ENDINGS)}")
    planes = _planes(image, alpha if ending in ALPHA_ENDINGS else None, grey, name)
    if planes.dtype == np.uint16 and ending not in (".png", ".tif", ".tiff"):
        planes = (planes >> 8).astype(np.uint8)
    usual = {
        ".png": _png_parameters(planes.dtype, _PNG_LEVEL),
        ".webp": [module.IMWRITE_WEBP_QUALITY, 95],
        ".jpg": [module.IMWRITE_JPEG_QUALITY, 95],
        ".jpeg": [module.IMWRITE_JPEG_QUALITY, 95],
    }
    if planes.shape[2:] == (2,):
        if ending == ".png":
            return _grey_alpha_png(planes)
        if ending in (".tif", ".tiff"):
            return _grey_alpha_tiff(planes)
        planes = planes[..., (0, 0, 0, 1)]
    done, encoded = module.imencode(ending, np.ascontiguousarray(planes), list(parameters) or usual.get(ending, []))
    if not done:
        raise DataError(f"{name}: encoding failed for pixels of shape {image.shape}, {image.dtype}")
    data = bytes(encoded.tobytes())
    if ending in (".tif", ".tiff") and planes.shape[2:] == (4,):
        return edited(data, {_EXTRA_SAMPLES: shorts(_PLAIN_ALPHA)})  # OpenCV does not say what the fourth sample is
    return data


def _grey_alpha_png(planes: Pixels) -> bytes:
    """PNG bytes of `(H, W, 2)` grey and alpha, which OpenCV does not write; each line as difference to the last."""
    height, width, _ = planes.shape
    lines = planes.astype(planes.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    filtered = np.full((height, lines.shape[1] + 1), 2, np.uint8)  # the filter "up" before each line
    filtered[:, 1:] = np.diff(lines, axis=0, prepend=np.zeros_like(lines[:1]))
    header = struct.pack(">IIBBBBB", width, height, 8 * planes.itemsize, 4, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), _PNG_LEVEL)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(png_chunk(kind, body) for kind, body in chunks)


def _grey_alpha_tiff(planes: Pixels) -> bytes:
    """TIFF bytes of `(H, W, 2)` grey and alpha: OpenCV writes a grey picture of twice the width, which is renamed."""
    module = cv2()
    wide = planes.reshape(planes.shape[0], -1)
    _, data = module.imencode(".tif", wide, [module.IMWRITE_TIFF_PREDICTOR, module.IMWRITE_TIFF_PREDICTOR_NONE])
    bits = 8 * planes.itemsize
    facts = {256: (planes.shape[1],), 258: (bits, bits), 277: (2,), 339: (1, 1), _EXTRA_SAMPLES: (_PLAIN_ALPHA,)}
    return edited(bytes(data.tobytes()), {tag: shorts(*numbers) for tag, numbers in facts.items()})


def write_image(path: str | Path, image: Pixels, parameters: Iterable[int] = ()) -> None:
    """Write `(H, W, 3)` RGB pixels atomically; the ending of `path` decides the format, as in `encode_image`.

    Raises:
        DataError: the ending is not a picture format, or the pixels are not RGB of uint8 or uint16.
        DeblurkitError: the file cannot be written.
    """
    path = Path(path)
    data = encode_image(image, path.suffix, parameters, name=str(path))
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
