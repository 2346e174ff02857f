"""Restoring files: what the inputs are, where the results go, one job after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deblurkit.console import fail, progress, say
from deblurkit.engine.pipeline import restore_into
from deblurkit.errors import DataError, DeblurkitError
from deblurkit.image_io import IMAGE_ENDINGS, natural_key
from deblurkit.video.frames import FolderSink, PictureSink, PictureSource, open_source

if TYPE_CHECKING:
    from deblurkit.engine.restore import Restorer
    from deblurkit.video.reader import VideoReader
    from deblurkit.video.writer import VideoWriter

_SUFFIX = "_deblurred"


@dataclass(frozen=True)
class Encoding:
    """How videos are written; see `deblurkit.video.writer.VideoWriter`."""

    codec: str | None = None
    crf: int | None = None
    lossless: bool = False


def infer(
    restorer: Restorer,
    inputs: Sequence[str],
    output: str | None = None,
    encoding: Encoding = Encoding(),
    overwrite: bool = False,
) -> list[Path]:
    """Restore videos, pictures and folders of frames.

    The result of `NAME.EXT` is `NAME_deblurred.EXT` beside it; a folder of frames gives a folder. A job that fails
    leaves nothing under its name, and the jobs after it go on.

    Args:
        inputs: files, folders and patterns (`*.mp4`); a pattern stands for the files that match it.
        output: a folder for the results, or the name of the result where there is one input.
        overwrite: replace results that exist.

    Returns:
        the results.

    Raises:
        DeblurkitError: nothing to do, two results of one name, or a job failed (with several, all are tried first).
    """
    paths = list(expand(inputs))
    into_folder = output is not None and (len(paths) > 1 or output.endswith(("/", "\\")) or Path(output).is_dir())
    results: list[Path] = []
    failed: list[Path] = []
    stills = 0
    for path in paths:
        try:
            source = open_source(path)
            stills += isinstance(source, PictureSource) and path.is_file()
            target = _target(source, output, into_folder, encoding)
            if target in results:
                raise DataError(f"{path}: its result would replace {target}, which this command has just written")
            _check_target(path, target, overwrite)
            _restore(restorer, source, target, encoding, overwrite)
            results.append(target)
        except DeblurkitError as error:
            if len(paths) == 1:
                raise
            fail(str(error))
            failed.append(path)
    if failed:
        raise DeblurkitError(f"{len(failed)} of {len(paths)} inputs failed: {', '.join(str(path) for path in failed)}")
    if stills > 1 and restorer.net.contract.kind != "image":
        say(
            f"{stills} pictures were restored one by one, each as a video that stands still; to restore them as the "
            "frames of one video, give their folder"
        )
    return results


def expand(inputs: Sequence[str]) -> Iterator[Path]:
    """The files that inputs stand for; a pattern gives its matches in natural order.

    Raises:
        DataError: a pattern matches nothing, or there are no inputs.
    """
    if not inputs:
        raise DataError("no input: name videos, pictures, folders of frames or patterns")
    for name in inputs:
        path = Path(name)
        if path.exists() or not any(sign in name for sign in "*?["):
            yield path
            continue
        folder = Path(path.anchor)
        matches = sorted(folder.glob(str(path.relative_to(folder))), key=lambda match: natural_key(str(match)))
        if not matches:
            raise DataError(f"{name}: matches no file")
        yield from matches


def _target(source: VideoReader | PictureSource, output: str | None, into_folder: bool, encoding: Encoding) -> Path:
    """Where the result of a source goes; says so where it becomes another kind of file."""
    path = source.path.resolve() if source.path.name in ("", ".", "..") else source.path
    is_folder = path.is_dir()
    if isinstance(source, PictureSource):
        suffix = "" if is_folder else path.suffix.lower() if path.suffix.lower() in IMAGE_ENDINGS else ".png"
    else:
        from deblurkit.video.writer import result_suffix

        suffix = result_suffix(source, encoding.codec, encoding.lossless)
    if output is not None and not into_folder and (is_folder or Path(output).suffix):
        return Path(output)
    if not is_folder and suffix != path.suffix.lower():
        say(f"{path.name}: the result is a {suffix} file; {path.suffix or 'its own kind'} cannot hold it")
    name = (path.name if is_folder else path.stem) + _SUFFIX + suffix
    return path.with_name(name) if output is None else Path(output) / name


def _check_target(path: Path, target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if target.samefile(path):
        raise DataError(f"{target}: is the input itself; choose another name with -o")
    if not overwrite:
        raise DataError(f"{target}: exists already; use --overwrite to replace it, or another name with -o")
    if target.is_dir() != path.is_dir():
        kind = "folder" if target.is_dir() else "file"
        raise DataError(f"{target}: exists and is a {kind}; use another name with -o")


def _restore(
    restorer: Restorer, source: VideoReader | PictureSource, target: Path, encoding: Encoding, overwrite: bool
) -> None:
    started = time.monotonic()
    with (
        _sink(source, target, encoding, overwrite) as sink,
        progress(f"restoring {source.name}", source.length) as done,
    ):
        frames = restore_into(restorer, source, sink, done)
    seconds = time.monotonic() - started
    rate = frames / max(seconds, 1e-9)
    noun = "frame" if frames == 1 else "frames"
    say(f"{source.name}: {frames} {noun} in {seconds:.1f} s ({rate:.1f} per second) -> {target}")


@contextmanager
def _sink(
    source: VideoReader | PictureSource, target: Path, encoding: Encoding, overwrite: bool
) -> Iterator[PictureSink | FolderSink | VideoWriter]:
    sink: PictureSink | FolderSink | VideoWriter
    if isinstance(source, PictureSource):
        sink = FolderSink(target, overwrite) if source.path.is_dir() else PictureSink(target)
    else:
        from deblurkit.video.remux import left_out
        from deblurkit.video.writer import VideoWriter

        codec, crf, lossless = encoding.codec, encoding.crf, encoding.lossless
        sink = VideoWriter(target, source, codec=codec, crf=crf, lossless=lossless)
        missing = left_out(source)
        if missing:
            say(f"{source.name}: not carried over: {', '.join(missing)}")
    with sink:
        yield sink
