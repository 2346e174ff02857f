"""The folder of a training run: resumed, archived or new, and the record of what was run."""

from __future__ import annotations

import errno
import itertools
import math
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from deblurkit.console import say, warn
from deblurkit.engine.checkpoint import Checkpoint, list_states, read_checkpoint, read_training_state
from deblurkit.errors import CheckpointError, DeblurkitError
from deblurkit.files import remove_unfinished, write_text
from deblurkit.options import Options

try:
    import fcntl
except ImportError:  # Windows has no locks of this kind
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class ResumePoint:
    """A whole checkpoint: the training state, its file, and the weights that belong to it, by the networks' roles.

    `average` is the moving average of the weights of "g" (the same as its weights in a run without one).
    """

    path: Path
    state: dict[str, Any]
    weights: dict[str, Checkpoint]
    average: Checkpoint

    @property
    def iteration(self) -> int:
        """Training steps done."""
        return int(self.state["iter"])


def find_resume_point(folder: Path, resume: str) -> ResumePoint | None:
    """Where to go on.

    Args:
        folder: the experiment's folder. resume: "auto": the newest whole checkpoint in it, if any (damaged ones are
            skipped with a warning); "none": start anew; else the path of a `.state` file.

    Raises:
        CheckpointError: the named state or its weights cannot be read.
    """
    if resume == "none":
        return None
    if resume != "auto":
        return _read_point(Path(resume))
    for path in list_states(folder / "training_states"):
        try:
            return _read_point(path)
        except CheckpointError as error:
            warn(f"{error} - trying the checkpoint before it")
    return None


def _read_point(path: Path) -> ResumePoint:
    state = read_training_state(path)
    models = path.parent.parent / "models"
    files = {role: weights_file(models, role, state["iter"]) for role in state["roles"]}
    weights = {role: read_checkpoint(file, averaged=False) for role, file in files.items()}
    return ResumePoint(path, state, weights, read_checkpoint(files["g"]))


def newest_finite(folder: Path) -> Path | None:
    """The state file of the newest checkpoint whose weights and their averages are finite; None: there is none."""
    for path in list_states(folder / "training_states"):
        try:
            point = _read_point(path)
        except CheckpointError:
            continue
        weights = (
            value for checkpoint in (*point.weights.values(), point.average) for value in checkpoint.state.values()
        )
        if all(bool(value.isfinite().all()) for value in weights):
            return path
    return None


def weights_file(models: Path, role: str, which: int | str) -> Path:
    """The weights of a network in a run's `models` folder; `which` is an iteration, "latest" or "best"."""
    return models / f"net_{role}_{which}.pth"


def prepare_folder(folder: Path, options: Options, resumed: ResumePoint | None) -> IO[str]:
    """Make the experiment's folder; an earlier run of that name is resumed or moved aside, never overwritten.

    Writes `options.yml` with the resolved options; on a resume what changed in them is shown. Checkpoints that are
    newer than the one a run goes on from (it was named, or they are damaged) are moved to a folder of their own.

    Returns:
        a file that keeps other runs out of the folder as long as it is open.

    Raises:
        DeblurkitError: the folder cannot be made, or a run in it is going on.
    """
    target = folder / "options.yml"
    own = resumed is not None and resumed.path.resolve().parent.parent == folder.resolve()
    if folder.exists() and not own and any(folder.iterdir()):
        archive = _free(folder.with_name(f"{folder.name}_archived_{_now()}"))
        try:
            with _lock(folder):
                folder.rename(archive)
        except OSError as error:
            raise DeblurkitError(f"{folder}: an earlier run lies there and cannot be moved aside: {error}") from error
        say(f"{folder}: an earlier run of this name was moved to {archive}")
    try:
        for part in ("models", "training_states"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
        for part in ("", "models", "training_states"):
            remove_unfinished(folder / part)
    except OSError as error:
        raise DeblurkitError(f"{folder}: cannot be made: {error.strerror}") from error
    if own and resumed is not None:
        _set_newer_aside(folder, resumed.iteration)
        changes = _changes(target, options) if target.exists() else []
        if changes:
            warn("options changed since this run began:\n" + "\n".join(f"  {line}" for line in changes))
    write_text(target, options.dump())
    return lock


def _now() -> str:
    return time.strftime("%Y%m%d_%H%M%S")


def _free(path: Path) -> Path:
    """The path, with a number where it is taken."""
    numbered = (path.with_name(f"{path.name}_{number}") if number else path for number in itertools.count())
    return next(free for free in numbered if not free.exists())


def _lock(folder: Path) -> IO[str]:
    """Take the folder for this process, until the file is closed or the process is gone.

    Raises:
        DeblurkitError: another process has it.
    """
    file = (folder / ".lock").open("a+", encoding="utf-8")
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, it is not handed on to loader workers
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return file  # the file system knows no locks
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise DeblurkitError(
                f"{folder}: a run of this name is going on ({holder}); end it first, or give this one another name: "
                "--set name=..."
            ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()
    return file


def _set_newer_aside(folder: Path, iteration: int) -> None:
    states = [path for path in list_states(folder / "training_states") if int(path.stem) > iteration]
    if not states:
        return
    aside = _free(folder / f"set_aside_{_now()}")
    for state in states:
        for path in (state, *(folder / "models").glob(f"net_*_{state.stem}.pth")):
            moved = aside / path.relative_to(folder)
            moved.parent.mkdir(parents=True, exist_ok=True)
            path.rename(moved)
    say(f"{folder}: newer checkpoints ({', '.join(state.stem for state in reversed(states))}) were moved to {aside}")


def _changes(earlier: Path, options: Options) -> list[str]:
    """What differs between a run's `options.yml` and these options: a line for each key."""
    try:
        before = _by_key(yaml.safe_load(earlier.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError):
        return [f"{earlier} is no YAML any more"]
    now = _by_key(yaml.safe_load(options.dump()))
    absent = "(not given)"
    return [
        f"{key}: {before.get(key, absent)} -> {now.get(key, absent)}"
        for key in {**before, **now}
        if before.get(key, absent) != now.get(key, absent)
    ]


def _by_key(value: Any, path: tuple[str, ...] = ()) -> dict[str, str]:
    """`{"train.optim_g.lr": "0.001"}`: values as YAML writes them, of mappings and of lists of mappings."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = list(enumerate(value))
    else:
        return {
            ".".join(path): yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("...\n").strip()
        }
    found: dict[str, str] = {}
    for key, item in items:
        found.update(_by_key(item, (*path, str(key))))
    return found
