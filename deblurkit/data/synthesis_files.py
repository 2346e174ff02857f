"""`deblurkit synth`: data sets of blurred/sharp pairs from videos, sequences of frames and photos."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from deblurkit.console import warn
from deblurkit.data.layouts import LayoutName, find_layout, scan
from deblurkit.data.layouts_sources import PhotosLayout, gopro_exposure
from deblurkit.data.light import SensorNoise
from deblurkit.data.photo_clips import ClipOptions, PhotoClips
from deblurkit.data.synthesis import Averaging, Pair, ShrunkSource, average_frames, compress_pairs
from deblurkit.data.synthesis_jobs import Job, Output, make
from deblurkit.data.synthesis_writer import SequenceTarget
from deblurkit.data.video_crf import check_crf
from deblurkit.errors import DataError
from deblurkit.image_io import is_image
from deblurkit.video.frames import PictureSource, open_source
from deblurkit.video.source import FrameSource


@dataclass(frozen=True)
class AverageOptions:
    """How frames of videos become pairs.

    Attributes:
        averaging: which frames, and how. scale: frames are first made smaller by this factor.
        limit: at most so many pairs of a sequence.
        noise: strength of sensor noise on blurred frames, see `SensorNoise`. crf: their quality as a video; None: they
            are not compressed.
    """

    averaging: Averaging = field(default_factory=Averaging)
    scale: float = 1.0
    limit: int | None = None
    noise: float = 0.0
    crf: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise DataError(f"a limit of {self.limit} pairs: it must be 1 or more")
        check_crf(self.crf)
        SensorNoise(self.noise)


@dataclass(frozen=True)
class _Clip:
    """A sequence of sharp frames to be averaged.

    Attributes:
        rate: frames per second, where videos are to be written. files: that it is read from, as far as they are known.
        window: frames for each pair of GOPRO_Large_all, by which its pairs are numbered; 0: they count from 0.
    """

    name: str
    source: FrameSource
    split: str
    averaging: Averaging
    rate: Fraction | None = None
    files: tuple[Path, ...] = ()
    window: int = 0

    def identity(self) -> dict[str, Any] | None:
        """What tells it from others of its name."""
        if not self.files:
            return None
        stats = [file.stat() for file in self.files]
        return {
            "name": self.source.name,
            "files": len(stats),
            "bytes": sum(stat.st_size for stat in stats),
            "newest": max(stat.st_mtime_ns for stat in stats),
        }

    def frame_name(self, pair: int) -> str:
        """Of a pair; frames yy (n - 1) + 1 to yy n of GOPRO_Large_all are pair n of GOPRO_Large."""
        stem = self.files[self.averaging.middle(pair)].stem if self.window else ""
        number = -(-int(stem) // self.window) if stem.isdecimal() else pair
        return f"{number:06d}"


def synthesise(
    source: FrameSource,
    out_root: str | Path,
    split: str,
    name: str,
    options: AverageOptions | None = None,
    *,
    frame_rate: Fraction | None = None,
    overwrite: bool = False,
    seed: int = 0,
) -> int:
    """Average the frames of one source and write the pairs as OUT_ROOT/SPLIT/NAME, see `SequenceTarget`.

    Args:
        source: sharp frames, many a second. options: None: `AverageOptions()`.
        frame_rate: frames per second of the source. Given, the pairs are also written as videos at `frame_rate /
            stride`.
        overwrite: replace what bears the name already. seed: of the noise.

    Returns:
        number of pairs.

    Raises:
        DataError: too few frames, frames of different sizes, wrong numbers, or the output is there already.
        DeblurkitError: the output cannot be written. What the source raises passes through.
    """
    options = options or AverageOptions()
    output = Output(Path(out_root), split, overwrite=overwrite, seed=seed)
    clip = _Clip(name, source, split, options.averaging, frame_rate)
    (pairs,) = make(output, lambda o: [_average_job(clip, options, o)], f"averaging {source.name}").values()
    return pairs


def synthesise_videos(paths: Sequence[Path], output: Output, options: AverageOptions) -> dict[Path, int]:
    """`synthesise` for videos and folders of frames; each gives a sequence with the name of the file or folder.

    All inputs are opened, and all outputs looked for, before the first is written. What is there already, made the same
    way of the same files, is left alone.

    Returns:
        pairs of each sequence, by its folder (with `output.lmdb`: by its place in the LMDBs).

    Raises:
        DataError: as `synthesise`; also for a missing or empty folder, two inputs of one name, no known frame rate.
        VideoError: a video cannot be read.
    """
    clips = []
    for path, split in zip(paths, output.splits(len(paths)), strict=True):
        source = open_source(path)
        files = tuple(source.files) if isinstance(source, PictureSource) else (path,)
        name = path.resolve().name if path.is_dir() else path.stem
        clips.append(_Clip(name, source, split, options.averaging, _rate(path, source, output), files))
    return _average(clips, output, options)


def synthesise_layout(
    root: Path, layout: LayoutName, split: str | None, output: Output, options: AverageOptions, published: bool
) -> dict[Path, int]:
    """Average the sharp frames of a data set's sequences, such as GOPRO_Large_all's.

    Args:
        root: the data set's folder. layout: how its files lie. split: one of its splits; None: all. Each becomes a
            split of its name.
        published: as the authors of `gopro_large_all` did it for GOPRO_Large, with its names of sequences and frames,
            but for the curve; `options.averaging` says how many frames otherwise.

    Raises:
        DataError: as `synthesise_videos`; single pictures are no video.
    """
    found = find_layout(root, layout)
    if output.held_out:
        raise DataError(f"{root}: its splits stay as they are; a share for val is for inputs that have none")
    clips = []
    for name in [split] if split else found.splits(root):
        sequences = scan(root, name, found, found.kinds[0] if found.kinds else "blur")
        if "" in sequences:
            raise DataError(f"{root}: holds single pictures, no video; `--mode photos` makes clips of them")
        for sequence, pairs in sequences.items():
            files = [pair.gt or pair.lq for pair in pairs]
            averaging, window = options.averaging, 0
            if published:
                window, first = gopro_exposure(sequence)
                averaging = dataclasses.replace(averaging, frames=window, stride=window, duty=None, first=first)
            source = PictureSource(Path(sequence), files)
            rate = _rate(root / name / sequence, source, output)
            clips.append(_Clip(sequence.replace("/", "_"), source, name, averaging, rate, tuple(files), window))
    return _average(clips, output, options)


def _rate(path: Path, source: FrameSource, output: Output) -> Fraction | None:
    if not output.videos:
        return None
    if output.frame_rate is not None:
        return Fraction(output.frame_rate).limit_denominator(1001)
    rate: Fraction | None = getattr(source, "rate", None)
    if rate is None:
        raise DataError(f"{path}: pictures do not tell how many there are a second; state the frame rate")
    return rate


def _average(clips: list[_Clip], output: Output, options: AverageOptions) -> dict[Path, int]:
    title = f"averaging {clips[0].source.name if len(clips) == 1 else f'{len(clips)} sequences'}"
    return make(output, lambda o: [_average_job(clip, options, o) for clip in clips], title)


def _average_job(clip: _Clip, options: AverageOptions, output: Output) -> Job:
    averaging = clip.averaging
    source = ShrunkSource(clip.source, options.scale) if options.scale != 1 else clip.source

    def pairs() -> Iterator[Pair]:
        made = average_frames(source, averaging, SensorNoise(options.noise), output.rng(clip.name))
        made = itertools.islice(made, options.limit)
        first = next(made, None)
        if first is None:
            raise DataError(
                f"{source.name}: has fewer than {averaging.needed} frames, and a blurred frame is the average of so "
                "many; take a longer video or average fewer frames"
            )
        return compress_pairs(itertools.chain([first], made), options.crf)

    identity = clip.identity()
    recipe = identity and {
        "mode": "average",
        **dataclasses.asdict(dataclasses.replace(options, averaging=averaging)),
        "seed": output.seed,
        "source": identity,
    }
    target = SequenceTarget(
        output.root,
        clip.split,
        clip.name,
        recipe,
        video_rate=clip.rate and clip.rate / averaging.step,
        names=clip.frame_name,
        overwrite=output.overwrite,
    )
    length = source.length
    return Job(target, pairs, length and min(averaging.pairs(length), options.limit or length))


def synthesise_photos(
    paths: Sequence[Path],
    output: Output,
    options: ClipOptions,
    *,
    size: tuple[int, int] = (360, 640),
    length: int = 20,
    limit: int | None = None,
) -> dict[Path, int]:
    """Make a clip of each photo; it gives a sequence with the photo's name, folders in it joined by `_`.

    Args:
        paths: folders of photos, with all folders in them, or photos. size: height and width of frames; photos that are
            too small for it are left out, with a warning. length: frames of each clip. limit: at most so many photos.

    Returns:
        pairs of each sequence, by its folder (with `output.lmdb`: by its place in the LMDBs).

    Raises:
        DataError: no photo, none that is large enough, two of one name, wrong numbers.
    """
    from deblurkit.data.store import DiskStore

    height, width = size
    if min(size) < 16 or length < 1 or (limit is not None and limit < 1):
        raise DataError(f"{length} frames of {width}x{height}: at least 1 frame, of 16x16 pixels or more")
    files = _photos(paths)
    clips = PhotoClips(DiskStore(files), list(files), options)
    large = [name for name in files if clips.fits(name, height, width)]
    if not large:
        clips.check(next(iter(files)), height, width)
    if len(large) < len(files):
        warn(f"{len(files) - len(large)} of {len(files)} photos are too small for frames of {width}x{height}: left out")
    chosen = dict(zip(large[:limit], output.splits(len(large[:limit])), strict=True))
    rate = Fraction(output.frame_rate or 25).limit_denominator(1001) if output.videos else None

    def job(name: str, out: Output) -> Job:
        stat = files[name].stat()
        recipe = {
            **dataclasses.asdict(options),
            "size": size,
            "length": length,
            "seed": out.seed,
            "photos": zlib.crc32("/".join(files).encode()),  # of any of them things before this one may be cut out
            "source": {"name": files[name].name, "bytes": stat.st_size, "newest": stat.st_mtime_ns},
        }
        target = SequenceTarget(out.root, chosen[name], name, recipe, video_rate=rate, overwrite=out.overwrite)
        return Job(target, lambda: clips.make(out.rng(name), name, height, width, length), length)

    title = f"blurring {next(iter(chosen)) if len(chosen) == 1 else f'{len(chosen)} photos'}"
    return make(output, lambda out: [job(name, out) for name in chosen], title)


def _photos(paths: Sequence[Path]) -> dict[str, Path]:
    """The photos behind some paths, by the names of their sequences."""
    files: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            (pairs,) = PhotosLayout().find(path, "all", "blur").values()
            found = [(pair.name, pair.lq) for pair in pairs]
        elif path.is_file() and is_image(path):
            found = [(path.stem, path)]
        else:
            raise DataError(f"{path}: {'is no picture' if path.exists() else 'does not exist'}")
        for name, file in found:
            if name in files:
                raise DataError(f"{file}: {files[name]} gives a sequence of the same name ({name}); rename one")
            files[name] = file
    if not files:
        raise DataError(f"{', '.join(map(str, paths))}: holds no pictures")
    return files
