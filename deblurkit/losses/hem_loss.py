"""Hard example mining. Source: `csbhr/CDVD-TSP@b80f609`, also in `ljzycmd/SimDeblur@0a6da06`."""

from __future__ import annotations

import torch
from torch import Tensor

from deblurkit.losses.base import Loss, as_images, difference
from deblurkit.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class HEMLoss(Loss):
    """L1 of the worst pixels of every frame and of some random ones, mean over **all** elements; CDVD-TSP's HEM.

    A pixel is hard if its error, summed over the channels, is above the one that ranks at `hard_share` of all pixels.

    Args:
        hard_share: share of the pixels that are hard, 0 to 1. random_share: share that is drawn beside, 0 to 1.
        one_mask: the frames of a clip have one mask, from the sum of their errors: CDVD-TSP compares its four results
            as one picture of twelve channels.
    """

    def __init__(self, hard_share: float = 0.5, random_share: float = 0.1, one_mask: bool = False) -> None:
        super().__init__()
        for name, share in (("hard_share", hard_share), ("random_share", random_share)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name}: should lie between 0 and 1, got {share}")
        self.hard_share, self.random_share, self.one_mask = hard_share, random_share, one_mask

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """See `Loss.forward`."""
        errors = difference(restored, gt).abs()
        errors = errors.flatten(1, -3) if self.one_mask else as_images(errors)
        mask = self._mask(errors.detach().sum(dim=1).flatten(1))
        return (errors * mask.view(errors.shape[0], 1, *errors.shape[2:])).mean()

    def _mask(self, scores: Tensor) -> Tensor:
        """Which pixels count, from the error of each, `(N, H * W)`."""
        pixels = scores.shape[1]
        rank = min(int(self.hard_share * pixels), pixels - 1)
        hard = scores > scores.sort(dim=1, descending=True).values[:, rank : rank + 1]
        drawn = torch.rand_like(scores).argsort(dim=1) < int(self.random_share * pixels)
        return hard | drawn
