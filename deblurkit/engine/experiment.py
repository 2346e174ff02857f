"""The folder of a training run: resumed, archived or new, and the record of what was run."""

from __future__ import annotations

import difflib
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deblurkit.console import say, warn
from deblurkit.engine.checkpoint import Checkpoint, list_states, read_checkpoint, read_training_state
from deblurkit.errors import CheckpointError, DeblurkitError
from deblurkit.files import write_text
from deblurkit.options import Options


@dataclass(frozen=True)
class ResumePoint:
    """A whole checkpoint: the training state and the weights that belong to it, by the networks' roles.

    `average` is the moving average of the weights of "g" (the same as its weights in a run without one).
    """

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
    return ResumePoint(state, weights, read_checkpoint(files["g"]))


def weights_file(models: Path, role: str, which: int | str) -> Path:
    """The weights of a network in a run's `models` folder; `which` is an iteration, "latest" or "best"."""
    return models / f"net_{role}_{which}.pth"


def prepare_folder(folder: Path, options: Options, resumed: ResumePoint | None) -> None:
    """Make the experiment's folder; an earlier run of that name is resumed or moved aside, never overwritten.

    Writes `options.yml` with the resolved options; on a resume what changed in them is shown.
    """
    target = folder / "options.yml"
    if folder.exists() and resumed is None and any(folder.iterdir()):
        name = f"{folder.name}_archived_{time.strftime('%Y%m%d_%H%M%S')}"
        names = (f"{name}_{number}" if number else name for number in itertools.count())
        archive = next(free for free in map(folder.with_name, names) if not free.exists())
        try:
            folder.rename(archive)
        except OSError as error:
            raise DeblurkitError(f"{folder}: an earlier run lies there and cannot be moved aside: {error}") from error
        say(f"{folder}: an earlier run of this name was moved to {archive}")
    if resumed is not None and target.exists():
        changes = list(
            difflib.unified_diff(
                target.read_text(encoding="utf-8").splitlines(), options.dump().splitlines(), lineterm="", n=0
            )
        )
        if changes:
            warn("options changed since this run began:\n" + "\n".join(changes[2:]))
    for part in ("models", "training_states"):
        try:
            (folder / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DeblurkitError(f"{folder}: cannot be made: {error.strerror}") from error
    write_text(target, options.dump())
