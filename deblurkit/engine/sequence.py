"""How networks of each kind go through the frames of a video, shot by shot."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deblurkit.data.frame_sampling import window_indices
from deblurkit.engine.calls import PlainCall, SharedCall, Snapshot, StreamCall
from deblurkit.engine.feed import Feed, Seen, checked
from deblurkit.engine.memory import give_back_freed_memory
from deblurkit.engine.runner import Runner
from deblurkit.engine.shots import AROUND, mark_cuts, split_shots
from deblurkit.engine.transfer import Leaving
from deblurkit.errors import DataError
from deblurkit.image_io import Pixels

if TYPE_CHECKING:
    from deblurkit.contract import TimePadding

#: Called after each frame of a stream with the position of the next one, and what gives the snapshot to go on there.
Passing = Callable[[int, Callable[[], Snapshot]], None]


@dataclass(frozen=True)
class Part:
    """Which frames of a video are restored.

    Attributes:
        wanted: positions, ascending; a range may go beyond the end; None: all.
        begin: a stream goes through the frames from here on; those before are context only, or of an earlier shot.
        earlier: of a stream, its states after frame `begin` - 1, where no shot begins; None: it begins anew.
        passing: see `Passing`.
        starts_at: the frames that are given begin with this one. origin: those before this one only tell where shots
            begin (`Walk.origin`). shot_began: called with the first frame of each shot that begins later.
    """

    wanted: Sequence[int] | None = None
    begin: int = 0
    earlier: Snapshot | None = None
    passing: Passing = lambda position, snapshot: None
    starts_at: int = 0
    origin: int = 0
    shot_began: Callable[[int], None] = lambda position: None

    @classmethod
    def between(cls, first: int, stop: int | None, *rest: Any) -> Part:
        """From a frame up to another one, None: the end; `rest` as the class."""
        return cls(range(first, sys.maxsize if stop is None else stop), *rest)

    def behind(self, first: int) -> Sequence[int] | None:
        """What is wanted from frame `first` on, counted from there."""
        if self.wanted is None:
            return None
        if isinstance(self.wanted, range):
            return range(max(self.wanted.start - first, 0), max(self.wanted.stop - first, 0))
        return [position - first for position in self.wanted if position >= first]


EVERYTHING = Part()


@dataclass(frozen=True)
class Walk:
    """Takes a network through videos.

    Attributes:
        runner: calls the network. time_padding, shots: see `Restorer`.
        clip_length, clip_overlap: of the segments of networks of kind "clip", without their context.
        exact: networks of kind "clip" see whole shots, by way of `restore_exactly`.
    """

    runner: Runner
    time_padding: TimePadding
    clip_length: int
    clip_overlap: int
    shots: bool | Collection[int] = False
    exact: bool = False

    @property
    def kind(self) -> str:
        """Of the network."""
        return self.runner.net.contract.kind

    @property
    def context(self) -> tuple[int, int]:
        """Of the network."""
        return self.runner.net.contract.context

    @property
    def lookahead(self) -> int:
        """How many frames after a frame its result can depend on, those that find changes of shot included."""
        if self.exact:
            return sys.maxsize
        segments = 2 * self.clip_length if self.kind == "clip" else 0
        return sum(self.context) + segments + (2 * AROUND if self.shots is True else 0)

    @property
    def burst(self) -> int:
        """How many frames the network takes, and gives, at one time."""
        return self.clip_length - 2 * self.clip_overlap if self.kind == "clip" and not self.exact else 1

    def origin(self, first: int, shot: int | None) -> int:
        """From which frame on a network has to be given frames for what it makes of frame `first` in the whole video.

        Args:
            first: of a stream, the frame before which its state is known.
            shot: the frame with which the shot of frame `first` - 1 begins; None: not known.
        """
        if self.kind == "image":
            return first
        if self.kind != "clip":
            return max(first - max(sum(self.context), 1), 0)  # (a stream that goes on is in a shot that began before)
        if shot is None or self.exact:
            return shot or 0
        # where a segment begins, before the one that ends up to a segment's length behind the one of frame `first`
        step = self.clip_length - 2 * self.clip_overlap
        own = (first - shot - self.clip_overlap) // step
        return shot + max(((own - 1) * step - self.context[0]) // step * step, 0)

    def needs_until(self, stop: int) -> int:
        """See `Restorer.needs_until`."""
        if self.exact and not isinstance(self.shots, bool):
            return min((cut for cut in self.shots if cut >= stop), default=sys.maxsize)
        return min(stop + self.lookahead, sys.maxsize)

    @property
    def glance(self) -> int:
        """How many frames before a frame tell whether a new shot begins with it."""
        return AROUND + 1 if self.shots is True and self.kind != "image" else 0

    def look(self, frames: Iterable[Pixels], part: Part, send: bool) -> Iterator[Seen]:
        """What there is to do with frames before the network needs them; `restore` takes it from there.

        Args:
            frames: from `part.starts_at` on; those of the Python interface may be float32.
            send: to the device, for another thread than the one that restores.

        Raises:
            DataError: see `checked`.
        """
        contract, has_time = self.runner.net.contract, self.kind != "image"
        cuts = self.shots if has_time and not isinstance(self.shots, bool) else ()
        pixels = checked(frames, has_time, part.starts_at, floats=True, channels=contract.channels)
        marked = mark_cuts(
            pixels, None if has_time and self.shots is True else [position - part.starts_at for position in cuts]
        )
        needed = self._needed(part) if send and not self.exact else range(0)
        for position, (frame, cut) in enumerate(marked, part.starts_at):
            if position < part.origin:
                continue
            seen = Seen(frame, cut and position > part.origin)
            if position in needed:
                self.runner.send(seen)
            yield seen

    def _needed(self, part: Part) -> range:
        """Positions that a part can depend on, with some more."""
        wanted = range(sys.maxsize) if part.wanted is None else part.wanted
        if not wanted:
            return range(0)
        reach = sum(self.context) + (self.clip_length if self.kind == "clip" else 0)
        first = part.begin if self.kind == "stream" else wanted[0]
        return range(first - reach, wanted[-1] + reach + 1)

    def restore(self, seen: Iterable[Seen], part: Part) -> Iterator[tuple[int, Leaving]]:
        """Position and restored frame, in order; see `Restorer.restore_tensors`."""
        wanted = part.wanted
        if wanted is not None and not wanted:
            return
        count = part.origin
        for start, shot in split_shots((frame, frame.begins_shot) for frame in seen):
            first, feed = part.origin + start, Feed(shot)
            if start:
                part.shot_began(first)
            found = self._exactly(feed, first, part) if self.exact else self._restore_shot(feed, first, part)
            for position, restored in found:
                yield first + position, restored
            count = first + feed.count
            if wanted is not None and wanted[-1] < count:
                return
        if wanted is not None and not isinstance(wanted, range):
            raise DataError(f"frame {wanted[-1]} is to be restored, but there are only {count}")

    def _restore_shot(self, feed: Feed, first: int, part: Part) -> Iterator[tuple[int, Leaving]]:
        if self.kind == "stream":
            return self._stream(feed, first, part)
        wanted = part.behind(first)
        if self.kind == "clip":
            return self._segments(feed, wanted)
        return self._windows(feed, wanted)

    def _exactly(self, feed: Feed, first: int, part: Part) -> Iterator[tuple[int, Leaving]]:
        from deblurkit.engine.exact import restore_exactly

        wanted = part.behind(first)
        for position, restored in restore_exactly(self.runner, feed.all()):
            if wanted is None or position in wanted:
                yield position, Leaving(restored)

    def _windows(self, feed: Feed, wanted: Sequence[int] | None) -> Iterator[tuple[int, Leaving]]:
        past, future = self.context
        reach = past + future  # paddings mirror within the window's length
        call = SharedCall(self.runner) if self.runner.net.splits else PlainCall(self.runner)
        for center in itertools.count() if wanted is None else wanted:
            feed.forget_before(center - reach)
            feed.read_to(center + reach)
            if center >= feed.count:
                return
            if isinstance(call, SharedCall):
                call.forget_before(center - past)
            positions = window_indices(center, past, future, feed.count, self.time_padding)
            yield center, self.runner.restore(feed, positions, call)

    def _stream(self, feed: Feed, first: int, part: Part) -> Iterator[tuple[int, Leaving]]:
        past, future = self.context
        reach = past + future
        wanted, start = part.behind(first), max(part.begin - first, 0)
        call = StreamCall(self.runner, part.earlier if first < part.begin else None)
        for now in itertools.count(start) if wanted is None else range(start, wanted[-1] + 1):
            feed.forget_before(now - reach)
            feed.read_to(now + reach)
            if now >= feed.count:
                return
            positions = window_indices(now, past, future, feed.count, self.time_padding)
            restored = self.runner.restore(feed, positions, call)
            part.passing(first + now + 1, call.snapshot)
            if wanted is None or now in wanted:
                yield now, restored

    def _segments(self, feed: Feed, wanted: Sequence[int] | None) -> Iterator[tuple[int, Leaving]]:
        past, future = self.context
        length, start, done = self.clip_length, 0, 0
        while True:
            feed.forget_before(start - length - past)  # the last segment moves back to be of full length
            feed.read_to(start + length + past + future)
            last = feed.count <= start + length
            if last:
                start = max(feed.count - length, 0)
            stop = min(start + length, feed.count)
            until = stop if last else stop - self.clip_overlap
            keep = [position for position in range(done, until) if wanted is None or position in wanted]
            if keep:
                yield from self._restore_segment(feed, start, stop, keep)
            if last or (wanted is not None and until > wanted[-1]):
                return
            start, done = until - self.clip_overlap, until

    def _restore_segment(self, feed: Feed, start: int, stop: int, keep: list[int]) -> Iterator[tuple[int, Leaving]]:
        """The frames `keep` of the segment from `start` to `stop` - 1; nothing of it stays for the next one."""
        call = PlainCall(self.runner, rows=[position - start for position in keep])
        restored = self.runner.restore(feed, self._segment(start, stop, feed.count), call).rows()
        yield from zip(keep, restored, strict=True)
        del restored
        give_back_freed_memory()

    def _segment(self, start: int, stop: int, count: int) -> list[int]:
        """Positions that a clip network sees in order to restore `start` to `stop` - 1."""
        past, future = self.context
        before = window_indices(start, past, 0, count, self.time_padding)[:-1]
        after = window_indices(stop - 1, 0, future, count, self.time_padding)[1:]
        positions = [*before, *range(start, stop), *after]
        return positions + positions[-1:] * (-len(positions) % self.runner.net.contract.time_multiple)
