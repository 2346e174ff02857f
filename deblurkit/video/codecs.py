"""Which encoders are offered and with what settings, the pixel format they get, and the containers that hold them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import av
import av.error

from deblurkit.errors import VideoError, did_you_mean
from deblurkit.image_io import IMAGE_ENDINGS
from deblurkit.video.color import planar_format

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Encoder:
    """How one encoder is used.

    Attributes:
        options: always set. crf: the default of its quality scale (lower is better), None if it has none; the defaults
            are meant to be visually transparent. crf_most: the end of that scale.
        lossless: options that keep every RGB value. lossless_formats: the RGB pixel format by depth; {}: it cannot.
        stand_in: the encoder to take instead for lossless work. least: pixels that width and height need.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    crf: int | None = None
    crf_most: int = 51
    lossless: Mapping[str, str] = field(default_factory=dict)
    lossless_formats: Mapping[int, str] = field(default_factory=dict)
    stand_in: str | None = None
    least: int = 1


ENCODERS = {
    "libx264": Encoder({"preset": "fast"}, crf=17, stand_in="libx264rgb"),
    "libx264rgb": Encoder({"preset": "fast"}, crf=17, lossless={"qp": "0"}, lossless_formats={8: "rgb24"}),
    "libx265": Encoder(
        {"preset": "fast", "x265-params": "log-level=error"},
        crf=18,
        lossless={"x265-params": "log-level=error:lossless=1"},
        lossless_formats={8: "gbrp"},
        least=64,  # frames narrower than its coding unit corrupt the heap (x265 4.1 in av 18.1; x265 issue 774)
    ),
    "libvpx-vp9": Encoder(
        {"b": "0", "row-mt": "1", "deadline": "good", "cpu-used": "3"},
        crf=18,
        crf_most=63,
        lossless={"lossless": "1"},
        lossless_formats={8: "gbrp"},
    ),
    "libsvtav1": Encoder({"preset": "6", "svtav1-params": "lp=0"}, crf=20, crf_most=63),
    "prores_ks": Encoder({"profile": "3"}),
    "ffv1": Encoder({"level": "3", "slicecrc": "1"}, lossless_formats={8: "bgr0", 16: "gbrp16le"}),
    "gif": Encoder(),
}

#: Formats by name, for people who do not know encoders.
FORMATS = {
    "h264": "libx264",
    "h265": "libx265",
    "hevc": "libx265",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
    "prores": "prores_ks",
}

#: What a video becomes a folder of: the name and the file ending.
PICTURE_CODECS = {"png": ".png", "tiff": ".tif", "jpeg": ".jpg", "jpg": ".jpg", "webp": ".webp", "bmp": ".bmp"}

_TRANSPORT_STREAM = (".ts", ".mts", ".m2ts")

#: Containers that give every frame back at its time, whatever the codec; AVI, WMV and others do not. (GIFs count in
#: hundredths of a second.)
_TIMED = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".3gp", ".3g2", ".flv", ".gif", *_TRANSPORT_STREAM)

#: Containers that hold pictures only.
SILENT = (".gif",)


@dataclass(frozen=True)
class Choice:
    """An encoder with everything settled: its name, options and pixel format."""

    name: str
    options: Mapping[str, str]
    pixel_format: str

    @property
    def codec(self) -> str:
        """What it makes, as containers know it: `h264`."""
        return av.Codec(self.name, "w").canonical_name


def encoder_name(codec: str | None, size: tuple[int, int], depth: int, lossless: bool, suffix: str = "") -> str:
    """The encoder to use where the user may have left it open.

    H.264 plays everywhere with 8 bits and almost nowhere with 10, which HEVC does; FFV1 is the lossless one. WebM and
    GIF hold neither.

    Args:
        codec: None for the default. size: width and height. depth: bits of the source. suffix: ending of the result.

    Raises:
        VideoError: `codec` is unknown, not in this build of PyAV, or cannot hold frames of `size`.
    """
    name = FORMATS.get(codec or "", codec) or _default_encoder(size, depth, lossless, suffix.lower())
    if name not in ENCODERS:
        raise VideoError(
            f"--codec {name}: there are {', '.join(ENCODERS)} for videos and {', '.join(PICTURE_CODECS)} for pictures"
            f"{did_you_mean(name, [*ENCODERS, *PICTURE_CODECS])}"
        )
    if lossless and ENCODERS[name].stand_in:
        name = ENCODERS[name].stand_in or name
    if min(size) < ENCODERS[name].least:
        raise VideoError(f"--codec {name}: needs frames of {ENCODERS[name].least} pixels a side; use --codec libx264")
    try:
        av.Codec(name, "w")
    except ValueError:
        raise VideoError(f"--codec {name}: this build of PyAV (av {av.__version__}) does not have it") from None
    return name


def _default_encoder(size: tuple[int, int], depth: int, lossless: bool, suffix: str) -> str:
    if lossless:
        return "ffv1"
    if suffix == ".gif":
        return "gif"
    if suffix == ".webm":
        return "libvpx-vp9" if depth <= 8 else "libsvtav1"
    return "libx264" if depth <= 8 or min(size) < ENCODERS["libx265"].least else "libx265"


