"""Losses of edges. Sources: `swz30/MPRNet@43feb2a` (EdgeLoss), `zzh-tech/ESTRNN@c7e7a49` (GradientL1Loss)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from deblurkit.losses.base import Loss, as_images, check_shapes, difference, positive
from deblurkit.registry import LOSS_REGISTRY


def laplacian(x: Tensor) -> Tensor:
    """The finest level of a Laplacian pyramid, `(N, C, H, W)`: x - G(up(G(x))).

    G blurs with [.05, .25, .4, .25, .05] in both directions (borders replicated); `up` keeps every second row and
    column times 4 and puts zeros for the others.
    """
    low = _blur(x)
    sparse = torch.zeros_like(low)
    sparse[..., ::2, ::2] = low[..., ::2, ::2] * 4
    return x - _blur(sparse)


def _blur(x: Tensor) -> Tensor:
    kernel = x.new_tensor([0.05, 0.25, 0.4, 0.25, 0.05])
    planes = F.pad(x.reshape(-1, 1, *x.shape[-2:]), (2, 2, 2, 2), mode="replicate")
    return F.conv2d(F.conv2d(planes, kernel.view(1, 1, 5, 1)), kernel.view(1, 1, 1, 5)).view_as(x)


@LOSS_REGISTRY.register()
class EdgeLoss(Loss):
    """Mean of sqrt((L(restored) - L(gt))^2 + eps^2) with the `laplacian` L; MPRNet's, with the weight 0.05 there.

    Args:
        eps: above 0; squared.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = positive("eps", eps)

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """See `Loss.forward`."""
        edges = laplacian(as_images(difference(restored, gt)))  # L is linear
        return torch.sqrt(edges**2 + self.eps**2).mean()


@LOSS_REGISTRY.register()
class GradientL1Loss(Loss):
    """Mean of |g(restored) - g(gt)|, g the magnitude of the gradient of each channel; ESTRNN's `gradient_L1`.

    g = sqrt(v^2 + h^2 + 1e-6) with the differences v and h of the neighbours below and above, right and left. Outside
    of the picture is zero, and a frame of one pixel around it takes part.
    """

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """See `Loss.forward`."""
        check_shapes(restored, gt)
        return (_magnitude(restored) - _magnitude(gt)).abs().mean()


def _magnitude(x: Tensor) -> Tensor:
    padded = F.pad(x, (2, 2, 2, 2))
    vertical = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    horizontal = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    return torch.sqrt(vertical**2 + horizontal**2 + 1e-6)
