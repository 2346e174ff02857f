"""Curves and example pictures for Weights & Biases."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from deblurkit.errors import OptionsError
from deblurkit.hooks.base import Hook
from deblurkit.hooks.loss_window import LossWindow
from deblurkit.registry import HOOK_REGISTRY

if TYPE_CHECKING:
    from deblurkit.engine.evaluate import Evaluation
    from deblurkit.engine.train import Training


@HOOK_REGISTRY.register()
class WandbHook(Hook):
    """Logs what `TensorBoardHook` writes to Weights & Biases; a resumed run goes on in the same wandb run.

    Args:
        project: of Weights & Biases. print_freq: iterations between two points of the curves.
        resume_id: the wandb run to go on with; None: that of the resumed run, or a new one.

    Raises:
        OptionsError: the package `wandb` is not installed.
    """

    def __init__(self, project: str, print_freq: int = 100, resume_id: str | None = None) -> None:
        try:
            self._wandb: Any = importlib.import_module("wandb")
        except ImportError:
            raise OptionsError(
                "train.hooks: WandbHook needs the package wandb: pip install 'deblurkit[wandb]'"
            ) from None
        self.project, self.print_freq, self.id = project, print_freq, resume_id
        self._run: Any = None
        self._losses = LossWindow()

    def before_train(self, run: Training) -> None:
        """Begin the wandb run, or go on with it."""
        if run.place.is_main:
            self._run = self._wandb.init(
                project=self.project,
                name=run.options.name,
                id=self.id,
                resume="allow",
                dir=str(run.folder),
                config=run.options.model_dump(by_alias=True, mode="json"),
            )
            self.id = self._run.id

    def after_iter(self, run: Training, losses: Mapping[str, Tensor]) -> None:
        """Log the curves where they are due."""
        if self._run is None:
            return
        self._losses.add(losses)
        if run.iteration % self.print_freq:
            return
        values = {f"losses/{name}": value for name, value in self._losses.take().items()}
        rates = {f"lr/{i}": rate for i, rate in enumerate(run.model.rates())}
        self._run.log({**values, **rates}, step=run.iteration)

    def after_val(self, run: Training, results: Mapping[str, Evaluation]) -> None:
        """Log the metrics and the example pictures: degraded, restored and sharp side by side."""
        if self._run is None:
            return
        values: dict[str, Any] = {}
        for name, result in results.items():
            values.update({f"metrics/{name}/{metric}": value for metric, value in result.average.items()})
            values.update({f"{name}/{key}": self._wandb.Image(picture) for key, picture in result.examples.items()})
        self._run.log(values, step=run.iteration)

    def close(self) -> None:
        """End the wandb run."""
        if self._run is not None:
            self._run.finish()
            self._run = None

    def state(self) -> dict[str, Any]:
        """The wandb run's id."""
        return {"id": self.id}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on with that run, unless the options name another."""
        self.id = self.id or state["id"]
