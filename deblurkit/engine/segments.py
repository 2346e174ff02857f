"""Restoring a video in parts that survive an interruption, and that several processes can share.

The parts lie in the folder `RESULT.parts` beside the result: encoded segments, and for networks with a state the state
after the last of them. When all are there, their packets are copied into the result, which gets its name only then.
Every process reads the video from its start, and restores its own part of it only.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from deblurkit.console import say
from deblurkit.engine.calls import Snapshot
from deblurkit.engine.launch import Place
from deblurkit.engine.parts import Parts, load_state, save_state
from deblurkit.engine.pipeline import restore_into
from deblurkit.engine.shots import find_cuts
from deblurkit.engine.stages import Stages
from deblurkit.errors import DeblurkitError
from deblurkit.files import write_json
from deblurkit.image_io import Pixels
from deblurkit.video.reader import Timing, VideoReader
from deblurkit.video.segment_file import JoiningWriter, SegmentWriter, describe_segment

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
    place: Place | None = None,
    advance: Advance = lambda count: None,
    segment: int | None = None,
    stages: Stages | None = None,
) -> int:
    """Restore a video in parts, those that are there already left out.

    With several processes each restores its part and the first one joins them; a network that carries a state through
    the video is split where a shot begins, and not at all without shots.

    Args:
        target: the result. encoding: arguments of `VideoWriter`. place: this process among those of the job.
        advance: called with numbers of frames that this process has done, those of an earlier run included.
        segment: frames in a segment; None: `SEGMENT`. stages: see `restore_into`.

    Returns:
        number of frames in the result.

    Raises:
        DataError: the folder of parts belongs to another job. And as `Restorer.restore_video`. What is done by then
            stays in the folder.
    """
    place = place or Place(torch.device("cpu"))
    parts = Parts(target)
    job = _Job(restorer, reader, target, dict(encoding), parts, segment or SEGMENT, stages)
    parts.open(job.signature())
    _meet(place)
    try:
        part = job.share(place)
        if part is not None:
            job.restore(*part, advance)
        files = _all_of(parts)
    except BaseException:
        if place.world_size == 1 and not parts.segments():
            parts.remove()
        elif place.is_main:
            done = sum(stop - first for first, (stop, _) in parts.segments().items())
            say(f"{parts.folder}: {done} frames are done; the same command with --resume goes on from there")
        raise
    _meet(place)
    if not place.is_main:
        return parts.end or 0
    with JoiningWriter(target, reader, **encoding) as writer:
        count = writer.join(files)
    parts.remove()
    return count


def _meet(place: Place) -> None:
    if place.world_size > 1:
        dist.barrier()


def _all_of(parts: Parts) -> list[Path]:
    """All segments, in order; waits for those of other processes (who fails ends all)."""
    while True:
        end = parts.end
        if end is not None:
            done, files = parts.done_from(0)
            if done == end:
                return files
        time.sleep(0.1)


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
        self.has_state = restorer.net.contract.kind == "stream"

    def signature(self) -> dict[str, Any]:
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

    def share(self, place: Place) -> tuple[int, int | None] | None:
        """The frames of this process: first, and where they stop (None: the end); None: nothing to do."""
        if place.world_size == 1:
            return 0, None
        length = self.reader.length
        if self.has_state:
            length, borders = self._borders_at_cuts(place)
        else:
            if length is None:
                length = sum(1 for _ in self.reader)
            count = -(-length // self.segment)
            borders = [count * rank // place.world_size * self.segment for rank in range(place.world_size)]
        borders = sorted(set(borders))
        if place.rank >= len(borders):
            return None
        stop = borders[place.rank + 1] if place.rank + 1 < len(borders) else None
        return borders[place.rank], stop

    def _borders_at_cuts(self, place: Place) -> tuple[int, list[int]]:
        """For a network with a state: shares of about equal length that begin with shots."""
        file = self.parts.folder / "shots.json"
        if place.is_main and not file.exists():
            count = 0

            def counted() -> Iterator[Pixels]:
                nonlocal count
                for pixels in self.reader:
                    count += 1
                    yield pixels

            cuts = find_cuts(counted()) if self.restorer.settings["shots"] is True else []
            write_json(file, {"frames": count or self.reader.length, "cuts": cuts})
            if not cuts:
                say(
                    f"{self.reader.name}: {type(self.restorer.net).__name__} carries a state through the video, and no "
                    "new shot begins in it: one process restores it alone"
                )
        while not file.exists():
            time.sleep(0.1)
        plan = json.loads(file.read_text(encoding="utf-8"))
        if plan["cuts"]:
            self.restorer = self.restorer.with_shots(plan["cuts"])
        ideal = [plan["frames"] * rank / place.world_size for rank in range(place.world_size)]
        starts = [0, *plan["cuts"]]
        return plan["frames"], [min(starts, key=lambda start: abs(start - at)) for at in ideal]

    def restore(self, begin: int, stop: int | None, advance: Advance) -> None:
        """Restore a share into segments."""
        first, files = self.parts.done_from(begin)
        if first > begin:
            advance(min(first, stop or first) - begin)
            say(f"{self.reader.name}: goes on at frame {first}; {self.parts.folder} holds those before")
            self.restorer.begin_with_tile(describe_segment(files[-1]).tile)
        if first == self.parts.end or (stop is not None and first >= stop):
            return
        earlier = load_state(self.parts.state(first)) if self.has_state and first > begin else None
        source = _PartSource(self.reader, first, None if stop is None else stop + self.restorer.lookahead)
        sink = _PartSink(self, source, first, begin, stop)
        part = _Part(self.restorer, first, stop, begin if earlier is None else first, earlier, sink.passing)
        with sink:
            restore_into(part, source, sink, advance, self.stages)
        if source.count is not None:
            self.parts.mark_end(source.count)


class _Part:
    """A restorer as the pipeline sees it, that restores a part."""

    def __init__(self, restorer: Restorer, *arguments: Any) -> None:
        self._restorer, self._arguments = restorer, arguments

    def restore_tensors(self, frames: Iterator[Pixels]) -> Iterator[Any]:
        """The frames of the part; reads the source to its end."""
        yield from self._restorer.restore_part(frames, *self._arguments)
        for _ in frames:
            pass


class _PartSource:
    """A video up to a frame; remembers the times of the frames from `first` on.

    Attributes:
        times: by position. count: frames in the video, once it has ended (not: was cut off).
    """

    def __init__(self, reader: VideoReader, first: int, stop: int | None) -> None:
        self._reader, self._first, self._stop = reader, first, stop
        self.times: dict[int, Timing] = {}
        self.count: int | None = None

    def stamped(self) -> Iterator[tuple[Pixels, None]]:
        """As `StampedSource`; the stamps are in `times`."""
        position = 0
        for pixels, timing in self._reader.stamped():
            if position == self._stop:
                return
            if position >= self._first:
                self.times[position] = timing
            position += 1
            yield pixels, None
        self.count = position


class _PartSink:
    """Writes restored frames into one segment after the other."""

    def __init__(self, job: _Job, source: _PartSource, first: int, begin: int, stop: int | None) -> None:
        self._job, self._source, self._position, self._begin, self._stop = job, source, first, begin, stop
        self._writer: SegmentWriter | None = None
        self._first = first

    def __enter__(self) -> _PartSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """Keep what was begun where the video ends; throw it away after an error."""
        if self._writer is None:
            return
        if kind is None:
            self._close()
        else:
            self._writer.__exit__(kind, error, trace)

    def _is_border(self, position: int) -> bool:
        return (position - self._begin) % self._job.segment == 0 or position == self._stop

    def passing(self, position: int, take: Callable[[], Snapshot]) -> None:
        """Keep the state of a stream where a segment ends."""
        if self._is_border(position) and position > self._first:
            save_state(self._job.parts.state(position), take())

    def write(self, pixels: Pixels, stamp: None) -> None:
        """Append a frame."""
        job = self._job
        if self._writer is None:
            # the last segment of a video is shorter: its name is set right when it ends
            self._path = job.parts.folder / f"{self._position:08d}.unfinished"
            self._writer = SegmentWriter(self._path, job.target, job.reader, **job.encoding)
            self._writer.__enter__()
        self._writer.write(pixels, self._source.times.pop(self._position))
        self._position += 1
        if self._is_border(self._position):
            self._close()

    def _close(self) -> None:
        assert self._writer is not None
        writer, self._writer = self._writer, None
        writer.tile = self._job.restorer.tile_in_use
        writer.__exit__(None, None, None)
        parts = self._job.parts
        self._path.replace(parts.segment(self._position - writer.frames, self._position))
        parts.forget_states(self._begin, self._position)


def check_possible(target: Path, comparing: bool) -> None:
    """Raise DeblurkitError where a result cannot be made in parts."""
    if comparing:
        raise DeblurkitError("--resume, --gpus and --procs do not go with --side-by-side and --compare-slider")
    if target.suffix.lower() == ".gif":
        raise DeblurkitError(f"{target}: a .gif cannot be made in parts (--resume, --gpus, --procs)")
