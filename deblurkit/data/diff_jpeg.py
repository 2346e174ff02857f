"""JPEG as a function of tensors, for degradations on the device and with a gradient (Real-ESRGAN's DiffJPEG).

Shin and Song, "JPEG-resistant Adversarial Images", NIPS workshop 2017. What `XPixelGroup/BasicSR@8d56e3a` returns is in
`tests/parity/degrade_ops.npz`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

#: The example tables of the JPEG standard (ITU-T T.81, annex K), rows of rising vertical frequency.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *[(99,) * 8] * 4,
)
#: R, G and B to Y, Cb and Cr (JFIF), and back.
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def diff_jpeg(frames: Tensor, quality: Tensor | float, differentiable: bool = False) -> Tensor:
    """Frames after JPEG compression with 4:2:0 chroma; nothing is rounded but the coefficients.

    As upstream, the tables are used transposed, and sides that are no multiples of 16 are completed with black.

    Args:
        frames: `(N, 3, H, W)` RGB in [0, 1]. quality: from 1 to below 100, one for all or `(N,)`.
        differentiable: round(x) + (x - round(x))^3 instead of round(x), which has a gradient.

    Raises:
        ValueError: other shapes, or a quality out of range.
    """
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f"frames should be (N, 3, H, W), got {tuple(frames.shape)}")
    quality = torch.as_tensor(quality, dtype=frames.dtype, device=frames.device).expand(len(frames))
    if bool(((quality < 1) | (quality >= 100)).any()):
        raise ValueError(f"quality is from 1 to below 100, got {quality.tolist()}")
    factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50).view(-1, 1, 1, 1, 1, 1)
    height, width = frames.shape[-2:]
    padded = F.pad(255 * frames, (0, -width % 16, 0, -height % 16))
    planes = torch.einsum("ij,njhw->nihw", frames.new_tensor(_TO_YCC), padded)
    luma = _coded(planes[:, :1] - 128, _LUMA, factor, differentiable) + 128
    chroma = _coded(F.avg_pool2d(planes[:, 1:], 2), _CHROMA, factor, differentiable)
    chroma = F.interpolate(chroma, scale_factor=2, mode="nearest")
    decoded = torch.einsum("ij,njhw->nihw", frames.new_tensor(_TO_RGB), torch.cat([luma, chroma], dim=1))
    return decoded[..., :height, :width].clamp(0, 255) / 255


def _coded(planes: Tensor, table: tuple[tuple[int, ...], ...], factor: Tensor, differentiable: bool) -> Tensor:
    """Planes around zero, `(N, C, H, W)`, after quantisation of the cosine transform of their 8x8 blocks."""
    count, channels, height, width = planes.shape
    blocks = planes.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    steps = planes.new_tensor(table).T * factor
    n = torch.arange(8, dtype=planes.dtype, device=planes.device)
    basis = torch.cos((2 * n + 1) * n[:, None] * (math.pi / 16)) / 2
    basis[0] /= math.sqrt(2)
    levels = basis @ blocks @ basis.T / steps
    rounded = torch.round(levels)
    if differentiable:
        rounded = rounded + (levels - rounded) ** 3
    blocks = basis.T @ (rounded * steps) @ basis
    return blocks.transpose(3, 4).reshape(planes.shape)
