"""RCAN: a very deep network of residual groups with channel attention.

Zhang, Li, Li, Wang, Zhong, Fu: Image Super-Resolution Using Very Deep Residual Channel Attention Networks, ECCV 2018,
arXiv 1807.02758. The form is BasicSR's (Apache-2.0), whose checkpoints load as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deblurkit.contract import Capabilities, FrameContract
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class _ChannelWeights(nn.Module):
    """Weights for the channels from their means, `(B,C,H,W)` to `(B,C,1,1)`."""

    def __init__(self, channels: int, squeeze_factor: int) -> None:
        super().__init__()
        squeezed = channels // squeeze_factor
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x)


class _Block(nn.Module):
    """RCAB: two convolutions whose channels are weighted, as a residual."""

    def __init__(self, channels: int, squeeze_factor: int, res_scale: float) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.rcab = nn.ModuleList(
            [
                _conv(channels, channels),
                nn.ReLU(inplace=True),
                _conv(channels, channels),
                _ChannelWeights(channels, squeeze_factor),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        first, act, second, weigh = self.rcab
        y = second(act(first(x)))
        return torch.addcmul(x, y, weigh(y), value=self.res_scale)


class _Group(nn.Module):
    def __init__(self, channels: int, num_block: int, squeeze_factor: int, res_scale: float) -> None:
        super().__init__()
        self.residual_group = nn.Sequential(*[_Block(channels, squeeze_factor, res_scale) for _ in range(num_block)])
        self.conv = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.residual_group(x)).add_(x)


def _upsampler(channels: int, factor: int) -> nn.Sequential:
    steps = [3] if factor == 3 else [2] * (factor.bit_length() - 1)
    layers: list[nn.Module] = []
    for step in steps:
        layers += [_conv(channels, step**2 * channels), nn.PixelShuffle(step)]
    return nn.Sequential(*layers)


@ARCH_REGISTRY.register()
class RCAN(Network):
    """RCAN: `(B, 3, H, W)` in [0, 1] to the restored image, `upscale` times as large. Any size is taken.

    The image is not added to the result: the network draws all of it. The paper has 10 groups of 20 blocks; upscale 1
    (deblurring) has 15,296,931 parameters then.

    Args:
        num_in_ch, num_out_ch: channels of the image and of the result; 3, as `rgb_mean`.
        num_feat: channels of the features.
        num_group, num_block: groups, and blocks of each.
        squeeze_factor: by how much the channel attention narrows its channels.
        upscale: 1, 2, 4, 8, ... or 3.
        res_scale: what a block's residual is multiplied by.
        img_range: the value of white inside the network.
        rgb_mean: what is taken from the image, which is in [0, 1], and added to the result.

    Raises:
        ValueError: upscale is neither 3 nor a power of two, num_in_ch or num_out_ch is not 3, or squeeze_factor is
            larger than num_feat.
    """

    paper = "Image Super-Resolution Using Very Deep Residual Channel Attention Networks, ECCV 2018, arXiv 1807.02758"
    year = 2018
    check_args = {"num_feat": 16, "num_group": 2, "num_block": 2, "squeeze_factor": 4, "upscale": 2}  # noqa: RUF012

    mean: Tensor

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_group: int = 10,
        num_block: int = 16,
        squeeze_factor: int = 16,
        upscale: int = 4,
        res_scale: float = 1,
        img_range: float = 255.0,
        rgb_mean: tuple[float, float, float] = (0.4488, 0.4371, 0.4040),
    ) -> None:
        if (num_in_ch, num_out_ch) != (3, 3):
            raise ValueError(f"RCAN takes and gives RGB: num_in_ch {num_in_ch} and num_out_ch {num_out_ch} must be 3")
        if upscale != 3 and (upscale < 1 or upscale & (upscale - 1)):
            raise ValueError(f"RCAN enlarges by a power of two (1, 2, 4, ...) or by 3: upscale must not be {upscale}")
        if not 1 <= squeeze_factor <= num_feat:
            raise ValueError(f"RCAN: squeeze_factor {squeeze_factor} must be between 1 and num_feat {num_feat}")
        super().__init__(
            FrameContract(
                kind="image",
                scale=upscale,
                capabilities=Capabilities(bf16=True, fp16=False),
                licence="Apache-2.0 (BasicSR)",
            )
        )
        self.img_range = img_range
        self.register_buffer("mean", torch.tensor(rgb_mean).view(1, 3, 1, 1), persistent=False)
        self.conv_first = _conv(num_in_ch, num_feat)
        self.body = nn.Sequential(*[_Group(num_feat, num_block, squeeze_factor, res_scale) for _ in range(num_group)])
        self.conv_after_body = _conv(num_feat, num_feat)
        self.upsample = _upsampler(num_feat, upscale)
        self.conv_last = _conv(num_feat, num_out_ch)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 3, H, W)` to `(B, 3, upscale * H, upscale * W)`; not clamped."""
        shallow = self.conv_first((x - self.mean) * self.img_range)
        deep = self.conv_after_body(self.body(shallow)).add_(shallow)
        return self.conv_last(self.upsample(deep)) / self.img_range + self.mean
