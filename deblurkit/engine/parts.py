"""The folder of a video that is restored in parts: what is done, and what is needed to go on."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from deblurkit.engine.calls import Snapshot
from deblurkit.engine.checkpoint import save_tensors
from deblurkit.errors import DataError
from deblurkit.files import atomic_path, write_json

_SCHEMA = "deblurkit-parts/1"
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
        file = self.folder / "job.json"
        wanted = json.loads(json.dumps({"schema": _SCHEMA, **job}, default=str))
        if not file.exists():
            write_json(file, wanted)
            return
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
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
