"""Sequences of blurred/sharp pairs on the disk: whole or not there, with a record of how they were made."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

from deblurkit.data.synthesis import Pair
from deblurkit.errors import DataError, DeblurkitError
from deblurkit.files import sync, write_json
from deblurkit.image_io import write_image

#: In a sequence's folder: how it was made.
RECORD = "synthesis.json"
SCHEMA = "deblurkit-synthesis/1"


class SequenceTarget:
    """A sequence OUT_ROOT/SPLIT/NAME/{blur,sharp}/000000.png ... (layout `paired`) to be written.

    It is built as `.NAME.partial` and gets its name when it is complete. `RECORD` in it says how it was made.

    Args:
        recipe: all that its frames depend on; a sequence that was made by the same is left alone. None: nobody knows.
        video_rate: frames per second of the pairs. Given, they are also written as the videos NAME_blur.mp4 and
            NAME_sharp.mp4 beside the sequence.
        names: of the frames, without ending; None: 000000, 000001, ...
        overwrite: replace a sequence that bears the name already.

    Attributes:
        folder: of the sequence. done: pairs that are there already, by the same recipe; None: it is to be made.

    Raises:
        DataError: it, or one of its videos, is there already and was made otherwise; with `overwrite` only where
            something would be lost that is no such sequence. Or readers of the layout would not find the name.
    """

    def __init__(
        self,
        out_root: str | Path,
        split: str,
        name: str,
        recipe: Mapping[str, Any] | None,
        *,
        video_rate: Fraction | None = None,
        names: Callable[[int], str] | None = None,
        overwrite: bool = False,
    ) -> None:
        if Path(name).name != name or not name or name.startswith("."):
            raise DataError(
                f"{name!r} cannot be a sequence's name: it must be a file name that does not begin with a dot"
            )
        self.folder = Path(out_root) / split / name
        self._names = names or (lambda index: f"{index:06d}")
        self._rate = video_rate
        # as it is when it has been read from JSON again
        facts = {**(recipe or {}), "videos": str(video_rate) if video_rate else None}
        self._recipe, self._known = json.loads(json.dumps(facts)), recipe is not None
        self.done, ours = self._found()
        if self.done is not None:
            return
        for path in (self.folder, *(self._videos() if video_rate else ())):
            if path.exists() and not overwrite and not ours:
                raise DataError(
                    f"{path}: exists already and was made otherwise; choose another output folder, or overwrite it"
                )
        known = {*Pair._fields, RECORD, *(f"{kind}.mp4" for kind in Pair._fields)}
        if self.folder.exists() and not (
            self.folder.is_dir() and all(path.name in known for path in self.folder.iterdir())
        ):
            raise DataError(
                f"{self.folder}: is not overwritten: it is, or holds, something else than blur and sharp frames"
            )

    def write(self, pairs: Iterator[Pair], advance: Callable[[int], None]) -> int:
        """Write the pairs; returns their number.

        The first pair is asked for before anything is written: most unusable input shows there.

        Args:
            pairs: in order. advance: told of every pair that is on its way.

        Raises:
            DataError: there is no pair.
            DeblurkitError: the output cannot be written. What `pairs` raises passes through.
        """
        first = next(pairs, None)
        if first is None:
            raise DataError(f"{self.folder}: there is not one pair to be written")
        pairs = itertools.chain([first], pairs)
        with self._built() as partial:
            count = self._write(pairs, partial, advance)
            write_json(partial / RECORD, {"schema": SCHEMA, "pairs": count, **self._recipe})
        return count

    def _found(self) -> tuple[int | None, bool]:
        """The number of pairs of a sequence that is there whole; and whether it was made by the same recipe."""
        try:
            record = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None, False
        count = record.pop("pairs", None) if isinstance(record, dict) else None
        ours = self._known and count is not None and record == {"schema": SCHEMA, **self._recipe}
        whole = ours and (self._rate is None or all(path.exists() for path in self._videos()))
        return count if whole else None, ours

    def _videos(self) -> list[Path]:
        return [self._video(kind) for kind in Pair._fields]

    def _video(self, kind: str) -> Path:
        return self.folder.with_name(f"{self.folder.name}_{kind}.mp4")

    @contextlib.contextmanager
    def _built(self) -> Iterator[Path]:
        """Yield a folder with {blur,sharp} in it; when the block ends well it becomes the sequence, and its videos."""
        folder = self.folder
        partial, old = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "old"))
        try:
            with self._explained():
                _remove(partial)  # of a run that was killed
                for kind in Pair._fields:
                    (partial / kind).mkdir(parents=True)
            yield partial
            with self._explained():
                _remove(old)
                if folder.exists():
                    for video in self._videos():  # of the sequence that goes: they would show something else
                        video.unlink(missing_ok=True)
                    folder.rename(old)
                partial.rename(folder)
                # a run that is killed here is gone on with: the record says that there are videos
                for kind in Pair._fields:
                    if (folder / f"{kind}.mp4").exists():
                        (folder / f"{kind}.mp4").replace(self._video(kind))
                sync(folder.parent)
                _remove(old)
        finally:
            _remove(partial)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """What the operating system says about an output folder, as an error for the user."""
        try:
            yield
        except OSError as error:
            raise DeblurkitError(f"{self.folder}: cannot be written: {error.strerror or error}") from error

    def _write(self, pairs: Iterator[Pair], folder: Path, advance: Callable[[int], None]) -> int:
        """Write pairs as pictures, and as videos where a rate is given; returns their number."""
        from deblurkit.video.writer import VideoWriter

        threads = min(8, os.cpu_count() or 1)
        pending: deque[Future[None]] = deque()
        count = 0
        with ThreadPoolExecutor(threads) as pool, contextlib.ExitStack() as stack:
            videos: dict[str, VideoWriter] = {}
            if self._rate is not None:
                for kind in Pair._fields:
                    videos[kind] = stack.enter_context(VideoWriter(folder / f"{kind}.mp4", rate=self._rate))
            for pair in pairs:
                for kind, frame in pair._asdict().items():
                    pending.append(pool.submit(write_image, folder / kind / f"{self._names(count)}.png", frame))
                    if kind in videos:
                        videos[kind].write(frame)
                while len(pending) > 2 * threads:
                    pending.popleft().result()
                count += 1
                advance(1)
            for written in pending:
                written.result()
        return count


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
