"""Watches for steps that were left out because a gradient was not finite."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deblurkit.engine.checkpoint import save_tensors
from deblurkit.errors import TrainingError
from deblurkit.files import atomic_path
from deblurkit.hooks.base import Hook
from deblurkit.ops.deform_conv_modules import DeformConv2d
from deblurkit.registry import HOOK_REGISTRY

if TYPE_CHECKING:
    from deblurkit.engine.train import Training


@HOOK_REGISTRY.register()
class NonFiniteHook(Hook):
    """Counts left-out steps, keeps the first batch that caused one, and ends a run that no longer learns.

    The optimiser's step is left out where it happens (`engine.step.Stepper`); here it is only reported, one step later,
    so that nothing waits for a GPU. Of deformable convolutions the mean size of their offsets is followed on the device
    and fetched when a step was left out, and with the log: the layer that went astray is named.

    Args:
        stop_after: left-out steps in a row that end the run.
        largest_offset: mean of the offsets' sizes in pixels above which a layer is warned of, once; EDVR's authors give
            training up at 50.

    Raises:
        TrainingError: `stop_after` steps in a row were left out.
    """

    def __init__(self, stop_after: int = 10, largest_offset: float = 50.0) -> None:
        self.stop_after, self.largest_offset = stop_after, largest_offset
        self.total = 0
        self.in_a_row = 0
        self._pending: deque[tuple[int, Tensor, Any, Mapping[str, Any]]] = deque()
        self._offsets: dict[str, Tensor] = {}
        self._warned: set[str] = set()

    def before_train(self, run: Training) -> None:
        """Watch the deformable convolutions. (Compiled networks are left alone.)"""
        for role, net in run.model.networks.items():
            for name, module in net.named_modules():
                if isinstance(module, DeformConv2d) and not run.options.training().compile:
                    largest = torch.zeros((), device=run.place.device)
                    module.offset_watch = partial(_note, largest)
                    self._offsets[name if role == "g" else f"{role}: {name}"] = largest

    def after_iter(self, run: Training, losses: Mapping[str, Tensor]) -> None:
        """Take note of this step's flag and look at those that have arrived by now."""
        if self._offsets and run.iteration % run.options.logger.print_freq == 0:
            self._look_at_offsets(run)
        flags = [stepper.skipped for stepper in run.model.steppers.values()]
        flag = flags[0] if len(flags) == 1 else torch.stack(flags).any()
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

    def close(self) -> None:
        """Let go of the watched layers."""
        self._offsets.clear()

    def _look_at_offsets(self, run: Training) -> str:
        """Warn of layers whose offsets are large; those that are not finite, for a message."""
        if not self._offsets:
            return ""
        sizes = dict(zip(self._offsets, torch.stack([*self._offsets.values()]).tolist(), strict=True))
        for value in self._offsets.values():
            value.zero_()
        for name, size in sizes.items():
            if self.largest_offset < size < math.inf and name not in self._warned:
                self._warned.add(name)
                run.log.warning(
                    f"iter {run.iteration:,}: the offsets of {name} have a mean size of {size:.0f} pixels: training is "
                    "about to fail; lower the rate of this layer (train.param_groups)"
                )
        lost = [name for name, size in sizes.items() if not math.isfinite(size)]
        return f" The offsets of {', '.join(lost)} are not finite." if lost else ""

    def _look(self, run: Training) -> None:
        iteration, flag, _, batch = self._pending.popleft()
        if not flag:
            self.in_a_row = 0
            return
        self.total += 1
        self.in_a_row += 1
        kept = run.folder / "non_finite" / f"rank{run.place.rank}_iter{iteration}.pth"
        lost = self._look_at_offsets(run)
        if self.in_a_row == 1:
            with atomic_path(kept) as path:
                save_tensors({k: v.cpu() if isinstance(v, Tensor) else v for k, v in batch.items()}, path)
            if run.place.is_main:
                run.log.warning(
                    f"iter {iteration:,}: the gradient was not finite, the step was left out; batch: {kept}.{lost}"
                )
        if self.in_a_row >= self.stop_after:
            raise TrainingError(
                f"{run.options.name}: {self.in_a_row} steps in a row up to iter {iteration:,} had gradients that are "
                f"not finite; the first batch is kept in {kept.parent}. Lower the learning rate, set train.grad_clip, "
                f"or train in fp32; --resume auto goes on from the last checkpoint.{lost}"
            )

    def state(self) -> dict[str, Any]:
        """The counts."""
        return {"total": self.total, "in_a_row": self.in_a_row}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put the counts back."""
        self.total, self.in_a_row = state["total"], state["in_a_row"]


def _note(largest: Tensor, offset: Tensor) -> None:
    """Keep the larger of what is there and the mean size of these offsets; NaN and infinity stay."""
    with torch.no_grad():
        mean = torch.linalg.vector_norm(offset, 1, dtype=torch.float32) / offset.numel()
        torch.maximum(largest, mean, out=largest)
