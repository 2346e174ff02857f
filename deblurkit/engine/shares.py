"""Which frames of a video each process restores, and the changes of shot that they have to know for it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from deblurkit.console import say
from deblurkit.engine.meeting import Meeting
from deblurkit.engine.parts import Parts
from deblurkit.engine.shots import AROUND, mark_cuts
from deblurkit.files import write_json
from deblurkit.image_io import Pixels
from deblurkit.video.reader import VideoReader

if TYPE_CHECKING:
    from deblurkit.engine.restore import Restorer


class Shares:
    """Divides a video among processes.

    Windows look for changes of shot near them only. Networks that carry a state, and those that see segments of a shot,
    need to know where shots begin before: the processes look for that first, each in its share of the video.

    Args:
        restorer, reader, parts: of the job. segment: shares begin with a multiple of it where the network allows it.
    """

    def __init__(self, restorer: Restorer, reader: VideoReader, parts: Parts, segment: int, meeting: Meeting) -> None:
        self._restorer, self._reader, self._parts, self._segment = restorer, reader, parts, segment
        self._place, self._meeting = meeting.place, meeting
        contract, settings = restorer.net.contract, restorer.settings
        self._whole_shots = contract.kind == "stream" or settings["exact"]
        self._knows_shots = contract.kind in ("stream", "clip") and settings["shots"] is True

    def own(self) -> tuple[Restorer, tuple[int, int | None] | None]:
        """The restorer, told about shots where it has to, and the frames of this process.

        Returns:
            restorer, and first frame and where they stop (None: the end); None: nothing to do.
        """
        size = self._place.world_size
        plan = self._plan(size)
        restorer = self._restorer if plan is None else self._restorer.with_shots(plan["cuts"])
        if size == 1:
            return restorer, (0, None)
        length = plan["frames"] if plan is not None else self._length()
        if self._whole_shots:
            starts = [0, *(plan["cuts"] if plan is not None else ())]
            borders = {min(starts, key=lambda start: abs(start - length * rank / size)) for rank in range(size)}
            if len(starts) == 1 and self._place.is_main:
                net = type(restorer.net).__name__
                say(f"{self._reader.name}: one shot, and {net} needs whole shots: one process restores it alone")
        else:
            count = -(-length // self._segment)
            borders = {count * rank // size * self._segment for rank in range(size)}
        ordered = [*sorted(borders), None]
        rank = self._place.rank
        first = ordered[rank] if rank < len(borders) else None
        return restorer, None if first is None else (first, ordered[rank + 1])

    def _length(self) -> int:
        """About how many frames there are; the same in every process."""
        known = self._reader.length

        def count() -> int:
            if known is None and self._place.is_main:
                return sum(1 for _ in self._reader)
            return known or 0

        return self._meeting.gather(self._meeting.together(count))[0]

    def _plan(self, size: int) -> dict[str, Any] | None:
        """Number of frames, and where shots begin; None where that need not be known."""
        file = self._parts.folder / "shots.json"
        if not self._knows_shots or (size == 1 and not file.exists()):
            return None
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        plan = self._meeting.gather(found)[0]
        if plan is None:
            plan = self._find()
            if self._place.is_main:
                write_json(file, plan)
        return plan

    def _find(self) -> dict[str, Any]:
        length, place = self._length(), self._place
        if place.is_main:
            say(f"{self._reader.name}: looking for changes of shot")
        borders = [length * rank // place.world_size for rank in range(place.world_size)]
        stops = [*borders[1:], None]
        look = self._meeting.together
        found = self._meeting.gather(look(lambda: self._look(borders[place.rank], stops[place.rank])))
        if any(a["next"] != b["first"] for a, b in itertools.pairwise(found)):
            self._reader.enters = False  # frames are not where the index of the file has them
            found = self._meeting.gather(look(lambda: self._look(0, None) if place.is_main else {}))[:1]
        return {"frames": found[-1]["frames"], "cuts": [cut for one in found for cut in one["cuts"]]}

    def _look(self, first: int, stop: int | None) -> dict[str, Any]:
        """Shots that begin with frames `first` to `stop` - 1, and the times of frames `first` and `stop`."""
        start, times = max(first - AROUND - 1, 0), {}
        count = start

        def frames() -> Iterator[Pixels]:
            nonlocal count
            for position, (pixels, timing) in enumerate(self._reader.stamped(start), start):
                if position in (first, stop):
                    times[position] = timing.pts
                count = position + 1
                yield pixels
                if stop is not None and position == stop + AROUND - 1:
                    return

        cuts = [
            position
            for position, (_, cut) in enumerate(mark_cuts(frames()), start)
            if cut and position >= first and (stop is None or position < stop)
        ]
        next_time = None if stop is None else times.get(stop)
        return {"cuts": cuts, "frames": count, "first": times.get(first), "next": next_time}
