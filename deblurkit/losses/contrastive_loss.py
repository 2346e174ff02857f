"""Contrastive learning. Source: `XLearning-SCU/2022-CVPR-AirNet@bedea82`, whose encoder follows MoCo."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from deblurkit.losses.base import Loss
from deblurkit.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class ContrastiveLoss(Loss):
    """Cross entropy of similarities of which the first is the right one: -log softmax(logits)[0], mean over samples.

    AirNet's, with the weight 0.1 there. It looks at an output that holds logits, already divided by the temperature.
    """

    def forward(self, restored: Tensor, gt: Tensor | None = None) -> Tensor:
        """The loss as a scalar; `gt` is not looked at.

        Args:
            restored: logits `(N, 1 + K)`: of the positive pair, then of the K negatives.

        Raises:
            ValueError: they have another shape.
        """
        if restored.ndim != 2 or restored.shape[1] < 2:
            raise ValueError(f"ContrastiveLoss takes logits (N, 1 + negatives), got {tuple(restored.shape)}")
        return -F.log_softmax(restored, dim=1)[:, 0].mean()
