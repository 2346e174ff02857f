"""Validates during training, through the same code as `deblurkit test`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from deblurkit.hooks.base import Hook
from deblurkit.registry import HOOK_REGISTRY

if TYPE_CHECKING:
    from deblurkit.engine.train import Training


@HOOK_REGISTRY.register()
class ValidationHook(Hook):
    """Validates on every `val...` data set.

    Args:
        every: units of the schedule between two validations; the end of training always has one.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._validated = -1

    def after_iter(self, run: Training, losses: Mapping[str, Tensor]) -> None:
        """Validate where it is due."""
        if run.due(self.every) or run.iteration == run.total_iterations:
            self._validated = run.iteration
            run.validate()
