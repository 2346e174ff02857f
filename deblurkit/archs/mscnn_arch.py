"""MSCNN (DeepDeblur): residual networks at three scales, each helped by the coarser one; and its discriminator.

Nah, Kim, Lee: Deep Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring, CVPR 2017, arXiv 1612.02177.
Upstream: SeungjunNah/DeepDeblur-PyTorch (`MSResNet`, `Discriminator`).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.contract import Capabilities, FrameContract, Output
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY


def _conv(inputs: int, outputs: int, kernel_size: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2)


class _ResBlock(nn.Module):
    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(width, width, kernel_size), nn.ReLU(inplace=True), _conv(width, width, kernel_size)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x


class _ResNet(nn.Module):
    """The network of one scale."""

    def __init__(self, inputs: int, width: int, blocks: int, kernel_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(inputs, width, kernel_size),
            *(_ResBlock(width, kernel_size) for _ in range(blocks)),
            _conv(width, 3, kernel_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class _Up(nn.Module):
    """The result of one scale to the size of the next."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.uppath = nn.Sequential(_conv(3, 12, kernel_size), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.uppath(x)


def _pyramid_taps() -> Tensor:
    """Weights of eight neighbouring pixels: a Gaussian (sigma 2/3, seven taps), then the mean of two pixels."""
    gauss = torch.exp(-0.5 * (torch.arange(-3.0, 4.0, dtype=torch.float64) * 1.5) ** 2)
    gauss = gauss / gauss.sum()
    return (F.pad(gauss, (0, 1)) + F.pad(gauss, (1, 0))) / 2


def _mirror(x: Tensor, dim: int) -> Tensor:
    """Three more pixels on both sides of `dim`, reflected with the edge pixel (c b a | a b c)."""
    size = x.shape[dim]
    index = torch.arange(-3, size + 3, device=x.device) % (2 * size)
    return x.index_select(dim, torch.minimum(index, 2 * size - 1 - index))


def gaussian_half(x: Tensor) -> Tensor:
    """The next level of upstream's Gaussian pyramid (skimage's `pyramid_gaussian`), `(B, C, H, W)` of even size.

    A Gaussian blur with sigma 2/3, then bilinear reduction by two: together one convolution of stride 2 per axis.
    """
    channels = x.shape[1]
    taps = _pyramid_taps().to(x).expand(channels, 1, 8)
    x = F.conv2d(_mirror(x, -2), taps[..., None], stride=(2, 1), groups=channels)
    return F.conv2d(_mirror(x, -1), taps[:, :, None], stride=(1, 2), groups=channels)


