"""The sequences of a synthesised data set: all checked first, then made side by side, as files or as LMDBs."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deblurkit.console import progress, say
from deblurkit.data.lmdb_make import make_lmdb
from deblurkit.data.synthesis import Pair
from deblurkit.data.synthesis_writer import SequenceTarget
from deblurkit.errors import DataError
from deblurkit.pool import cores


@dataclass(frozen=True)
class Output:
    """Where sequences go.

    Attributes:
        root: the data set's folder. split: part of it. held_out: share of the inputs that goes to the split `val`
            instead, spread evenly over them.
        videos: also write the pairs as videos. frame_rate: of the inputs (of photos: of the clips) in frames a second;
            None: what a video says, 25 for photos.
        overwrite: replace what is there. lmdb: write ROOT.lmdb instead of picture files. seed: of all that is random.
        workers: sequences that are made side by side; None: one a core.
    """

    root: Path
    split: str = "train"
    held_out: float = 0.0
    videos: bool = False
    frame_rate: float | None = None
    overwrite: bool = False
    lmdb: bool = False
    seed: int = 0
    workers: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise DataError(f"a share of {self.held_out:g} for val: it is at least 0 and below 1")
        if self.frame_rate is not None and self.frame_rate <= 0:
            raise DataError(f"a rate of {self.frame_rate:g} frames per second: it must be above 0")
        if self.lmdb and self.videos:
            raise DataError("videos are written beside picture files, not beside an LMDB: leave one of the two out")
        if self.seed < 0:
            raise DataError(f"a seed of {self.seed}: it must be 0 or more")

    def splits(self, count: int) -> list[str]:
        """The split of each of so many inputs."""
        taken = [int((i + 1) * self.held_out + 1e-9) > int(i * self.held_out + 1e-9) for i in range(count)]
        if self.held_out and not any(taken):
            raise DataError(f"a share of {self.held_out:g} of {count} input(s) is none: give more, or a larger share")
        return ["val" if out else self.split for out in taken]

    def rng(self, name: str) -> np.random.Generator:
        """The random generator for a sequence: another one for each name, the same whatever else is made."""
        return np.random.default_rng((self.seed, zlib.crc32(name.encode())))


@dataclass(frozen=True)
class Job:
    """A sequence to be made: where it goes, its pairs (the call does the first work), how many where that is known."""

    target: SequenceTarget
    pairs: Callable[[], Iterator[Pair]]
    total: int | None


def make(output: Output, plan: Callable[[Output], list[Job]], title: str) -> dict[Path, int]:
    """Make the sequences that `plan` gives for an output.

    Those that are there already, made the same way, are left alone: an interrupted run is gone on with by the same
    call. The first error stops all; sequences that are whole stay.

    Args:
        title: for the progress.

    Returns:
        pairs of each sequence, by its folder; with `output.lmdb` by its place in the LMDBs.

    Raises:
        DataError: two sequences have one name, or the output is there already. What making them raises passes through.
    """
    return _make_lmdb(output, plan, title) if output.lmdb else _make_files(output, plan(output), title)


def _make_files(output: Output, jobs: list[Job], title: str) -> dict[Path, int]:
    folders: set[Path] = set()
    for job in jobs:
        folder = job.target.folder
        if folder in folders:
            raise DataError(f"{folder}: two inputs are called {folder.name}; rename one, or use another output folder")
        folders.add(folder)
    done = {job.target.folder: job.target.done for job in jobs if job.target.done is not None}
    left = [job for job in jobs if job.target.done is None]
    if done:
        say(f"{len(done)} of {len(jobs)} sequence(s) are there already, made the same way")
    if left:
        done.update(_run(left, output.workers or cores(), title))
    return {job.target.folder: done[job.target.folder] for job in jobs}


class _StoppedError(Exception):
    """Another sequence failed, or the person did not want to wait."""


def _run(jobs: list[Job], workers: int, title: str) -> dict[Path, int]:
    """Make sequences, several at a time (OpenCV, the encoders and numpy let other threads work)."""
    totals = [job.total for job in jobs if job.total is not None]
    stop, lock = threading.Event(), threading.Lock()

    def run(job: Job, advance: Callable[[int], None]) -> int:
        def watched() -> Iterator[Pair]:
            for pair in job.pairs():
                if stop.is_set():
                    raise _StoppedError
                yield pair

        def count(pairs: int) -> None:
            with lock:
                advance(pairs)

        return job.target.write(watched(), count)

    with progress(title, sum(totals) if len(totals) == len(jobs) else None, "pairs") as advance:
        pool = ThreadPoolExecutor(min(workers, len(jobs)))
        futures = {pool.submit(run, job, advance): job.target.folder for job in jobs}
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
        errors = [future.exception() for future in futures if not future.cancelled()]
        for error in errors:
            if error is not None and not isinstance(error, _StoppedError):
                raise error
        return {folder: future.result() for future, folder in futures.items()}


def _make_lmdb(output: Output, plan: Callable[[Output], list[Job]], title: str) -> dict[Path, int]:
    """Make the sequences as files in a hidden folder, LMDBs of them, and take the files away."""
    from deblurkit.data.layouts import ROLES
    from deblurkit.data.store import lmdb_path, lmdb_root

    folder = lmdb_root(output.root)
    work = folder / ".synthesis"
    jobs = plan(dataclasses.replace(output, root=work, lmdb=False))
    splits = sorted({job.target.folder.parent.name for job in jobs})
    for path in (lmdb_path(folder, split, role) for split in splits for role in ROLES):
        if path.exists() and not output.overwrite:
            raise DataError(f"{path}: exists already; choose another output folder, or overwrite it")
    made = _make_files(output, jobs, title)
    wanted = set(made)
    for split in splits:
        for other in (work / split).iterdir():  # of an earlier run, of which something was interrupted
            if other not in wanted:
                shutil.rmtree(other)
    make_lmdb(work, splits, layout="paired", workers=output.workers, output=folder, force=output.overwrite)
    shutil.rmtree(work)
    return {folder / path.relative_to(work): pairs for path, pairs in made.items()}
