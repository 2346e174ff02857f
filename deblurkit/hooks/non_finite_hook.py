"""Watches for steps that were left out because a gradient was not finite."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deblurkit.engine.checkpoint import save_tensors
from deblurkit.errors import TrainingError
from deblurkit.files import atomic_path
from deblurkit.hooks.base import Hook
from deblurkit.registry import HOOK_REGISTRY

if TYPE_CHECKING:
    from deblurkit.engine.train import Training


@HOOK_REGISTRY.register()
class NonFiniteHook(Hook):
    """Counts left-out steps, keeps the first batch that caused one, and ends a run that no longer learns.

    The optimiser's step is left out where it happens (`engine.step.Stepper`); here it is only reported, one step later,
    so that nothing waits for a GPU.

    Args:
        stop_after: left-out steps in a row that end the run.

    Raises:
        TrainingError: `stop_after` steps in a row were left out.
    """

    def __init__(self, stop_after: int = 10) -> None:
        self.stop_after = stop_after
        self.total = 0
        self.in_a_row = 0
        self._pending: deque[tuple[int, Tensor, Any, Mapping[str, Any]]] = deque()

    def after_iter(self, run: Training, losses: Mapping[str, Tensor]) -> None:
        """Take note of this step's flag and look at those that have arrived by now."""
        flag = torch.stack([stepper.skipped for stepper in run.model.steppers.values()]).any()
        arrived = None
        if flag.device.type == "cuda":
            flag = flag.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._pending.append((run.iteration, flag, arrived, run.current_batch))
        while self._pending and (self._pending[0][2] is None or self._pending[0][2].query()):
            self._look(run)

    def after_train(self, run: Training) -> None:
        """Look at what is left, waiting for it."""
        while self._pending:
            if self._pending[0][2] is not None:
                self._pending[0][2].synchronize()
            self._look(run)
        if self.total and run.place.is_main:
            run.log.warning(f"{self.total} steps in all were left out: their gradients were not finite")

    def _look(self, run: Training) -> None:
        iteration, flag, _, batch = self._pending.popleft()
        if not flag:
            self.in_a_row = 0
            return
        self.total += 1
        self.in_a_row += 1
        kept = run.folder / "non_finite" / f"rank{run.place.rank}_iter{iteration}.pth"
        if self.in_a_row == 1:
            with atomic_path(kept) as path:
                save_tensors({k: v.cpu() if isinstance(v, Tensor) else v for k, v in batch.items()}, path)
            if run.place.is_main:
                run.log.warning(
                    f"iter {iteration:,}: the gradient was not finite, the step was left out; batch: {kept}"
                )
        if self.in_a_row >= self.stop_after:
            raise TrainingError(
                f"{run.options.name}: {self.in_a_row} steps in a row up to iter {iteration:,} had gradients that are "
                f"not finite; the first batch is kept in {kept.parent}. Lower the learning rate, set train.grad_clip, "
                "or train in fp32; --resume auto goes on from the last checkpoint"
            )

    def state(self) -> dict[str, Any]:
        """The counts."""
        return {"total": self.total, "in_a_row": self.in_a_row}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put the counts back."""
        self.total, self.in_a_row = state["total"], state["in_a_row"]
