"""Blurred/sharp pairs from sharp high-frame-rate video: N consecutive frames are averaged in linear light.

A camera adds up light during the exposure and then applies its response curve g, so a blurred frame is
`g(mean(g^-1(sharp frames)))` and its sharp partner is the frame in the middle of the exposure. GoPro (Nah et al., CVPR
2017) was made so: 7 to 13 frames of 240 fps video with g(x) = x^(1/2.2) (`blur_gamma`), or the plain mean (`blur`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deblurkit.console import progress
from deblurkit.errors import DataError, DeblurkitError, did_you_mean
from deblurkit.files import sync
from deblurkit.image_io import Pixels, cv2, write_image
from deblurkit.video.source import FrameSource

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ResponseCurve:
    """How a camera turns light into pixel values; both sides run from 0 to 1.

    Attributes:
        to_light: pixel values to linear light (g^-1). to_pixels: linear light to pixel values (g).
    """

    to_light: Callable[[_Floats], _Floats]
    to_pixels: Callable[[_Floats], _Floats]


def _srgb_to_light(x: _Floats) -> _Floats:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _srgb_to_pixels(x: _Floats) -> _Floats:
    return np.where(x <= 0.0031308, x * 12.92, 1.055 * x ** (1 / 2.4) - 0.055)


#: `gamma2.2`: GoPro's. `srgb`: IEC 61966-2-1. `linear`: pixel values are averaged as they are.
CURVES = {
    "gamma2.2": ResponseCurve(lambda x: x**2.2, lambda x: x ** (1 / 2.2)),
    "srgb": ResponseCurve(_srgb_to_light, _srgb_to_pixels),
    "linear": ResponseCurve(lambda x: x, lambda x: x),
}


@dataclass(frozen=True)
class Averaging:
    """Which frames make a blurred one, and how.

    Attributes:
        frames: sharp frames per blurred one, from 2. The sharp partner is number `frames // 2` of them, from 0: the
            middle one for an odd number; for an even number the first after the middle, half a frame late.
        stride: source frames from one blurred frame to the next. None: `frames`, so that exposures touch. More: the
            shutter is closed in between. Less: exposures overlap.
        curve: a name in `CURVES`.

    Raises:
        DataError: a number out of range, or an unknown curve.
    """

    frames: int = 7
    stride: int | None = None
    curve: str = "gamma2.2"

    def __post_init__(self) -> None:
        if self.frames < 2:
            raise DataError(f"{self.frames} frame(s) per average: a blur needs at least 2")
        if self.stride is not None and self.stride < 1:
            raise DataError(f"a stride of {self.stride} frames: it must be 1 or more")
        if self.curve not in CURVES:
            hint = did_you_mean(self.curve, CURVES) or f"; there are {', '.join(CURVES)}"
            raise DataError(f"unknown response curve {self.curve!r}{hint}")

    @property
    def step(self) -> int:
        """Source frames from one blurred frame to the next."""
        return self.stride or self.frames

    def pairs(self, length: int) -> int:
        """Number of whole exposures in `length` source frames; what is left over at the end is not used."""
        return max(0, (length - self.frames) // self.step + 1)


class Pair(NamedTuple):
    """A blurred frame and its sharp partner, both `(H, W, 3)` RGB in the source's dtype."""

    blur: Pixels
    sharp: Pixels


