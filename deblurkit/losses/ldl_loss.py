"""Locally discriminative learning (Liang et al., CVPR 2022), as `ldl_opt` of `XPixelGroup/BasicSR@8d56e3a`."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from deblurkit.losses.base import Loss, as_images, check_shapes, difference
from deblurkit.registry import LOSS_REGISTRY


def artifact_map(restored: Tensor, gt: Tensor, averaged: Tensor, window: int = 7) -> Tensor:
    """Where a generator draws artefacts: `(N, C, H, W)` each, to `(N, 1, H, W)`, values from 0.

    With r = sum over channels of |gt - restored|: (variance of r over the picture)^(1/5) * variance of r in the window
    around the pixel (borders reflected), both unbiased; zero where `averaged` is further from `gt` than `restored` is.

    Args:
        averaged: what the generator's moving average makes of the same input. window: side in pixels, odd.
    """
    residual = (gt - restored).abs().sum(dim=1, keepdim=True)
    of_average = (gt - averaged).abs().sum(dim=1, keepdim=True)
    # the bound keeps the root's slope finite for equal pictures
    of_picture = residual.var(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12) ** 0.2
    padded = F.pad(residual, [window // 2] * 4, mode="reflect")
    of_window = padded.unfold(2, window, 1).unfold(3, window, 1).var(dim=(-2, -1))
    return torch.where(residual < of_average, 0.0, of_picture * of_window)


@LOSS_REGISTRY.register()
class LDLLoss(Loss):
    """Mean of `artifact_map` * |restored - gt|. The gradient passes through the map too, as in BasicSR."""

    needs: ClassVar[tuple[str, ...]] = ("averaged",)

    def forward(self, restored: Tensor, gt: Tensor, averaged: Tensor | None = None) -> Tensor:
        """See `Loss.forward`.

        Args:
            averaged: the same frames restored by the moving average of the network; required.
        """
        if averaged is None:
            raise ValueError("LDLLoss needs what the network's moving average restored: train with ema_decay")
        delta = difference(restored, gt)
        check_shapes(averaged, gt)
        weight = artifact_map(as_images(restored), as_images(gt), as_images(averaged))
        return (weight * as_images(delta)).abs().mean()
