"""Restoring a video in parts that survive an interruption, and that several processes can share.

The parts lie in the folder `RESULT.parts` beside the result: encoded segments, and for networks with a state the state
after the last of them. When all are there, their packets are copied into the result, which gets its name only then.

A part is read from the last place before it where decoding can begin. That its frames are the right ones is checked
where it meets the part before it: both note times and checksums of the frames there.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from deblurkit.console import say
from deblurkit.engine.feed import Seen
from deblurkit.engine.launch import Place
from deblurkit.engine.meeting import Meeting
from deblurkit.engine.part_ends import Borders, ElsewhereError, PartSink, PartSource
from deblurkit.engine.parts import Parts, load_state
from deblurkit.engine.pipeline import restore_into
from deblurkit.engine.sequence import Part
from deblurkit.engine.shares import Shares
from deblurkit.engine.stages import Stages
from deblurkit.engine.transfer import Leaving
from deblurkit.image_io import Pixels
from deblurkit.video.reader import VideoReader
from deblurkit.video.segment_file import Description, JoiningWriter, SegmentWriter, describe_segment

if TYPE_CHECKING:
    from deblurkit.engine.restore import Restorer

#: Frames in a segment; what an interruption can cost.
SEGMENT = 200

Advance = Callable[[int], None]


def restore_in_parts(
    restorer: Restorer,
    reader: VideoReader,
    target: Path,
    encoding: Mapping[str, Any],
    meeting: Meeting | None = None,
    advance: Advance = lambda count: None,
    segment: int | None = None,
    stages: Stages | None = None,
) -> int:
    """Restore a video in parts, those that are there already left out.

    With several processes each restores its part and the first one joins them; a network that carries a state through
    the video, or sees whole shots, is split where a shot begins, and not at all without shots.

    Args:
        target: the result. encoding: arguments of `VideoWriter`. meeting: the processes of the job; None: this one.
        advance: called with numbers of frames that this process has done, those of an earlier run included.
        segment: frames in a segment; None: `SEGMENT`. stages: see `restore_into`.

    Returns:
        number of frames in the result.

    Raises:
        DataError: the folder of parts belongs to another job. And as `Restorer.restore_video`. What is done by then
            stays in the folder.
    """
    meeting = meeting or Meeting(Place(torch.device("cpu")))
    place, parts = meeting.place, Parts(target)
    job = _Job(restorer, reader, target, dict(encoding), parts, segment or SEGMENT, stages)
    job.open(meeting)
    try:
        job.restorer, share = Shares(restorer, reader, parts, job.segment, meeting).own()
        meeting.together(lambda: None if share is None else job.restore(*share, advance))
        files = meeting.together(lambda: job.whole(advance) if place.is_main else [])
    except BaseException:
        if place.world_size == 1 and not parts.segments():
            parts.remove()
        elif place.is_main:
            done = sum(stop - first for first, (stop, _) in parts.segments().items())
            say(f"{parts.folder}: {done} frames are done; the same command with --resume goes on from there")
        raise
    if not place.is_main:
        return parts.end or 0
    with JoiningWriter(target, reader, **encoding) as writer:
        count = writer.join(files)
    parts.remove()
    return count


class _Job:
    """A video on its way through its parts."""

    def __init__(
        self,
        restorer: Restorer,
        reader: VideoReader,
        target: Path,
        encoding: dict[str, Any],
        parts: Parts,
        segment: int,
        stages: Stages | None,
    ) -> None:
        self.restorer, self.reader, self.target, self.encoding = restorer, reader, target, encoding
        self.parts, self.segment, self.stages = parts, segment, stages

    def open(self, meeting: Meeting) -> None:
        """Make the folder of parts, or take up the one that is there.

        Raises:
            DataError: it belongs to another job, or is not the same one for all processes.
        """
        signature, is_main = self._signature(), meeting.place.is_main
        meeting.together(lambda: self.parts.open(signature) if is_main else None)
        meeting.together(lambda: None if is_main else self.parts.join(signature))

    def _signature(self) -> dict[str, Any]:
        """What the result depends on."""
        net, file = self.restorer.net, self.reader.path.stat()
        digest = hashlib.sha256()
        for name, value in net.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return {
            "source": {"name": self.reader.path.name, "bytes": file.st_size, "changed": file.st_mtime_ns},
            "network": net.config,
            "weights": digest.hexdigest(),
            "io": net.io.to_mapping(),
            "settings": self.restorer.settings,
            "encoding": self.encoding,
        }

    def restore(self, begin: int, stop: int | None, advance: Advance) -> None:
        """Restore a share into segments."""
        first, files = self.parts.done_from(begin)
        before: Description | None = None
        if first > begin:
            advance(min(first, stop or first) - begin)
            say(f"{self.reader.name}: goes on at frame {first}; {self.parts.folder} holds those before")
            before = describe_segment(files[-1])
            self.restorer.begin_with_tile(before.tile)
        if first == self.parts.end or (stop is not None and first >= stop):
            return
        try:
            self._restore_from(first, Borders(begin, stop, self.segment), before, advance)
        except ElsewhereError:
            self.reader.enters = False
            self._restore_from(first, Borders(begin, stop, self.segment), before, advance)

    def _restore_from(self, first: int, borders: Borders, before: Description | None, advance: Advance) -> None:
        begin, stop, restorer = borders.begin, borders.stop, self.restorer
        has_state = restorer.net.contract.kind == "stream"
        earlier = load_state(self.parts.state(first)) if has_state and first > begin else None
        known = before.shot if before is not None else None
        shots = [shot for shot in (0 if first == 0 else known,) if shot is not None]
        part = restorer.part(first, stop, begin if earlier is None else first, earlier, known)
        until = None if stop is None else max(restorer.needs_until(stop), stop + 1)
        source = PartSource(self.reader, first, part.starts_at, until, borders, before)

        def new_writer(path: Path) -> SegmentWriter:
            return SegmentWriter(path, self.target, self.reader, **self.encoding)

        sink = PartSink(restorer, self.parts, source, first, borders, new_writer, shots)
        part = replace(part, passing=sink.passing, shot_began=shots.append)
        with sink:
            restore_into(_PartRestorer(restorer, part), source, sink, advance, self.stages)
        if source.count is not None:
            self.parts.mark_end(source.count)

    def whole(self, advance: Advance) -> list[Path]:
        """All segments, in order; those that do not go with the one before them are made again.

        (The frames of a damaged or odd file may not be where its index has them.)
        """
        while True:
            files = self.parts.all()
            ends = [describe_segment(file) for file in files]
            wrong = [place for place, (a, b) in enumerate(itertools.pairwise(ends), 1) if not b.follows(a)]
            if not wrong:
                return files
            begin = sum(end.frames for end in ends[: wrong[0]]) if self.reader.enters else 0
            self.reader.enters = False
            say(f"{self.reader.name}: cannot be read from its middle; restored again from frame {begin} on")
            self.parts.forget_from(begin)
            self.restore(begin, None, advance)


class _PartRestorer:
    """A restorer as the pipeline sees it, that restores a part."""

    def __init__(self, restorer: Restorer, part: Part) -> None:
        self._restorer, self._part = restorer, part

    @property
    def burst(self) -> int:
        """As `Restorer.burst`."""
        return self._restorer.burst

    def look(self, frames: Iterator[Pixels]) -> Iterator[Seen]:
        """As `Restorer.look`."""
        return self._restorer.look(frames, self._part)

    def restore_seen(self, seen: Iterator[Seen]) -> Iterator[tuple[int, Leaving]]:
        """The frames of the part; reads the source to its end."""
        yield from self._restorer.restore_seen(seen, self._part)
        for _ in seen:
            pass


def why_not_in_parts(target: Path, comparing: bool) -> str | None:
    """Why a result cannot be made in parts; None where it can."""
    if comparing:
        return "--resume, --gpus and --procs do not go with --side-by-side and --compare-slider"
    if target.suffix.lower() == ".gif":
        return f"{target}: a .gif cannot be made in parts (--resume, --gpus, --procs)"
    return None
