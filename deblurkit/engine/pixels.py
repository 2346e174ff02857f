"""Frames as people and files have them, and as the restorer does: quantising, and the kinds of the Python interface."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from deblurkit.errors import DataError, NotFiniteError
from deblurkit.image_io import Pixels, cv2
from deblurkit.strips import strips


def to_pixels(restored: Tensor, dtype: Any) -> Pixels:
    """Quantise a restored frame: clamp to [0, 1], times 255 (65535), round half to even.

    Args:
        restored: float `(C, h, w)`. dtype: uint8 or uint16.

    Returns:
        `(h, w, C)` pixels.

    Raises:
        NotFiniteError: the frame holds values that are not finite.
    """
    dtype = np.dtype(dtype)
    if dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels are uint8 or uint16, not {dtype}")
    planes = check_finite(restored).detach().float().cpu()
    channels, height, width = planes.shape
    pixels = np.empty((height, width, channels), dtype)
    for rows in strips(height, width):
        scaled = planes[:, rows].clamp(0, 1).mul_(np.iinfo(dtype).max).numpy()
        if dtype == np.uint8:  # torch makes integers, and interleaves channels, several times as slowly
            quantised = [cv2().convertScaleAbs(plane) for plane in scaled]
        else:
            quantised = [plane.astype(dtype) for plane in np.rint(scaled, out=scaled)]
        cv2().merge(quantised, pixels[rows])
    return pixels


def check_finite(restored: Tensor) -> Tensor:
    """The frame as it is.

    Raises:
        NotFiniteError: it holds values that are not finite.
    """
    # a sum is finite where all are, but for one that overflows; it takes a fortieth of the time
    if not bool(restored.sum().isfinite()) and not bool(restored.isfinite().all()):
        raise NotFiniteError("the network returns values that are not numbers; its weights are damaged or diverged")
    return restored


def to_array(frame: Tensor, number: int) -> Pixels:
    """A tensor of the Python interface as `(H, W, 3)`, uint8 or float32."""
    if frame.ndim != 3 or frame.shape[0] != 3 or not (frame.dtype == torch.uint8 or frame.is_floating_point()):
        raise DataError(
            f"frame {number} is a tensor of {frame.dtype} and shape {tuple(frame.shape)}, not (3, H, W), uint8 or float"
        )
    frame = frame.detach() if frame.dtype == torch.uint8 else frame.detach().float()
    return frame.permute(1, 2, 0).contiguous().cpu().numpy()


def like(restored: Tensor, is_tensor: bool, dtype: Any) -> Any:
    """A restored frame as the kind that came in: pixels, or a tensor, of that dtype (floating point: float32)."""
    if not is_tensor:
        return to_pixels(restored, dtype)
    if dtype == torch.uint8:
        return torch.from_numpy(to_pixels(restored, np.uint8)).permute(2, 0, 1).contiguous()
    return check_finite(restored).clamp(0, 1)
