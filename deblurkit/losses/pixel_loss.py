"""Losses that compare pixel with pixel. Where repositories use one name for two formulas, each has a name of its own.

Sources: `XPixelGroup/BasicSR@8d56e3a` (L1Loss, MSELoss, CharbonnierLoss), `ljzycmd/SimDeblur@0a6da06`
(SimDeblurCharbonnierLoss), `megvii-research/NAFNet@2b4af71` (PSNRLoss); `tests/parity` holds what they return.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from deblurkit.losses.base import Loss
from deblurkit.registry import LOSS_REGISTRY

Reduction = Literal["mean", "sum"]


def _difference(restored: Tensor, gt: Tensor) -> Tensor:
    """Without broadcasting: a missing axis would silently compare every frame with every other."""
    if restored.shape != gt.shape:
        raise ValueError(f"the loss compares equal shapes: restored {tuple(restored.shape)}, gt {tuple(gt.shape)}")
    return restored - gt


def _reduce(values: Tensor, reduction: Reduction) -> Tensor:
    return values.mean() if reduction == "mean" else values.sum()


@LOSS_REGISTRY.register()
class L1Loss(Loss):
    """Mean (or sum) of |restored - gt| over all elements; BasicSR's L1Loss.

    Args:
        reduction: "mean" or "sum".
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction: Reduction = reduction

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """See `Loss.forward`."""
        return _reduce(_difference(restored, gt).abs(), self.reduction)


@LOSS_REGISTRY.register()
class MSELoss(Loss):
    """Mean (or sum) of (restored - gt)^2 over all elements; BasicSR's MSELoss.

    Args:
        reduction: "mean" or "sum".
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction: Reduction = reduction

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """See `Loss.forward`."""
        return _reduce(_difference(restored, gt) ** 2, self.reduction)


@LOSS_REGISTRY.register()
class CharbonnierLoss(Loss):
    """Mean (or sum) of sqrt((restored - gt)^2 + eps) over all elements; BasicSR's CharbonnierLoss.

    Args:
        reduction: "mean" or "sum".
        eps: is **not** squared: 1e-6 here is what MPRNet and Restormer call an epsilon of 1e-3.
    """

    def __init__(self, reduction: Reduction = "mean", eps: float = 1e-12) -> None:
        super().__init__()
        self.reduction: Reduction = reduction
        self.eps = eps

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """See `Loss.forward`."""
        return _reduce(torch.sqrt(_difference(restored, gt) ** 2 + self.eps), self.reduction)


@LOSS_REGISTRY.register()
class SimDeblurCharbonnierLoss(Loss):
    """Sum over all elements of sqrt((restored - gt)^2 + 1e-6), divided by the batch size only; SimDeblur's loss.

    Its value grows with the size of the crops, so a learning rate that was tuned with it belongs to them.
    """

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """See `Loss.forward`."""
        return torch.sqrt(_difference(restored, gt) ** 2 + 1e-6).sum() / restored.shape[0]


@LOSS_REGISTRY.register()
class PSNRLoss(Loss):
    """Minus the PSNR in dB, mean over the samples of the batch; the loss of NAFNet and HINet.

    10 / ln(10) * mean over samples of ln(MSE of the sample + 1e-8).

    Args:
        to_y: compare the luma (65.481 R + 128.553 G + 24.966 B + 16) / 255 instead of R, G and B.
    """

    def __init__(self, to_y: bool = False) -> None:
        super().__init__()
        self.to_y = to_y

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """See `Loss.forward`."""
        difference = _difference(restored, gt)
        if self.to_y:  # the offset of 16 cancels
            weights = difference.new_tensor([65.481, 128.553, 24.966]) / 255
            difference = (difference * weights.view(3, 1, 1)).sum(dim=-3)
        errors = (difference**2).flatten(1).mean(dim=1)
        return 10 / math.log(10) * torch.log(errors + 1e-8).mean()
