"""Losses that compare pixel with pixel. Where repositories use one name for two formulas, each has a name of its own.

Sources: `XPixelGroup/BasicSR@8d56e3a` (L1Loss, MSELoss, CharbonnierLoss), `ljzycmd/SimDeblur@0a6da06`
(SimDeblurCharbonnierLoss), `swz30/MPRNet@43feb2a` and `swz30/Restormer@df766d5` (MPRNetCharbonnierLoss),
`cszn/KAIR@fc1732f` (KAIRCharbonnierLoss), `zzh-tech/ESTRNN@c7e7a49` (ColorCharbonnierLoss),
`megvii-research/NAFNet@2b4af71` (PSNRLoss); `tests/parity` holds what they return.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor

from deblurkit.losses.base import Loss, chosen, difference, positive
from deblurkit.registry import LOSS_REGISTRY

Reduction = Literal["mean", "sum"]


def reduced(values: Tensor, reduction: Reduction, weight: Tensor | None = None) -> Tensor:
    """The mean or sum of `values` `(B, ..., C, H, W)` as a scalar.

    Args:
        weight: factors of the elements, of the same shape or with one channel. The mean is then the weighted one:
            divided by the sum of the weights, where a weight for all channels counts for each of them.

    Raises:
        ValueError: the weight has another shape.
    """
    if weight is None:
        return values.mean() if reduction == "mean" else values.sum()
    one_channel = (*values.shape[:-3], 1, *values.shape[-2:])
    if weight.shape not in (values.shape, one_channel):
        raise ValueError(f"the weight should be {tuple(values.shape)} or {one_channel}, got {tuple(weight.shape)}")
    total = (values * weight).sum()
    if reduction == "sum":
        return total
    # zero everywhere weighs nothing, and is not 0 / 0
    return total / weight.expand_as(values).sum().clamp_min(torch.finfo(values.dtype).tiny)


class ElementLoss(Loss):
    """A loss that is the mean or sum of a term for every element.

    Args:
        reduction: "mean" or "sum".
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction: Reduction = chosen("reduction", reduction, get_args(Reduction))

    @abstractmethod
    def elements(self, delta: Tensor) -> Tensor:
        """The terms, from `restored - gt`."""

    def forward(self, restored: Tensor, gt: Tensor, weight: Tensor | None = None) -> Tensor:
        """See `Loss.forward`; `weight` as in `reduced`."""
        return reduced(self.elements(difference(restored, gt)), self.reduction, weight)


@LOSS_REGISTRY.register()
class L1Loss(ElementLoss):
    """Mean (or sum) of |restored - gt| over all elements; BasicSR's L1Loss.

    Args:
        reduction: "mean" or "sum".
    """

    def elements(self, delta: Tensor) -> Tensor:
        """See `ElementLoss.elements`."""
        return delta.abs()


@LOSS_REGISTRY.register()
class MSELoss(ElementLoss):
    """Mean (or sum) of (restored - gt)^2 over all elements; BasicSR's MSELoss.

    Args:
        reduction: "mean" or "sum".
    """

    def elements(self, delta: Tensor) -> Tensor:
        """See `ElementLoss.elements`."""
        return delta**2


@LOSS_REGISTRY.register()
class CharbonnierLoss(ElementLoss):
    """Mean (or sum) of sqrt((restored - gt)^2 + eps) over all elements; BasicSR's CharbonnierLoss.

    Args:
        reduction: "mean" or "sum".
        eps: above 0. It is **not** squared: 1e-6 here is what MPRNet and Restormer call an epsilon of 1e-3.
    """

    def __init__(self, reduction: Reduction = "mean", eps: float = 1e-12) -> None:
        super().__init__(reduction)
        self.eps = positive("eps", eps)

    def elements(self, delta: Tensor) -> Tensor:
        """See `ElementLoss.elements`."""
        return torch.sqrt(delta**2 + self.eps)


@LOSS_REGISTRY.register()
class KAIRCharbonnierLoss(CharbonnierLoss):
    """Mean of sqrt((restored - gt)^2 + eps) over all elements; KAIR's CharbonnierLoss (VRT, RVRT).

    Args:
        eps: above 0; not squared.
    """

    def __init__(self, eps: float = 1e-9) -> None:
        super().__init__("mean", eps)


@LOSS_REGISTRY.register()
class MPRNetCharbonnierLoss(CharbonnierLoss):
    """Mean of sqrt((restored - gt)^2 + eps^2) over all elements.

    The CharbonnierLoss of MPRNet and Restormer, and ESTRNN's `L1_Charbonnier_loss`.

    Args:
        eps: above 0; **squared**, unlike that of `CharbonnierLoss`.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__("mean", positive("eps", eps) ** 2)


@LOSS_REGISTRY.register()
class ColorCharbonnierLoss(Loss):
    """Mean over pixels of sqrt(mean over the colours of (restored - gt)^2 + eps^2).

    ESTRNN's `L1_Charbonnier_loss_color`, also of MMP-RNN and RNN-MBP.

    Args:
        eps: above 0; squared.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = positive("eps", eps)

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """See `Loss.forward`."""
        squares = (difference(restored, gt) ** 2).mean(dim=-3)
        return torch.sqrt(squares + self.eps**2).mean()


@LOSS_REGISTRY.register()
class SimDeblurCharbonnierLoss(Loss):
    """Sum over all elements of sqrt((restored - gt)^2 + 1e-6), divided by the batch size only; SimDeblur's loss.

    Its value grows with the size of the crops, so a learning rate that was tuned with it belongs to them.
    """

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """See `Loss.forward`."""
        return torch.sqrt(difference(restored, gt) ** 2 + 1e-6).sum() / restored.shape[0]


@LOSS_REGISTRY.register()
class PSNRLoss(Loss):
    """Minus the PSNR in dB, mean over the samples of the batch; the loss of NAFNet and HINet.

    10 / ln(10) * mean over samples of ln(MSE of the sample + 1e-8); a clip is one sample.

    Args:
        to_y: compare the luma (65.481 R + 128.553 G + 24.966 B + 16) / 255 instead of R, G and B.
    """

    def __init__(self, to_y: bool = False) -> None:
        super().__init__()
        self.to_y = to_y

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """See `Loss.forward`."""
        delta = difference(restored, gt)
        if self.to_y:  # the offset of 16 cancels
            if delta.shape[-3] != 3:
                raise ValueError(f"to_y: only RGB frames have a luma, got {tuple(delta.shape)}")
            weights = delta.new_tensor([65.481, 128.553, 24.966]) / 255
            delta = (delta * weights.view(3, 1, 1)).sum(dim=-3)
        errors = (delta**2).flatten(1).mean(dim=1)
        return 10 / math.log(10) * torch.log(errors + 1e-8).mean()
