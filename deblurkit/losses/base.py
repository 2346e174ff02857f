"""What the trainer asks of a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Loss(nn.Module, ABC):
    """A training loss. Its weight in the sum and the output that it looks at are the trainer's business."""

    @abstractmethod
    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """The loss of `restored` against `gt`, float RGB in about [0, 1], `(B, ..., C, H, W)`, as a scalar.

        Raises:
            ValueError: the shapes differ.
        """
