"""What the evaluator asks of a metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from deblurkit.errors import DataError
from deblurkit.image_io import Pixels


class Metric(ABC):
    """A figure for one restored picture.

    Attributes:
        better: whether a higher or a lower figure is the better one. unit: "dB", or "" for a pure number.
    """

    better: ClassVar[Literal["higher", "lower"]] = "higher"
    unit: ClassVar[str] = ""

    @abstractmethod
    def __call__(self, restored: Pixels, gt: Pixels) -> float:
        """The figure of `restored` against `gt`, both `(H, W, C)` RGB pixels of the same size and type.

        Raises:
            DataError: the two do not fit together, or are too small.
        """


def check_pair(restored: Pixels, gt: Pixels) -> None:
    """Raise DataError unless both pictures are `(H, W, C)` and have the same size and pixel type."""
    if restored.shape != gt.shape or restored.ndim != 3:
        raise DataError(
            f"pictures of different or wrong shapes cannot be compared: restored {restored.shape}, sharp {gt.shape}"
        )
    if restored.dtype != gt.dtype:
        raise DataError(f"pictures of different pixel types: restored {restored.dtype}, sharp {gt.dtype}")