@ARCH_REGISTRY.register()
class MSCNN(Network):
    """DeepDeblur: images `(B, 3, H, W)`, H and W multiples of 2 ** (n_scales - 1), which is 4; 11,721,321 parameters.

    `run` takes RGB in [0, 1] whatever `rgb_range` is, and returns "restored" and the coarser results "scale2",
    "scale4", ..., not clamped. `forward` takes [0, rgb_range].

    Args:
        n_scales: levels of the pyramid.
        n_resblocks: residual blocks at each scale.
        n_feats: channels.
        kernel_size: of every convolution; odd.
        rgb_range: the value of white that the weights were trained on; 255 for the official ones.

    Raises:
        ValueError: an argument is out of range, or `forward` gets another number of levels.
    """

    paper = "Deep Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring, CVPR 2017, arXiv 1612.02177"
    year = 2017
    check_args: ClassVar = {"n_resblocks": 1, "n_feats": 8}

    def __init__(
        self,
        n_scales: int = 3,
        n_resblocks: int = 19,
        n_feats: int = 64,
        kernel_size: int = 5,
        rgb_range: float = 255,
    ) -> None:
        if n_scales < 1 or n_resblocks < 0 or n_feats < 1:
            raise ValueError(
                f"MSCNN: n_scales {n_scales} and n_feats {n_feats} start at 1, n_resblocks {n_resblocks} at 0"
            )
        if kernel_size % 2 == 0:
            raise ValueError(f"MSCNN.kernel_size must be odd, not {kernel_size}")
        if rgb_range <= 0:
            raise ValueError(f"MSCNN.rgb_range must be positive, not {rgb_range}")
        radius = kernel_size // 2
        coarser = tuple(Output(f"scale{2**scale}", scale=0.5**scale) for scale in range(1, n_scales))
        super().__init__(
            FrameContract(
                kind="image",
                multiple=2 ** (n_scales - 1),
                pad="replicate",
                outputs=(Output("restored"), *coarser),
                # the networks of all scales, then what joins the scales; measured by gradient for kernels of 1 to 7,
                # 1 to 4 scales, 0 to 2 blocks
                halo=(2**n_scales - 1) * (2 * n_resblocks + 2) * radius + (2**n_scales - 2) * (radius + 2),
                capabilities=Capabilities(bf16=True, fp16=True),
                licence="MIT (DeepDeblur-PyTorch)",
            )
        )
        self.n_scales, self.rgb_range = n_scales, rgb_range
        self.body_models = nn.ModuleList(
            _ResNet(3 if scale == n_scales - 1 else 6, n_feats, n_resblocks, kernel_size) for scale in range(n_scales)
        )
        # entry s enlarges the result of scale s; there is none for the finest
        self.conv_end_models = nn.ModuleDict({str(scale): _Up(kernel_size) for scale in range(1, n_scales)})

    def forward(self, x: Tensor | list[Tensor], *coarser: Tensor) -> list[Tensor]:
        """The pyramid to the results of all scales, both finest first and in [0, rgb_range].

        Args:
            x: the pyramid as a list, its finest level, `(B, 3, H, W)`, or an image alone, from which a Gaussian pyramid
                is then made.
            coarser: the other levels, `(B, 3, H / 2, W / 2)`, ...
        """
        if isinstance(x, Tensor) and not coarser:
            levels = [x]
            while len(levels) < self.n_scales:
                levels.append(gaussian_half(levels[-1]))
        else:
            levels = [x, *coarser] if isinstance(x, Tensor) else [*x, *coarser]
        if len(levels) != self.n_scales:
            raise ValueError(f"MSCNN has {self.n_scales} scales, got a pyramid of {len(levels)}")

        mean = self.rgb_range / 2
        results: list[Tensor] = []
        for scale in range(self.n_scales - 1, -1, -1):
            x = levels[scale] - mean
            if results:
                x = torch.cat([x, self.conv_end_models[str(scale + 1)](results[-1])], dim=1)
            results.append(self.body_models[scale](x))
        return [result + mean for result in reversed(results)]

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """See `Network.run`."""
        if x.ndim == 5:
            return super().run(x)
        results = self.forward(x * self.rgb_range)
        names = (output.name for output in self.contract.outputs)
        return {name: result / self.rgb_range for name, result in zip(names, results, strict=True)}


@ARCH_REGISTRY.register()
class MSCNNDiscriminator(nn.Module):
    """DeepDeblur's discriminator: `(B, 3, 256, 256)` RGB in the generator's range to logits `(B, 1, 1, 1)`.

    Upstream feeds it images in [0, 255]. 10,725,216 parameters.

    Args:
        n_feats: channels of the third layer; the last has eight times as many.
        kernel_size: of all convolutions but the last two; odd.

    Raises:
        ValueError: kernel_size is even or n_feats is odd.
    """

    def __init__(self, n_feats: int = 64, kernel_size: int = 5) -> None:
        super().__init__()
        if kernel_size % 2 == 0 or n_feats % 2:
            raise ValueError(
                f"MSCNNDiscriminator: kernel_size must be odd and n_feats even, not {kernel_size} and {n_feats}"
            )
        n = n_feats
        widths = (3, n // 2, n // 2, n, n, 2 * n, 2 * n, 4 * n, 4 * n, 8 * n)
        strides = (1, 2, 1, 2, 1, 4, 1, 4, 1)
        self.conv_layers = nn.ModuleList(
            nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=False)
            for inputs, outputs, stride in zip(widths, widths[1:], strides, strict=False)
        )
        self.conv_layers.append(nn.Conv2d(8 * n, 8 * n, 4, stride=4, bias=False))
        self.dense = nn.Conv2d(8 * n, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 3, H, W)` to logits `(B, 1, H // 256, W // 256)`."""
        for layer in self.conv_layers:
            x = F.leaky_relu(layer(x), 0.2)
        return self.dense(x)
