"""Pictures in and out of files and bytes: HWC RGB `uint8`, or `uint16` where the source has more than 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deblurkit.errors import DataError
from deblurkit.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Iterable

#: `(H, W, 3)` RGB, uint8 or uint16.
Pixels = NDArray[Any]

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

#: Those that can be transparent.
ALPHA_ENDINGS = (".png", ".tif", ".tiff", ".webp")


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


def decode_image(data: bytes | memoryview, name: str) -> Pixels:
    """Decode the bytes of a picture file; `name` is for messages.

    Raises:
        DataError: the bytes are cut off or not a picture. (OpenCV alone would return a half-grey picture.)
    """
    check_whole(data, name)
    module = cv2()
    flags = module.IMREAD_COLOR | module.IMREAD_ANYDEPTH
    image = module.imdecode(np.frombuffer(data, dtype=np.uint8), flags) if len(data) else None
    if image is None:
        heif = data[4:8] == b"ftyp"
        raise DataError(
            f"{name}: is not a picture that can be decoded"
            + ("; this build of OpenCV has no AVIF or HEIC, convert it to PNG or JPEG" if heif else "")
        )
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{name}: has {image.dtype} pixels; 8 and 16 bits are supported")
    return np.ascontiguousarray(image[..., ::-1])


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
    """What OpenCV's encoders take; they would make something of other shapes and types too."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{name}: (H, W, 3) pixels of uint8 or uint16 are written, not {image.shape} of {image.dtype}")
    if alpha is not None:
        if alpha.shape != image.shape[:2] or alpha.dtype != image.dtype:
            raise DataError(f"{name}: alpha {alpha.shape} of {alpha.dtype} for pixels {image.shape} of {image.dtype}")
        return np.ascontiguousarray(np.dstack([image[..., ::-1], alpha]))
    if grey:
        return np.ascontiguousarray(np.rint(image @ np.array([0.299, 0.587, 0.114])).astype(image.dtype))
    return np.ascontiguousarray(image[..., ::-1])


def encode_png(image: Pixels, level: int = 3) -> bytes:
    """PNG bytes of `(H, W, 3)` RGB pixels; `level` 0 to 9 is zlib's. Raises DataError for other shapes and types."""
    return encode_image(image, ".png", [cv2().IMWRITE_PNG_COMPRESSION, level], name="PNG")


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
        alpha: `(H, W)` of the same dtype, for formats of `ALPHA_ENDINGS`. grey: store the luma (BT.601) only.
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
        ".png": [module.IMWRITE_PNG_COMPRESSION, 3],
        ".webp": [module.IMWRITE_WEBP_QUALITY, 95],
        ".jpg": [module.IMWRITE_JPEG_QUALITY, 95],
        ".jpeg": [module.IMWRITE_JPEG_QUALITY, 95],
    }
    done, encoded = module.imencode(ending, planes, list(parameters) or usual.get(ending, []))
    if not done:
        raise DataError(f"{name}: encoding failed for pixels of shape {image.shape}, {image.dtype}")
    return bytes(encoded.tobytes())


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
