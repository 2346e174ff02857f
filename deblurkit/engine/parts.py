"""The folder of a video that is restored in parts: what is done, and what is needed to go on."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from deblurkit.engine.calls import Snapshot
from deblurkit.engine.checkpoint import save_tensors
from deblurkit.errors import DataError
from deblurkit.files import atomic_path, write_json

_SCHEMA = "deblurkit-parts/1"
#: Seconds until what another machine has written to a shared folder is to be seen here.
_PATIENCE = 120.0
_NAME = re.compile(r"(\d+)-(\d+)\.segment")


class Parts:
    """The folder of a job in parts.

    Args:
        target: the result that it is for.

    Attributes:
        folder: where the parts lie.
    """

    def __init__(self, target: Path) -> None:
        self.folder = target.with_name(target.name + ".parts")

    def open(self, job: Mapping[str, Any]) -> None:
        """Make the folder, or take up the one that is there.

        Args:
            job: everything that the result depends on.

        Raises:
            DataError: the folder belongs to another job.
        """
        if not self._job.exists():
            write_json(self._job, _plain(job))
        else:
            self._compare(job)

    def join(self, job: Mapping[str, Any]) -> None:
        """Take up the folder that another process has opened.

        Raises:
            DataError: it is not there, or belongs to another job.
        """
        if not _seen_within(_PATIENCE, self._job.exists):
            raise DataError(
                f"{self.folder}: the first process has made this folder, but it is not to be seen here; machines that "
                "share a job need a folder that all of them see"
            )
        self._compare(job)

    @property
    def _job(self) -> Path:
        return self.folder / "job.json"

    def _compare(self, job: Mapping[str, Any]) -> None:
        wanted = _plain(job)
        try:
            found = json.loads(self._job.read_text(encoding="utf-8"))
        except ValueError:
            found = {}
        differing = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
        if differing:
            raise DataError(
                f"{self.folder}: holds parts of another job ({', '.join(differing)} differ); delete it, or choose "
                "another name with -o"
            )

    def segment(self, first: int, stop: int) -> Path:
        """The file for frames `first` to `stop` - 1."""
        return self.folder / f"{first:08d}-{stop:08d}.segment"

    def state(self, position: int) -> Path:
        """The file for the state before frame `position`."""
        return self.folder / f"{position:08d}.state"

    def segments(self) -> dict[int, tuple[int, Path]]:
        """Whole segments by their first frame: where they stop, and the file."""
        found = {}
        for path in self.folder.glob("*.segment"):
            match = _NAME.fullmatch(path.name)
            if match:
                found[int(match[1])] = (int(match[2]), path)
        return found

    def done_from(self, first: int) -> tuple[int, list[Path]]:
        """Up to where all frames from `first` on are done, and their segments."""
        segments, files = self.segments(), []
        while first in segments:
            first, path = segments[first]
            files.append(path)
        return first, files

    def all(self) -> list[Path]:
        """All segments of the video, in order, once all are done.

        Raises:
            DataError: some are not there.
        """

        def complete() -> bool:
            return self.end is not None and self.done_from(0)[0] == self.end

        if not _seen_within(_PATIENCE, complete):
            raise DataError(
                f"{self.folder}: parts of other processes are missing; machines that share a job need a folder that "
                "all of them see"
            )
        return self.done_from(0)[1]

    def forget_from(self, first: int) -> None:
        """Delete what there is of frames from `first` on, and the number of frames."""
        for position, (_, path) in self.segments().items():
            if position >= first:
                path.unlink()
        for path in self.folder.glob("end.*"):
            path.unlink()

    def forget_states(self, first: int, stop: int) -> None:
        """Delete the states before frames `first` to `stop` - 1: segments behind them are whole."""
        for path in self.folder.glob("*.state"):
            if path.stem.isdecimal() and first <= int(path.stem) < stop:
                path.unlink(missing_ok=True)

    @property
    def end(self) -> int | None:
        """Number of frames of the video, once somebody came to its end."""
        found = [int(path.suffix[1:]) for path in self.folder.glob("end.*")]
        return found[0] if found else None

    def mark_end(self, count: int) -> None:
        """The video has `count` frames."""
        with atomic_path(self.folder / f"end.{count}"):
            pass

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder)


def _plain(job: Mapping[str, Any]) -> dict[str, Any]:
    """As it looks when it was written and read."""
    plain: dict[str, Any] = json.loads(json.dumps({"schema": _SCHEMA, **job}, default=str))
    return plain


def _seen_within(seconds: float, condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def load_state(path: Path) -> Snapshot | None:
    """A snapshot; None where the file is not there (the stream then goes through the frames before again)."""
    if not path.exists():
        return None
    found = torch.load(path, map_location="cpu", weights_only=True)
    return Snapshot(found["height"], found["width"], found["tile"], found["states"])


def save_state(path: Path, snapshot: Snapshot) -> None:
    """Write the snapshot of a stream."""
    with atomic_path(path) as temporary:
        content = {name: getattr(snapshot, name) for name in ("height", "width", "tile", "states")}
        save_tensors(content, temporary)
