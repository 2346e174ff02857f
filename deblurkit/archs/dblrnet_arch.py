"""DBLRNet: a residual network over five frames that begins with 3D convolutions, and its discriminator (DBLRGAN).

Zhang, Luo, Zhong, Ma, Liu, Li: Adversarial Spatio-Temporal Learning for Video Deblurring, IEEE TIP 28(1), 2019,
arXiv 1804.00533. The form is SimDeblur's (MIT), whose checkpoints load as they are.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.archs.blocks import conv_norm
from deblurkit.contract import Capabilities, FrameContract
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY

_FRAMES = 5
_BLOCKS = 15


class _ResBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        conv1, norm1, _, conv2, norm2 = self.convs
        return x + conv_norm(F.relu(conv_norm(x, conv1, norm1)), conv2, norm2)


@ARCH_REGISTRY.register()
class DBLRNet(Network):
    """`(B, 5, in_channels, H, W)` RGB in [0, 1] to the restored middle frame `(B, 3, H, W)`; any H and W.

    Args:
        num_frames: 5: two 3D convolutions take two frames each.
        in_channels: channels of a frame.
        inner_channels: width; the published configuration has 64 (1,885,411 parameters).

    Raises:
        ValueError: num_frames is not 5, or the input has another number of frames or channels.
    """

    paper = "Adversarial Spatio-Temporal Learning for Video Deblurring, IEEE TIP 28(1), 2019, arXiv 1804.00533"
    year = 2019
    check_args = {"inner_channels": 8}  # noqa: RUF012

    def __init__(self, num_frames: int = _FRAMES, in_channels: int = 3, inner_channels: int = 64) -> None:
        if num_frames != _FRAMES:
            raise ValueError(
                f"DBLRNet's 3D convolutions make one frame of five: num_frames must be 5, not {num_frames}"
            )
        super().__init__(
            FrameContract(
                kind="window",
                frames=num_frames,
                target=num_frames // 2,
                halo=35,  # the number of 3x3 convolutions in a row
                capabilities=Capabilities(bf16=True, fp16=True, channels_last=False),  # torch: not with Conv3d
                licence="MIT (SimDeblur)",
            )
        )
        self.in_channels = in_channels
        c = inner_channels
        self.L_in = nn.Sequential(
            nn.Conv3d(in_channels, 16, 3, padding=(0, 1, 1)),
            nn.ReLU(),
            nn.Conv3d(16, c, 3, padding=(0, 1, 1)),
            nn.ReLU(),
        )
        self.Ln = nn.Sequential(*(_ResBlock(c) for _ in range(_BLOCKS)))
        self.L_out = nn.Sequential(
            nn.Conv2d(c, 4 * c, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(4 * c, 4 * c, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(4 * c, 3, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 5, in_channels, H, W)` to `(B, 3, H, W)`; not clamped."""
        if x.ndim != 5 or x.shape[1:3] != (_FRAMES, self.in_channels):
            raise ValueError(f"DBLRNet takes (B, {_FRAMES}, {self.in_channels}, H, W), got {tuple(x.shape)}")
        features = self._merge(x)
        return self.L_out(self.Ln(features) + features)

    def _merge(self, x: Tensor) -> Tensor:
        """`L_in` as 2D convolutions over stacked frames, `(B, 5, c, H, W)` to `(B, inner_channels, H, W)`.

        A 3D convolution without padding in time is a 2D one over three stacked frames, for which torch has faster code.
        """
        first, second = self.L_in[0], self.L_in[2]
        triples = torch.stack([x[:, t : t + 3] for t in range(3)], dim=1).flatten(0, 1)
        slices = F.relu(_conv_stacked(triples, first))
        return F.relu(_conv_stacked(slices.unflatten(0, (-1, 3)), second))


def _conv_stacked(x: Tensor, conv: nn.Module) -> Tensor:
    """`(B, 3, c, H, W)` through a 3x3x3 convolution that is not padded in time, `(B, outputs, H, W)`."""
    assert isinstance(conv, nn.Conv3d)
    return F.conv2d(x.flatten(1, 2), conv.weight.transpose(1, 2).flatten(1, 2), conv.bias, padding=1)


@ARCH_REGISTRY.register()
class DBLRNetD(nn.Module):
    """The discriminator of DBLRGAN: images `(B, in_channels, H, W)` to logits `(B, num_logits)`; H, W at least 16.

    A classifier in the manner of VGG. The published code of it cannot run (its channel counts do not chain, it never
    reduces the size and it flattens the batch), so there are no checkpoints; here every group of convolutions ends with
    a 2x2 maximum, and an adaptive mean brings the last map to the 4096 values that the first linear layer takes.

    Args:
        in_channels: channels of an image.
        num_logits: 2 for a real/fake classifier as in the paper, 1 for a score.

    Raises:
        ValueError: the input is smaller than 16x16 or has another number of channels.
    """

    _GROUPS = ((2, 64), (3, 128), (4, 256), (5, 512))
    _POOLED = (2, 4)  # times 512 channels: 4096

    def __init__(self, in_channels: int = 3, num_logits: Literal[1, 2] = 2) -> None:
        super().__init__()
        self.in_channels = in_channels
        layers: list[nn.Module] = []
        channels = in_channels
        for convs, width in self._GROUPS:
            for _ in range(convs):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        hidden = channels * self._POOLED[0] * self._POOLED[1]
        self.classifier = nn.Sequential(
            nn.Linear(hidden, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, num_logits)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, H, W)` to `(B, num_logits)`."""
        if x.ndim != 4 or x.shape[1] != self.in_channels or min(x.shape[-2:]) < 16:
            raise ValueError(
                f"DBLRNetD takes (B, {self.in_channels}, H, W) with H and W of at least 16, got {tuple(x.shape)}"
            )
        pooled = F.adaptive_avg_pool2d(self.features(x), self._POOLED)
        return self.classifier(pooled.flatten(1))
