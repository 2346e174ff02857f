"""Saves the run so that it can go on, and keeps the best weights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from deblurkit.engine.checkpoint import list_states, save_network, save_training_state
from deblurkit.engine.experiment import weights_file
from deblurkit.engine.launch import gather_objects
from deblurkit.engine.reproducibility import random_states
from deblurkit.files import atomic_path
from deblurkit.hooks.base import Hook
from deblurkit.registry import HOOK_REGISTRY

if TYPE_CHECKING:
    from deblurkit.engine.evaluate import Evaluation
    from deblurkit.engine.train import Training


@HOOK_REGISTRY.register()
class CheckpointHook(Hook):
    """Writes `models/net_g_ITER.pth`, then `training_states/ITER.state` (which makes the pair whole), then `latest`.

    Args:
        every: units of the schedule between two checkpoints; None: at the end only. keep_last: older pairs are removed.
        metric: the best mean of this metric on the first validation set is kept as `net_g_best.pth`.
    """

    def __init__(self, every: int | None = None, keep_last: int = 3, metric: str = "psnr") -> None:
        self.every, self.keep_last, self.metric = every, keep_last, metric
        self.best: float | None = None
        self._saved = -1

    def before_train(self, run: Training) -> None:
        """What was resumed need not be saved again."""
        self._saved = run.iteration

    def after_iter(self, run: Training, losses: Mapping[str, Tensor]) -> None:
        """Save where a checkpoint is due; validation comes first there, so that its best figure is in the state."""
        if run.due(self.every):
            self.save(run)

    def after_train(self, run: Training) -> None:
        """Save what is not saved yet."""
        if self._saved != run.iteration:
            self.save(run)

    def save(self, run: Training) -> None:
        """Write a checkpoint of the current iteration."""
        random = gather_objects(run.place, random_states())
        self._saved = run.iteration
        if not run.place.is_main:
            return
        models, states, roles = run.folder / "models", run.folder / "training_states", list(run.model.networks)
        for role in roles:
            self._save_weights(run, role, run.iteration)
        content = {
            "roles": roles,
            "model": run.model.state(),
            "random": random,
            "hooks": run.hook_states(),
            "validation_due": run.validation_due,
            "seconds": run.seconds,
        }
        save_training_state(states / f"{run.iteration}.state", run.iteration, content)
        for role in roles:
            _link(weights_file(models, role, run.iteration), weights_file(models, role, "latest"))
        for old in list_states(states)[self.keep_last :]:
            old.unlink()
            for role in roles:
                weights_file(models, role, int(old.stem)).unlink(missing_ok=True)

    def after_val(self, run: Training, results: Mapping[str, Evaluation]) -> None:
        """Keep the weights if they are the best so far; the later of two equals wins."""
        self._saved = -1  # a state of this iteration that is there already knows nothing of the validation
        first = next(iter(results.values()), None)
        value = None if first is None else first.average.get(self.metric)
        if value is None or (self.best is not None and value < self.best):
            return
        self.best = value
        if run.place.is_main:
            self._save_weights(run, "g", "best")

    def _save_weights(self, run: Training, role: str, which: int | str) -> None:
        target = weights_file(run.folder / "models", role, which)
        save_network(target, run.model.networks[role], run.iteration, run.model.averages.get(role))

    def state(self) -> dict[str, Any]:
        """The best figure so far."""
        return {"best": self.best}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put the best figure back."""
        self.best = state["best"]


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, atomically; a copy where the file system has no hard links."""
    with atomic_path(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