class _Exposure:
    """The light of the frames seen so far; float64 keeps a sum of 16-bit frames exact to far below half a level."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.light = np.zeros(shape)
        self.count = 0
        self.sharp: Pixels | None = None


def average_frames(source: FrameSource, averaging: Averaging) -> Iterator[Pair]:
    """Average a run of frames, one exposure after the other.

    Every frame is read once. Memory holds the open exposures only: one, or `frames / stride` where they overlap.
    Results are rounded to the nearest level (halves go up), and a scene that stands still comes out unchanged.

    Args:
        source: frames `(H, W, 3)` RGB, uint8 or uint16, all of one size and dtype.

    Raises:
        DataError: a frame has another size or bit depth than those before it.
    """
    curve = CURVES[averaging.curve]
    open_exposures: deque[_Exposure] = deque()
    first: Pixels | None = None
    for index, frame in enumerate(source):
        if first is None:
            first = frame
            peak = int(np.iinfo(frame.dtype).max)
            table = curve.to_light(np.arange(peak + 1) / peak)
        elif frame.shape != first.shape or frame.dtype != first.dtype:
            raise DataError(f"{source.name}: frame {index} is {_kind(frame)}, the first is {_kind(first)}")
        if index % averaging.step == 0:
            open_exposures.append(_Exposure(frame.shape))
        if not open_exposures:
            continue  # the shutter is closed
        light = table[frame]
        for exposure in open_exposures:
            if exposure.count == averaging.frames // 2:
                exposure.sharp = frame
            exposure.light += light
            exposure.count += 1
        if open_exposures[0].count == averaging.frames:
            done = open_exposures.popleft()
            assert done.sharp is not None
            levels = curve.to_pixels(done.light / averaging.frames) * peak
            # 1e-6: whether the mean of 3 and 4 is 4 must not depend on the last bit of a power function
            yield Pair(np.floor(levels + (0.5 + 1e-6)).astype(frame.dtype), done.sharp)


def _kind(frame: Pixels) -> str:
    return f"{frame.shape[1]}x{frame.shape[0]} with {frame.dtype.itemsize * 8} bits"


class ShrunkSource:
    """A source whose frames are made smaller by averaging areas of pixel values, which also lessens noise.

    Args:
        scale: factor for width and height, above 0 and below 1; sizes are rounded to whole pixels.
    """

    def __init__(self, source: FrameSource, scale: float) -> None:
        if not 0 < scale < 1:
            raise DataError(f"scale {scale:g}: frames can be made smaller, so it lies between 0 and 1")
        self.name = source.name
        self._source = source
        self._scale = scale

    @property
    def length(self) -> int | None:
        """Number of frames, where the source knows it."""
        return self._source.length

    def __iter__(self) -> Iterator[Pixels]:
        """Read and shrink the frames in order."""
        module = cv2()
        for frame in self._source:
            size = [max(1, round(side * self._scale)) for side in (frame.shape[1], frame.shape[0])]
            yield module.resize(frame, size, interpolation=module.INTER_AREA)


def synthesise(
    source: FrameSource,
    out_root: str | Path,
    split: str,
    name: str,
    averaging: Averaging | None = None,
    *,
    scale: float = 1.0,
    limit: int | None = None,
    frame_rate: Fraction | None = None,
    overwrite: bool = False,
) -> int:
    """Write the pairs of one source as OUT_ROOT/SPLIT/NAME/{blur,sharp}/000000.png ..., the layout `paired`.

    The sequence is built as `.NAME.partial` and gets its name when it is complete; progress is shown.

    Args:
        source: sharp frames, many a second. split: "train" or "test". averaging: None: `Averaging()`.
        scale: frames are first made smaller by this factor. limit: at most so many pairs.
        frame_rate: frames per second of the source. Given, the pairs are also written as the videos NAME_blur.mp4 and
            NAME_sharp.mp4 beside the sequence, at `frame_rate / stride`.
        overwrite: replace what bears the name already.

    Returns:
        number of pairs.

    Raises:
        DataError: too few frames, frames of different sizes, wrong numbers, or the output is there already.
        DeblurkitError: the output cannot be written. What the source raises passes through.
    """
    averaging = averaging or Averaging()
    if limit is not None and limit < 1:
        raise DataError(f"a limit of {limit} pairs: it must be 1 or more")
    if scale != 1:
        source = ShrunkSource(source, scale)
    folder = find_target(out_root, split, name, overwrite, videos=frame_rate is not None)
    pairs = itertools.islice(average_frames(source, averaging), limit)
    first = next(pairs, None)  # before anything is written: most unusable input shows here
    if first is None:
        raise DataError(
            f"{source.name}: has fewer than {averaging.frames} frames, and a blurred frame is the average of "
            f"{averaging.frames}; take a longer video or average fewer frames"
        )
    total = source.length and min(averaging.pairs(source.length), limit or source.length)
    with _built(folder) as partial, progress(f"averaging {source.name}", total, "pairs") as advance:
        return _write(itertools.chain((first,), pairs), partial, frame_rate and frame_rate / averaging.step, advance)


def find_target(out_root: str | Path, split: str, name: str, overwrite: bool, videos: bool) -> Path:
    """The folder that a sequence is to be written as.

    Raises:
        DataError: it, or one of its videos, is there already; with `overwrite` only where something would be lost that
            is no such sequence. Or readers of the layout would not find the name.
    """
    if Path(name).name != name or not name or name.startswith("."):
        raise DataError(f"{name!r} cannot be a sequence's name: it must be a file name that does not begin with a dot")
    folder = Path(out_root) / split / name
    for path in (folder, *(_video(folder, kind) for kind in Pair._fields if videos)):
        if path.exists() and not overwrite:
            raise DataError(f"{path}: exists already; choose another output folder, or overwrite it")
    if folder.exists() and not (folder.is_dir() and all(path.name in Pair._fields for path in folder.iterdir())):
        raise DataError(f"{folder}: is not overwritten: it is, or holds, something else than blur and sharp frames")
    return folder


def _video(folder: Path, kind: str) -> Path:
    return folder.with_name(f"{folder.name}_{kind}.mp4")


@contextlib.contextmanager
def _built(folder: Path) -> Iterator[Path]:
    """Yield a folder with {blur,sharp} in it that becomes `folder`, and its videos, when the block ends well."""
    partial, old = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "old"))
    try:
        with _explained(folder):
            _remove(partial)  # of a run that was killed
            for kind in Pair._fields:
                (partial / kind).mkdir(parents=True)
        yield partial
        with _explained(folder):
            for kind in Pair._fields:
                if (partial / f"{kind}.mp4").exists():
                    (partial / f"{kind}.mp4").replace(_video(folder, kind))
            _remove(old)
            if folder.exists():
                folder.rename(old)
            partial.rename(folder)
            sync(folder.parent)
            _remove(old)
    finally:
        _remove(partial)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """What the operating system says about an output folder, as an error for the user."""
    try:
        yield
    except OSError as error:
        raise DeblurkitError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _write(pairs: Iterator[Pair], folder: Path, video_rate: Fraction | None, advance: Callable[[int], None]) -> int:
    """Write pairs as pictures, and as videos where a rate is given; returns their number."""
    from deblurkit.video.writer import VideoWriter

    threads = min(8, os.cpu_count() or 1)
    pending: deque[Future[None]] = deque()
    count = 0
    with ThreadPoolExecutor(threads) as pool, contextlib.ExitStack() as stack:
        videos: dict[str, VideoWriter] = {}
        if video_rate is not None:
            for kind in Pair._fields:
                videos[kind] = stack.enter_context(VideoWriter(folder / f"{kind}.mp4", rate=video_rate))
        for pair in pairs:
            for kind, frame in pair._asdict().items():
                pending.append(pool.submit(write_image, folder / kind / f"{count:06d}.png", frame))
                if kind in videos:
                    videos[kind].write(frame)
            while len(pending) > 2 * threads:
                pending.popleft().result()
            count += 1
            advance(1)
        for written in pending:
            written.result()
    return count


def synthesise_files(
    paths: Sequence[Path],
    out_root: Path,
    split: str,
    averaging: Averaging,
    *,
    scale: float = 1.0,
    limit: int | None = None,
    videos: bool = False,
    frame_rate: float | None = None,
    overwrite: bool = False,
) -> dict[Path, int]:
    """`synthesise` for videos and folders of frames; each gives a sequence with the name of the file or folder.

    All inputs are opened, and all outputs looked for, before the first is written.

    Args:
        videos: also write the pairs as videos. frame_rate: of the inputs, frames per second; None: what the video says.

    Returns:
        pairs of each sequence, by its folder.

    Raises:
        DataError: as `synthesise`; also for a missing or empty folder, two inputs of one name, no known frame rate.
        VideoError: a video cannot be read.
    """
    from deblurkit.video.frames import open_source

    jobs: dict[Path, tuple[FrameSource, Fraction | None]] = {}
    for path in paths:
        source = open_source(path)
        rate = None
        if videos:
            rate = getattr(source, "rate", None) if frame_rate is None else Fraction(frame_rate).limit_denominator(1001)
            if rate is None:
                raise DataError(f"{path}: pictures do not tell how many there are a second; state the frame rate")
            if rate <= 0:
                raise DataError(f"a rate of {frame_rate:g} frames per second: it must be above 0")
        folder = find_target(out_root, split, path.resolve().name if path.is_dir() else path.stem, overwrite, videos)
        if folder in jobs:
            raise DataError(f"{path}: two inputs are called {folder.name}; rename one, or use another output folder")
        jobs[folder] = source, rate
    pairs = {}
    for folder, (clip, rate) in jobs.items():
        pairs[folder] = synthesise(
            clip, out_root, split, folder.name, averaging, scale=scale, limit=limit, frame_rate=rate,
            overwrite=overwrite,
        )  # fmt: skip
    return pairs
