"""From a loss to a step: mixed precision, clipping, and a guard against gradients that are not finite."""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import torch
from torch import Tensor

Precision = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """The context in which a forward pass runs in `precision`."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


class Stepper:
    """Steps one optimiser.

    A step whose loss or gradient is not finite is left out. With a fused optimiser on a GPU that is decided on the
    device, and nothing waits for it.

    Args:
        optimizer: over the parameters of one network. precision: fp16 scales the loss. grad_clip: largest norm of the
            gradient over all parameters; None: no limit.

    Attributes:
        skipped: 0-dim bool tensor on the device: whether the last step was left out.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, device: torch.device, precision: Precision, grad_clip: float | None
    ) -> None:
        self.optimizer, self.grad_clip = optimizer, grad_clip
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.skipped = torch.zeros((), dtype=torch.bool, device=device)
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._checks_at_once = (
            len({p.dtype for p in self._parameters}) == 1
            and device.type in ("cpu", "cuda")
            and hasattr(torch, "_amp_foreach_non_finite_check_and_unscale_")
        )
        self._factor = torch.ones((), dtype=torch.float32, device=device)
        self._fused_guard = device.type == "cuda" and getattr(optimizer, "_step_supports_amp_scaling", False)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss; a loss that is not finite makes all of them so."""
        # the gradient of |x - NaN| is finite; and with DDP every process must leave the step out when one has to. So
        # the backward pass begins with 1 for a finite loss (x - x is 0 then), else with NaN.
        value = loss.detach()
        self.scaler.scale(loss).backward(gradient=value - value + 1.0)

    def step(self) -> None:
        """Step, unless a gradient is not finite."""
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if self.grad_clip is None and self._checks_at_once and gradients:
            # what GradScaler does, with a factor of 1: one pass, a fifth of the time that the norm takes. It has no
            # public name; torch 2.13's GradScaler calls it like this, with both numbers float32 on the device
            bad = torch.zeros_like(self._factor)
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, bad, self._factor)
            self.skipped = bad > 0
        else:
            norm = torch.nn.utils.get_total_norm(gradients)
            if self.grad_clip is not None:
                torch.nn.utils.clip_grads_with_norm_(self._parameters, self.grad_clip, norm)
            self.skipped = ~torch.isfinite(norm)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif self._fused_guard:
            self.optimizer.grad_scale = None  # type: ignore[attr-defined]
            self.optimizer.found_inf = self.skipped.float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not self.skipped:
            self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of optimiser and scaler."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put `state_dict()` back."""
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
