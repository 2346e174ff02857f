"""Pictures as files: pixels together with what is kept beside them, transparency, greyness and colour profile."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deblurkit.console import warn
from deblurkit.errors import DataError
from deblurkit.files import atomic_path
from deblurkit.image_io import ALPHA_ENDINGS, Pixels, cv2, decode_image, encode_image
from deblurkit.picture_tags import (
    PNG_SIGNATURE,
    PictureTags,
    jpeg_segments,
    png_chunks,
    read_tags,
    tiff_entries,
    webp_chunks,
    with_tags,
)


@dataclass(frozen=True)
class Still:
    """What a picture has beside its RGB pixels; it passes the network by.

    Attributes:
        name: file name of the result. alpha: `(H, W)`, as deep as the pixels or of 8 bits; None: opaque.
        grey: stored without colour. tags: colour profile and EXIF.
    """

    name: str
    alpha: Pixels | None = None
    grey: bool = False
    tags: PictureTags = field(default=PictureTags())


def read_still(path: Path) -> tuple[Pixels, Still]:
    """Read a picture: upright `(H, W, 3)` RGB, and what it has besides.

    Raises:
        DataError: the file is missing, truncated, animated in a way that cannot be read, or no picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    transparent, grey = _may_be_transparent(data, path), _is_grey(data)
    pixels = decode_image(data, str(path))
    if any(tag == -1 and any(data[at : at + 4]) for tag, at, _ in tiff_entries(data)):
        warn(f"{path}: holds several pictures; the first is restored")
    if not (transparent or data[:4] in (b"II*\x00", b"MM\x00*")):
        return pixels, Still(path.name, None, grey, read_tags(data))
    stored = cv2().imdecode(np.frombuffer(data, np.uint8), cv2().IMREAD_UNCHANGED)
    if stored is None or stored.ndim == 2:
        return pixels, Still(path.name, None, stored is not None, read_tags(data))
    alpha = _upright_alpha(stored, pixels)
    if alpha is not None and pixels.dtype == np.uint8 and _is_multiplied(data):
        pixels = np.minimum(np.rint(pixels * (255.0 / np.maximum(alpha, 1)[..., None])), 255).astype(np.uint8)
    return pixels, Still(path.name, alpha, grey, read_tags(data))


def encode_still(path: Path, pixels: Pixels, still: Still, lossless: bool = False) -> bytes:
    """The bytes of a picture file with what its source had besides; alpha is resampled to the size of the pixels.

    Args:
        path: its ending decides the format. lossless: WebP keeps every value too.

    Raises:
        DataError: the ending is not a picture format.
    """
    alpha = fitted_alpha(still.alpha, pixels)
    if alpha is not None and alpha.dtype != pixels.dtype:
        alpha = alpha.astype(np.uint16) * 257
    parameters = [cv2().IMWRITE_WEBP_QUALITY, 101] if lossless and path.suffix.lower() == ".webp" else []
    grey = still.grey and alpha is None
    data = encode_image(pixels, path.suffix, parameters, alpha=alpha, grey=grey, name=str(path))
    return with_tags(data, still.tags)


def write_still(path: Path, pixels: Pixels, still: Still, lossless: bool = False) -> None:
    """Write a picture atomically; see `encode_still`.

    Raises:
        DataError: the ending is not a picture format. DeblurkitError: the file cannot be written.
    """
    data = encode_still(path, pixels, still, lossless)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def holds_alpha(path: Path) -> bool:
    """True where a picture of this name can be transparent."""
    return path.suffix.lower() in ALPHA_ENDINGS


def fitted_alpha(alpha: Pixels | None, pixels: Pixels) -> Pixels | None:
    """Alpha of the size of `pixels`, for networks that enlarge (bicubic, as pixels are enlarged elsewhere)."""
    if alpha is None or alpha.shape == pixels.shape[:2]:
        return alpha
    height, width = pixels.shape[:2]
    return np.asarray(cv2().resize(alpha, (width, height), interpolation=cv2().INTER_CUBIC))


def _may_be_transparent(data: bytes, path: Path) -> bool:
    """By the header; a TIFF does not say in one place."""
    if data.startswith(PNG_SIGNATURE):
        return data[25:26] in (b"\x04", b"\x06") or any(kind == b"tRNS" for kind, _, _ in png_chunks(data))
    if data[:4] == b"RIFF":
        for kind, body in webp_chunks(data):
            if kind == b"VP8X":
                if body[:1] and body[0] & 0x02:
                    raise DataError(f"{path}: animated WebP is not supported; convert it to GIF, PNG frames or a video")
                return bool(body[:1]) and bool(body[0] & 0x10)
            return kind == b"VP8L"
    return False


def _is_multiplied(data: bytes) -> bool:
    """OpenCV multiplies the colours of a TIFF of 8 bits by its alpha where they are stored without (ExtraSamples 2)."""
    found = {tag: data[at : at + 2] for tag, at, _ in tiff_entries(data)}
    return found.get(338) in (b"\x02\x00", b"\x00\x02")


def _is_grey(data: bytes) -> bool:
    """A PNG or JPEG that stores no colour."""
    if data.startswith(PNG_SIGNATURE):
        return data[25:26] in (b"\x00", b"\x04")
    frames = [
        body for marker, body in jpeg_segments(data) if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
    ]
    return data.startswith(b"\xff\xd8\xff") and bool(frames) and frames[0][5:6] == b"\x01"


def _upright_alpha(stored: Pixels, pixels: Pixels) -> Pixels | None:
    """Alpha turned as the pixels were; None where everything is opaque.

    OpenCV applies the EXIF rotation to pixels without alpha only: the turn that makes both agree is the right one.
    """
    if stored.shape[2] != 4:
        return None
    colours, alpha = stored[..., 2::-1], stored[..., 3]
    if int(alpha.min()) == np.iinfo(alpha.dtype).max:
        return None
    for transposed in (False, True):
        for step_y in (1, -1):
            for step_x in (1, -1):
                turned = colours.swapaxes(0, 1) if transposed else colours
                if np.array_equal(turned[::step_y, ::step_x], pixels):
                    mask = alpha.swapaxes(0, 1) if transposed else alpha
                    return np.ascontiguousarray(mask[::step_y, ::step_x])
    raise AssertionError("the same file decodes to two different pictures")
