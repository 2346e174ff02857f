"""MIMO-UNet and MIMO-UNet+: one U-Net that takes and restores an image at three scales.

Cho, Ji, Hong, Jung, Ko: Rethinking Coarse-to-Fine Approach in Single Image Deblurring, ICCV 2021, arXiv 2108.05054.
Upstream: chosj95/MIMO-UNet (`models/MIMOUNet.py`). MIMO-UNet++ is MIMO-UNet+ with a self-ensemble at test time.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.contract import Capabilities, FrameContract, Output
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY

_WIDTH = 32


def _half(x: Tensor) -> Tensor:
    """Nearest interpolation to half the size, which takes every second pixel, as a view."""
    return x[..., ::2, ::2]


class _Conv(nn.Module):
    """Convolution (or transposed convolution to twice the size), by default with a ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True, transpose: bool = False
    ) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
            if transpose
            else nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
        )
        if relu:
            self.main.append(nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class _ResBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.main = nn.Sequential(_Conv(width, width), _Conv(width, width, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + x


class _Blocks(nn.Module):
    """The encoder's and decoder's row of residual blocks (EBlock, DBlock)."""

    def __init__(self, width: int, num_res: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(_ResBlock(width) for _ in range(num_res)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class _ShallowFeatures(nn.Module):
    """Features of the reduced input image (SCM)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            _Conv(3, width // 4),
            _Conv(width // 4, width // 2, kernel=1),
            _Conv(width // 2, width // 2),
            _Conv(width // 2, width - 3, kernel=1),
        )
        self.conv = _Conv(width, width, kernel=1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.cat([x, self.main(x)], dim=1))


class _FeatureAttention(nn.Module):
    """Joins the encoder's feature and that of the reduced image (FAM)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.merge = _Conv(width, width, relu=False)

    def forward(self, encoded: Tensor, shallow: Tensor) -> Tensor:
        return encoded + self.merge(encoded * shallow)


class _FeatureFusion(nn.Module):
    """Joins the encoder's features of all scales at one scale (AFF).

    The first layer is a 1x1 convolution of the concatenated features after nearest up-sampling. Such a convolution and
    nearest up-sampling may change places, so each feature is convolved at its own size and the sum is up-sampled.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_Conv(7 * _WIDTH, outputs, kernel=1), _Conv(outputs, outputs, relu=False))

    def forward(self, *features: Tensor) -> Tensor:
        """`features`: in the order of their channels, each of the result's size or of half the size of the last."""
        first = self.conv.get_submodule("0.main.0")
        assert isinstance(first, nn.Conv2d)
        weights = first.weight.split([feature.shape[1] for feature in features], dim=1)
        parts = [F.conv2d(feature, weight) for feature, weight in zip(features[1:], weights[1:], strict=True)]
        parts.insert(0, F.conv2d(features[0], weights[0], first.bias))
        total = parts[-1]
        for coarse, fine in pairwise(reversed(parts)):
            if coarse.shape[-2:] != fine.shape[-2:]:
                total = F.interpolate(total, scale_factor=2.0)
            total = fine + total
        return self.conv[1](F.relu(total))


@ARCH_REGISTRY.register()
class MIMOUNet(Network):
    """MIMO-UNet: images `(B, 3, H, W)` RGB in [0, 1], H and W multiples of 4; parameters 6,807,171.

    `run` returns "restored" and the coarser results "scale2" and "scale4", not clamped.

    Args:
        num_res: residual blocks in each of the three encoder and three decoder stages; 8 in the paper.

    Raises:
        ValueError: num_res is below 1.
    """

    paper = "Rethinking Coarse-to-Fine Approach in Single Image Deblurring, ICCV 2021, arXiv 2108.05054"
    year = 2021
    check_args: ClassVar = {"num_res": 1}
    #: Probability that training drops a channel of the fused features; MIMO-UNet+ only.
    dropout: ClassVar[float] = 0.0

    def __init__(self, num_res: int = 8) -> None:
        if num_res < 1:
            raise ValueError(f"{type(self).__name__}.num_res must be at least 1, not {num_res}")
        super().__init__(
            FrameContract(
                kind="image",
                multiple=4,
                outputs=(Output("restored"), Output("scale2", scale=0.5), Output("scale4", scale=0.25)),
                halo=17 + 28 * num_res,  # measured by gradient for 1, 2, 3 and 8
                capabilities=Capabilities(bf16=True, fp16=True),
                licence="none stated (chosj95/MIMO-UNet)",
            )
        )
        widths = (_WIDTH, 2 * _WIDTH, 4 * _WIDTH)
        w1, w2, w4 = widths
        self.Encoder = nn.ModuleList(_Blocks(width, num_res) for width in widths)
        self.feat_extract = nn.ModuleList(
            [
                _Conv(3, w1),
                _Conv(w1, w2, stride=2),
                _Conv(w2, w4, stride=2),
                _Conv(w4, w2, transpose=True),
                _Conv(w2, w1, transpose=True),
                _Conv(w1, 3, relu=False),
            ]
        )
        self.Decoder = nn.ModuleList(_Blocks(width, num_res) for width in reversed(widths))
        self.Convs = nn.ModuleList([_Conv(w4, w2, kernel=1), _Conv(w2, w1, kernel=1)])
        self.ConvsOut = nn.ModuleList([_Conv(w4, 3, relu=False), _Conv(w2, 3, relu=False)])
        self.AFFs = nn.ModuleList([_FeatureFusion(w1), _FeatureFusion(w2)])
        self.FAM1 = _FeatureAttention(w4)
        self.SCM1 = _ShallowFeatures(w4)
        self.FAM2 = _FeatureAttention(w2)
        self.SCM2 = _ShallowFeatures(w2)
        self.drop1 = nn.Dropout2d(self.dropout) if self.dropout else nn.Identity()
        self.drop2 = nn.Dropout2d(self.dropout) if self.dropout else nn.Identity()

    def forward(self, x: Tensor) -> list[Tensor]:
        """`(B, 3, H, W)` to the results at 1/4, 1/2 and full size, in this order."""
        x2 = _half(x)
        x4 = _half(x2)
        encoded1 = self.Encoder[0](self.feat_extract[0](x))
        encoded2 = self.Encoder[1](self.FAM2(self.feat_extract[1](encoded1), self.SCM2(x2)))
        encoded4 = self.Encoder[2](self.FAM1(self.feat_extract[2](encoded2), self.SCM1(x4)))
        fused2 = self.drop2(self.AFFs[1](_half(encoded1), encoded2, encoded4))
        fused1 = self.drop1(self.AFFs[0](encoded1, encoded2, encoded4))

        z = self.Decoder[0](encoded4)
        result4 = self.ConvsOut[0](z) + x4
        z = self.Convs[0](torch.cat([self.feat_extract[3](z), fused2], dim=1))
        z = self.Decoder[1](z)
        result2 = self.ConvsOut[1](z) + x2
        z = self.Convs[1](torch.cat([self.feat_extract[4](z), fused1], dim=1))
        z = self.Decoder[2](z)
        return [result4, result2, self.feat_extract[5](z) + x]

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """See `Network.run`."""
        if x.ndim == 5:
            return super().run(x)
        scale4, scale2, restored = self.forward(x)
        return {"restored": restored, "scale2": scale2, "scale4": scale4}


@ARCH_REGISTRY.register()
class MIMOUNetPlus(MIMOUNet):
    """MIMO-UNet+: `MIMOUNet` with more residual blocks and dropout of fused features; parameters 16,107,651.

    Args:
        num_res: residual blocks in each of the three encoder and three decoder stages; 20 in the paper.

    Raises:
        ValueError: num_res is below 1.
    """

    dropout = 0.1

    def __init__(self, num_res: int = 20) -> None:
        super().__init__(num_res)
