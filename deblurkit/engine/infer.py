"""Restoring files: one job after the other, each from one input to one result."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from deblurkit.console import console, fail, progress, say, warn
from deblurkit.engine.compare import Comparing, SliderPage, Watched
from deblurkit.engine.inputs import PIPE, expand, is_pipe, named_pipe, standard_input, without_results
from deblurkit.engine.launch import Place
from deblurkit.engine.meeting import Meeting
from deblurkit.engine.pipeline import restore_into
from deblurkit.engine.results import Encoding, Target, check_output, target_of
from deblurkit.engine.segments import restore_in_parts, why_not_in_parts
from deblurkit.engine.stages import Stages
from deblurkit.errors import DataError, DeblurkitError
from deblurkit.video.frames import PictureSource, open_source

if TYPE_CHECKING:
    from deblurkit.engine.restore import Restorer
    from deblurkit.video.reader import VideoReader

__all__ = ["Comparison", "Encoding", "Job", "Work", "expand", "infer"]

#: Endings of files that are named where the pictures around them are restored.
_TAKEN_FOR_VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mts", ".m2ts", ".wmv", ".mpg")

#: What the names of results end with: of those alone, and of those beside their input.
_MARKS = ("_deblurred", "_side_by_side")


@dataclass(frozen=True)
class Comparison:
    """What is made to compare input and result.

    Attributes:
        side_by_side: the result holds both. page: an HTML page with a slider lies beside the result.
    """

    side_by_side: bool = False
    page: bool = False

    @property
    def mark(self) -> str:
        """What the name of the result ends with."""
        return _MARKS[self.side_by_side]


@dataclass(frozen=True)
class Work:
    """How the work is done.

    Attributes:
        resume: in parts (`deblurkit.engine.segments`), so that an interrupted job can go on; results that are there are
            left as they are. place: this process among those that share the work: whole inputs, or where there are
            fewer of them than processes, each video. benchmark: show how long the stages take.
        in_one_piece: what cannot be made in parts is made without.
    """

    resume: bool = False
    place: Place = field(default_factory=lambda: Place(torch.device("cpu")))
    benchmark: bool = False
    in_one_piece: bool = False

    @property
    def in_parts(self) -> bool:
        """Videos are restored in parts."""
        return self.resume or self.place.world_size > 1


@dataclass(frozen=True)
class Job:
    """One input on its way to its result.

    Attributes:
        meeting: the processes that share it.
    """

    source: VideoReader | PictureSource
    target: Target
    encoding: Encoding
    comparison: Comparison
    overwrite: bool
    work: Work
    meeting: Meeting


_USUAL = Encoding()
_NOTHING = Comparison()
_ALONE = Work()


def infer(
    restorer: Restorer,
    inputs: Sequence[str],
    output: str | None = None,
    encoding: Encoding = _USUAL,
    overwrite: bool = False,
    comparison: Comparison = _NOTHING,
    work: Work = _ALONE,
) -> list[Path]:
    """Restore videos, pictures and folders of frames.

    The result of `NAME.EXT` is `NAME_deblurred.EXT` beside it; a folder of frames gives a folder. A job that fails
    leaves nothing under its name, and the jobs after it go on.

    Args:
        inputs: files, folders, patterns (`*.mp4`; one stands for the files that match it) and `-` for standard input.
        output: a folder for the results, the name of the result where there is one input, or `-` for standard output.
        overwrite: replace results that exist. work: how it is done.

    Returns:
        the results.

    Raises:
        DeblurkitError: nothing to do, two results of one name, or a job failed (with several, all are tried first).
    """
    everybody = Meeting(work.place)
    expanded = everybody.gather(list(expand(inputs)))[0]  # later, there may be results among them
    paths, earlier = without_results(expanded, _MARKS)
    if earlier and work.place.is_main:
        say(f"passed over, as results of other inputs: {', '.join(map(str, earlier))}")
    check_output(output, len(paths))
    results: list[Path] = []
    failed: list[str] = []
    stills = 0
    own, work = _share(paths, work)
    meeting = everybody if work.place.world_size > 1 else Meeting(work.place)
    for path in own:
        try:
            with _opened(path) as source:
                target = target_of(source, output, len(paths) > 1, encoding, comparison.mark)
                if target.path in results:
                    raise DataError(
                        f"{path}: its result would replace {target.path}, which this command has just written"
                    )
                if not meeting.gather(work.resume and not overwrite and _is_done(target, source))[0]:
                    job = Job(source, target, encoding, comparison, overwrite, work, meeting)
                    meeting.together(lambda job=job: _check(job))  # type: ignore[misc]
                    _restore(restorer, job)
                stills += target.kind == "picture"
            results.append(target.path)
        except DeblurkitError as error:
            if len(paths) == 1:
                raise
            fail(str(error))
            failed.append(str(path))
    everybody.wait()  # a process that ends early, or with an error, has its launcher end the others
    if failed:
        raise DeblurkitError(f"{len(failed)} of {len(paths)} inputs failed: {', '.join(failed)}")
    if stills > 1 and restorer.net.contract.kind != "image":
        say(
            f"{stills} pictures were restored one by one, each as a video that stands still; to restore them as the "
            "frames of one video, give their folder"
        )
    return results


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[VideoReader | PictureSource]:
    """The source behind an input; messages call a pipe by its name, not by that of the copy."""
    standard = str(path) == PIPE
    if not standard and not is_pipe(path):
        yield _open(path)
        return
    with standard_input() if standard else named_pipe(path) as file:
        try:
            source = _open(file)
            source.name = str(path)
            yield source
        except DeblurkitError as error:
            raise type(error)(str(error).replace(str(file), str(path))) from error


def _open(path: Path) -> VideoReader | PictureSource:
    try:
        source = open_source(path)
    except PermissionError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    source.name = source.name or path.resolve().name  # of "."
    if path.is_dir():
        videos = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in _TAKEN_FOR_VIDEOS)
        if videos:
            say(f"{path}: its pictures are the frames; videos in it are passed over: {', '.join(videos)}")
    elif not isinstance(source, PictureSource) and source.interlaced:
        warn(
            f"{path}: is interlaced (two moments in the lines of one frame), for which no network was trained; "
            "deinterlace it first, for example with `ffmpeg -vf bwdif`"
        )
    return source


def _share(paths: list[Path], work: Work) -> tuple[list[Path], Work]:
    """The inputs of this process; with fewer inputs than processes, all share each."""
    place = work.place
    if place.world_size == 1 or len(paths) < place.world_size:
        return paths, work
    return paths[place.rank :: place.world_size], replace(
        work, resume=True, place=Place(place.device), in_one_piece=not work.resume
    )


def _is_done(target: Target, source: VideoReader | PictureSource) -> bool:
    """The result is there, from an earlier run; says so."""
    if target.piped or not target.exists() or target.path.samefile(source.path):
        return False
    say(f"{source.name}: {target.path} is there")
    return True


def _check(job: Job) -> None:
    """Raise DeblurkitError where the result cannot be written."""
    job.target.check(job.source.path, job.overwrite)
    _check_page(job.target, job.comparison, job.overwrite)


def _check_page(target: Target, comparison: Comparison, overwrite: bool) -> None:
    if comparison.page and target.piped:
        raise DataError("--compare-slider: the page needs a place; give the result a name with -o FILE")
    if comparison.page and target.page_exists() and not overwrite:
        raise DataError(f"{target.page}: exists already; use --overwrite to replace it, or another name with -o")


def _in_parts(job: Job) -> bool:
    """Whether the result is made in parts; raises DeblurkitError where it has to be and cannot."""
    target, work = job.target, job.work
    if not work.in_parts or target.kind != "video" or target.piped:
        return False
    reason = why_not_in_parts(target.path, job.comparison != _NOTHING)
    if reason is not None and not work.in_one_piece:
        raise DeblurkitError(reason)
    return reason is None


def _restore(restorer: Restorer, job: Job) -> None:
    started = time.monotonic()
    source, target, comparison = job.source, job.target, job.comparison
    page = SliderPage(source.name) if comparison.page else None
    stages = Stages()
    if not isinstance(source, PictureSource) and _in_parts(job):
        target.sink(source, job.encoding, job.overwrite, job.work.place.is_main)  # what cannot be written is said now
        count = _restore_parts(restorer, job, source, stages)
        _report(job, count, started, stages, None)
        return
    if not job.work.place.is_main:
        return
    try:
        with target.sink(source, job.encoding, job.overwrite) as sink:
            frames: Any = source
            place: Any = sink
            if page is not None or comparison.side_by_side:
                frames, place = Watched(source), Comparing(sink, comparison.side_by_side, page)
            with progress(f"restoring {source.name}", source.length) as done:
                count = restore_into(restorer, frames, place, done, stages)
    except BrokenPipeError:
        raise DeblurkitError("-o -: the program that reads standard output has ended") from None
    if page is not None:
        page.write(target.page)
    _report(job, count, started, stages, page)


def _restore_parts(restorer: Restorer, job: Job, source: VideoReader, stages: Stages) -> int:
    encoding, place = job.encoding, job.work.place
    settings = {"codec": encoding.codec, "crf": encoding.crf, "lossless": encoding.lossless}
    which = f" (process {place.rank + 1} of {place.world_size})" if place.world_size > 1 else ""
    with progress(f"restoring {source.name}{which}", source.length if not which else None) as done:
        return restore_in_parts(restorer, source, job.target.path, settings, job.meeting, done, stages=stages)


def _report(job: Job, count: int, started: float, stages: Stages, page: SliderPage | None) -> None:
    if job.work.benchmark:
        console.print(stages.table())
    if not job.work.place.is_main:
        return
    source, target = job.source, job.target
    seconds = time.monotonic() - started
    now = stages.frames if job.work.place.world_size == 1 else count  # others' frames are known by the result alone
    rate = now / max(seconds, 1e-9)
    noun = "frame" if count == 1 else "frames"
    earlier = f" ({count - now} by an earlier run)" if now < count else ""
    also = f", {target.page}" if page is not None else ""
    place = "standard output" if target.piped else target.path
    say(f"{source.name}: {count} {noun}{earlier} in {seconds:.1f} s ({rate:.1f} per second) -> {place}{also}")
