"""Temporal sharpness prior (Pan et al., Cascaded Deep Video Deblurring Using Temporal Sharpness Prior, CVPR 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def temporal_sharpness_prior(frames: Sequence[Tensor], masks: Sequence[Tensor], kernel_size: int = 5) -> Tensor:
    """How well warped neighbours agree with the centre frame: near one where all are sharp and alike.

    `exp(-sqrt(sum over frames and channels of (f_i - f_centre)^2 / 2))` of box-filtered frames (zero padding, always
    divided by the whole box); zero where, in all channels, some mask is zero. No gradient reaches anything.

    Args:
        frames: `(N, C, H, W)` each, an odd number with the centre in the middle; neighbours warped to the centre.
        masks: of the frames, in the same shape; 1 where the warped frame is valid.
        kernel_size: odd side of the box; 1 leaves the frames as they are.

    Returns:
        `(N, 1, H, W)` in [0, 1].

    Raises:
        ValueError: an even number of frames, another number of masks, or an even box.
    """
    if len(frames) % 2 == 0 or len(masks) != len(frames) or kernel_size % 2 == 0:
        raise ValueError(
            f"expected an odd number of frames, as many masks and an odd kernel size, "
            f"got {len(frames)}, {len(masks)} and {kernel_size}"
        )
    centre = len(frames) // 2
    distance = torch.zeros_like(frames[centre][:, :1])
    for i, frame in enumerate(frames):
        if i != centre:
            difference = F.avg_pool2d(frame - frames[centre], kernel_size, stride=1, padding=kernel_size // 2)
            distance += difference.square().sum(1, keepdim=True) / 2
    valid = masks[0]
    for mask in masks[1:]:
        valid = valid * mask
    return torch.exp(-distance.sqrt()) * (valid.sum(1, keepdim=True) > 0)
