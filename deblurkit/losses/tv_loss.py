"""Total variation of the restored frames; they look at the output alone.

Sources: `XPixelGroup/BasicSR@8d56e3a` (WeightedTVLoss), `cszn/KAIR@fc1732f` (KAIRTVLoss).
"""

from __future__ import annotations

from typing import get_args

from torch import Tensor

from deblurkit.losses.base import Loss, as_images, chosen
from deblurkit.losses.pixel_loss import Reduction, reduced
from deblurkit.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class WeightedTVLoss(Loss):
    """L1 between neighbouring rows plus L1 between neighbouring columns, each reduced by itself; BasicSR's.

    Args:
        reduction: "mean" or "sum".
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction: Reduction = chosen("reduction", reduction, get_args(Reduction))

    def forward(self, restored: Tensor, gt: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """The loss of `restored` as in `Loss.forward`; `gt` is not looked at.

        Args:
            weight: as in `pixel_loss.reduced`; a difference takes that of its upper or left pixel.
        """
        rows, columns = _steps(restored)
        above, left = (None, None) if weight is None else (weight[..., :-1, :], weight[..., :-1])
        return reduced(rows.abs(), self.reduction, above) + reduced(columns.abs(), self.reduction, left)


@LOSS_REGISTRY.register()
class KAIRTVLoss(Loss):
    """2 * (mean squared difference of neighbouring rows + that of neighbouring columns); KAIR's TVLoss.

    Squares, not absolute values; means over all frames, channels and pairs of neighbours.
    """

    def forward(self, restored: Tensor, gt: Tensor | None = None) -> Tensor:
        """The loss of `restored` as in `Loss.forward`; `gt` is not looked at."""
        rows, columns = _steps(as_images(restored))
        return 2 * ((rows**2).mean() + (columns**2).mean())


def _steps(x: Tensor) -> tuple[Tensor, Tensor]:
    """From each row to the next, and from each column to the next."""
    return x.diff(dim=-2), x.diff(dim=-1)
