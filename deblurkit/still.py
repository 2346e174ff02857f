"""Pictures as files: pixels together with what is kept beside them, transparency, greyness and colour profile."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deblurkit.errors import DataError
from deblurkit.files import atomic_path
from deblurkit.image_io import ALPHA_ENDINGS, Pixels, cv2, decode_planes, encode_image
from deblurkit.picture_tags import (
    PNG_SIGNATURE,
    PictureTags,
    is_frame,
    jpeg_segments,
    read_tags,
    webp_chunks,
    with_tags,
)
from deblurkit.tiff_pixels import facts as tiff_facts

#: Bytes of an AVIF file in which its properties lie.
_AVIF_HEAD = 1 << 16


@dataclass(frozen=True)
class Still:
    """What a picture has beside its RGB pixels; it passes the network by.

    Attributes:
        name: file name of the result. alpha: `(H, W)`, as deep as the pixels or of 8 bits; None: opaque.
        grey: stored without colour. tags: colour profile, EXIF and XMP. opaque: it has alpha, but all of it is opaque.
        notes: what is not kept of it, such as "holds several pictures; the first is restored".
    """

    name: str
    alpha: Pixels | None = None
    grey: bool = False
    tags: PictureTags = field(default=PictureTags())
    opaque: bool = False
    notes: tuple[str, ...] = ()


def read_still(path: Path) -> tuple[Pixels, Still]:
    """Read a picture: upright `(H, W, 3)` RGB, and what it has besides.

    Raises:
        DataError: the file is missing, truncated, animated in a way that cannot be read, or no picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if any(kind == b"VP8X" and body[:1] and body[0] & 0x02 for kind, body in _webp_chunks(data)):
        raise DataError(f"{path}: animated WebP is not supported; convert it to GIF, PNG frames or a video")
    pixels, alpha = decode_planes(data, str(path))
    opaque = alpha is not None and int(alpha.min()) == np.iinfo(alpha.dtype).max
    grey, notes = _grey_and_notes(data)
    return pixels, Still(path.name, None if opaque else alpha, grey, read_tags(data), opaque, notes)


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
    if alpha is None and still.opaque:
        alpha = np.full(pixels.shape[:2], np.iinfo(pixels.dtype).max, pixels.dtype)
    webp = path.suffix.lower() == ".webp"
    parameters = [cv2().IMWRITE_WEBP_QUALITY, 101] if lossless and webp else []
    data = encode_image(pixels, path.suffix, parameters, alpha=alpha, grey=still.grey, name=str(path))
    return with_tags(data, still.tags.fitting(grey=still.grey and not webp))


def lost(still: Still, pixels: Pixels, path: Path) -> list[str]:
    """What a file of this name cannot keep of a picture."""
    ending = path.suffix.lower()
    found = []
    if still.alpha is not None and not holds_alpha(path):
        found.append(f"{ending} files are written without transparency")
    if pixels.dtype == np.uint16 and ending not in (".png", ".tif", ".tiff"):
        found.append(f"{ending} files have 8 bits a channel, of 16 the upper ones are written")
    tags = still.tags
    fitting = tags.fitting(grey=still.grey and ending != ".webp")
    if tags.icc and not fitting.icc:
        found.append(f"the colour profile is not for these pixels, but for {_space(tags.icc)}; it is left out")
    elif ending == ".bmp" and tags != PictureTags():
        found.append(".bmp files are written without colour profile, EXIF and XMP")
    return found


def write_still(path: Path, pixels: Pixels, still: Still, lossless: bool = False, shown: Path | None = None) -> None:
    """Write a picture atomically; see `encode_still`.

    Args:
        shown: what messages call it; see `atomic_path`.

    Raises:
        DataError: the ending is not a picture format. DeblurkitError: the file cannot be written.
    """
    data = encode_still(shown or path, pixels, still, lossless)
    with atomic_path(path, shown) as temporary:
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


def _webp_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    return list(webp_chunks(data)) if data[:4] == b"RIFF" else []


def _grey_and_notes(data: bytes) -> tuple[bool, tuple[str, ...]]:
    """Whether a picture stores no colour, and what of it is not kept."""
    if data.startswith(PNG_SIGNATURE):
        return data[25:26] in (b"\x00", b"\x04"), ()
    if data.startswith(b"\xff\xd8\xff"):
        channels = next((body[5] for marker, body in jpeg_segments(data) if is_frame(marker) and len(body) > 5), 3)
        cmyk = "is CMYK; the result is RGB, converted without its colour profile"
        return channels == 1, (cmyk,) if channels == 4 else ()
    if data[4:8] == b"ftyp":
        turn = data.find(b"irot", 0, _AVIF_HEAD)
        turned = turn > 0 and any(data[turn + 4 : turn + 5])
        return False, ("is marked as turned, which is not applied",) if turned else ()
    return tiff_facts(data)


def _space(icc: bytes) -> str:
    """The colour space that a profile is for, as it names it."""
    return icc[16:20].decode("ascii", "replace").strip()
