"""Curves and example pictures for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from deblurkit.hooks.base import Hook
from deblurkit.hooks.loss_window import LossWindow
from deblurkit.registry import HOOK_REGISTRY

if TYPE_CHECKING:
    from deblurkit.engine.evaluate import Evaluation
    from deblurkit.engine.train import Training


@HOOK_REGISTRY.register()
class TensorBoardHook(Hook):
    """Writes to `tb/`: every `print_freq` iterations rates and the losses' means; at validation metrics and pictures.

    The pictures show degraded, restored and sharp frame side by side.
    """

    def __init__(self, print_freq: int = 100) -> None:
        self.print_freq = print_freq
        self._writer: Any = None
        self._losses = LossWindow()

    def before_train(self, run: Training) -> None:
        """Open the event file; after a resume, later events of the run that was cut off are hidden."""
        if run.place.is_main:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(run.folder / "tb"), purge_step=run.iteration + 1)

    def after_iter(self, run: Training, losses: Mapping[str, Tensor]) -> None:
        """Write the curves where they are due."""
        if self._writer is None:
            return
        self._losses.add(losses)
        if run.iteration % self.print_freq:
            return
        for name, value in self._losses.take().items():
            self._writer.add_scalar(f"losses/{name}", value, run.iteration)
        for i, rate in enumerate(run.model.rates()):
            self._writer.add_scalar(f"lr/{i}", rate, run.iteration)

    def after_val(self, run: Training, results: Mapping[str, Evaluation]) -> None:
        """Write the metrics and the example pictures."""
        if self._writer is None:
            return
        for name, result in results.items():
            for metric, value in result.average.items():
                self._writer.add_scalar(f"metrics/{name}/{metric}", value, run.iteration)
            for sequence, picture in result.examples.items():
                self._writer.add_image(f"{name}/{sequence}", picture, run.iteration, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