def choose(
    codec: str | None,
    size: tuple[int, int],
    depth: int,
    full_chroma: bool,
    crf: int | None,
    lossless: bool,
    suffix: str = "",
) -> Choice:
    """Settle encoder, quality and pixel format.

    Args:
        codec: None for the default. size: width and height. depth: bits of the source.
        full_chroma: the source has colour for every pixel.
        crf: None for the default. lossless: every restored RGB value is kept. suffix: ending of the result.

    Raises:
        VideoError: unknown or missing codec, a crf or a size that it does not take, lossless with a codec that is not.
    """
    name = encoder_name(codec, size, depth, lossless, suffix)
    encoder = ENCODERS[name]
    options = dict(encoder.options)
    if lossless or name == "ffv1":
        if crf is not None:
            raise VideoError(f"--crf {crf}: lossless video has no quality to set; leave --crf out")
        wanted = 8 if depth <= 8 else 16
        if wanted not in encoder.lossless_formats:
            raise VideoError(f"--lossless: {name} cannot keep {depth}-bit RGB; use --codec ffv1")
        return Choice(name, options | dict(encoder.lossless), encoder.lossless_formats[wanted])
    if crf is not None and (encoder.crf is None or not 0 <= crf <= encoder.crf_most):
        scale = f"takes 0 (best) to {encoder.crf_most}" if encoder.crf is not None else "has no such setting"
        raise VideoError(f"--crf {crf}: {name} {scale}")
    if encoder.crf is not None:
        options["crf"] = str(encoder.crf if crf is None else crf)
    return Choice(name, options, pixel_format(name, size, depth, full_chroma))


def pixel_format(encoder: str, size: tuple[int, int], depth: int, full_chroma: bool) -> str:
    """The pixel format for lossy encoding: 4:2:0, which every player shows, unless size or source ask for 4:4:4.

    Raises:
        VideoError: the encoder has none for that size.
    """
    formats = av.Codec(encoder, "w").video_formats or ()
    names = {entry.name for entry in formats}
    if encoder == "gif":
        return "pal8"
    if all(entry.is_rgb for entry in formats):
        return "rgb24"
    width, height = size
    shared = ["yuv420p"] if width % 2 == height % 2 == 0 else []  # neighbouring pixels share a colour
    shared += ["yuv422p"] if width % 2 == 0 else []
    families = ["yuv444p", *shared] if full_chroma else [*shared, "yuv444p"]
    depths = (8, 10, 12)
    for bits in (*(d for d in depths if d >= depth), *(d for d in reversed(depths) if d < depth)):
        for family in families:
            if planar_format(family, bits) in names:
                return planar_format(family, bits)
    raise VideoError(f"--codec {encoder}: cannot hold frames of {width}x{height}; use --codec libx264")


@lru_cache
def _held(suffix: str) -> frozenset[str] | None:
    """Names of the codecs that the container with this file ending holds, None for an ending that is no container."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with av.open(f"file:{Path(folder) / ('x' + suffix)}", "w") as container:
                return frozenset(container.supported_codecs)
        except (ValueError, av.error.FFmpegError):
            return None


def check_container(target: Path, codecs: Collection[str]) -> None:
    """Make sure that a file of this name can hold video with exact times and all of `codecs`.

    Raises:
        VideoError: it cannot.
    """
    suffix = target.suffix.lower()
    held = _held(suffix)
    if suffix in IMAGE_ENDINGS:
        folder = f"{target.with_suffix('')}/"
        raise VideoError(
            f"{target}: a {suffix} file holds one picture; for the frames of a video give a folder: {folder}"
        )
    if held is None:
        raise VideoError(f"{target}: {suffix or 'a name without ending'} is no video file; use .mp4, .mkv or .mov")
    if suffix not in _TIMED:
        raise VideoError(f"{target}: {suffix} files do not keep the times of frames; use .mp4 or .mkv")
    missing = _missing_from(suffix, codecs)
    if missing:
        raise VideoError(f"{target}: {suffix} files cannot hold {', '.join(missing)}; use .mkv")


def is_file_of_one(path: Path) -> bool:
    """True for a name that ends as videos and pictures do: it stands for one result, not for a folder of them."""
    suffix = path.suffix.lower()
    return suffix in IMAGE_ENDINGS or _held(suffix) is not None


def container_name(suffix: str) -> str:
    """What libav calls the container of a file ending, for results that go where nothing can seek back.

    Raises:
        VideoError: it is written in two passes.
    """
    names = {".mkv": "matroska", ".webm": "webm", ".ts": "mpegts", ".gif": "gif"}
    if suffix not in names:
        raise VideoError(f"{suffix} cannot be written to a pipe; use {', '.join(names)}")
    return names[suffix]


def _missing_from(suffix: str, codecs: Collection[str]) -> list[str]:
    """Those of `codecs` that the container with this file ending does not hold."""
    held = _held(suffix) or ()
    if suffix in _TRANSPORT_STREAM:  # libav does not tell what it holds
        return [codec for codec in codecs if codec in ("ffv1", "vp9", "prores", "av1", "subrip", "ass", "mov_text")]
    return [codec for codec in codecs if codec not in held]


def default_suffix(
    source_suffix: str, video: str, copied: Collection[str], fits: Callable[[str], bool] = lambda suffix: True
) -> str:
    """The file ending for a result: the source's, where that container holds everything; else .mp4, else .mkv.

    Args:
        video: format of the pictures. copied: of the streams that come along. fits: what else decides about an ending.
    """
    homes = (".mkv",) if video == "ffv1" else (".mp4", ".mkv")
    own = source_suffix.lower()
    if own in SILENT and not _missing_from(own, [video]):
        return own
    candidates = [own, *homes] if own in (homes if video == "ffv1" else _TIMED) else homes
    return next(
        (suffix for suffix in candidates if not _missing_from(suffix, [video, *copied]) and fits(suffix)), ".mkv"
    )
