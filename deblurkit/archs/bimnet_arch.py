"""BIMNet: LiteFlowNet, trained to find the same motion whether frames are blurred or not.

Hui, Tang, Loy: LiteFlowNet, CVPR 2018, arXiv 1805.07036 (the network); Son, Lee, Lee, Cho, Lee: Recurrent Video
Deblurring with Blur-Invariant Motion Estimation and Pixel Volumes, ACM TOG 2021, arXiv 2108.09982 (the training).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.ops.correlation import correlation
from deblurkit.ops.flow_warp import flow_warp
from deblurkit.registry import ARCH_REGISTRY

_SLOPE = 0.1
_RADIUS = 3
_VOLUME = (2 * _RADIUS + 1) ** 2
#: For the published width, 32: channels of the features at 1, 1/2, ... 1/32 of the size.
_CHANNELS = (32, 32, 64, 96, 128, 192)
_NAMES = ("One", "Two", "Thr", "Fou", "Fiv", "Six")
#: Levels with a flow, as state dicts count them: 2 (half the size) to 6; and the last kernel of each.
_LEVELS = (2, 3, 4, 5, 6)
_KERNELS = {2: 7, 3: 5, 4: 5, 5: 3, 6: 3}
#: The network counts in this many pixels of the full size.
_UNIT = 20.0

#: An image and its features at 1/2 to 1/32 of the size, as `BIMNet.pyramid` gives them.
Pyramid = tuple[list[Tensor], list[Tensor]]


def _convs(channels: Sequence[int], first_stride: int = 1, first_kernel: int = 3) -> list[nn.Module]:
    layers: list[nn.Module] = []
    stride, kernel = first_stride, first_kernel
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2), nn.LeakyReLU(_SLOPE, inplace=True)]
        stride, kernel = 1, 3
    return layers


def _scaled(channels: int, width: int) -> int:
    return max(1, channels * width // _CHANNELS[0])


def _pointwise(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.LeakyReLU(_SLOPE, inplace=True))


def _double(channels: int) -> nn.Module:
    """Each channel for itself at twice the size."""
    return nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, groups=channels, bias=False)


def _scale(level: int) -> float:
    """From the network's unit to pixels of a level."""
    return _UNIT / 2 ** (level - 1)


class _Features(nn.Module):
    """An image to its features at 1, 1/2, ... 1/32 of the size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        c = [_scaled(channels, width) for channels in _CHANNELS]
        self.moduleOne = nn.Sequential(*_convs((3, c[0]), first_kernel=7))
        self.moduleTwo = nn.Sequential(*_convs((c[0], c[1], c[1], c[1]), first_stride=2))
        self.moduleThr = nn.Sequential(*_convs((c[1], c[2], c[2]), first_stride=2))
        self.moduleFou = nn.Sequential(*_convs((c[2], c[3], c[3]), first_stride=2))
        self.moduleFiv = nn.Sequential(*_convs((c[3], c[4]), first_stride=2))
        self.moduleSix = nn.Sequential(*_convs((c[4], c[5]), first_stride=2))

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = []
        for name in _NAMES:
            x = self.get_submodule(f"module{name}")(x)
            levels.append(x)
        return levels


class _Matching(nn.Module):
    """A first flow of a level from a cost volume."""

    def __init__(self, level: int, width: int) -> None:
        super().__init__()
        self.scale, self.stride = _scale(level), 2 if level < 4 else 1
        a, b, c = (_scaled(channels, width) for channels in (128, 64, 32))
        self.moduleFeat = _pointwise(_scaled(_CHANNELS[1], width), b) if level == 2 else nn.Sequential()
        self.moduleUpflow = _double(2) if level < 6 else nn.Sequential()
        self.moduleUpcorr = _double(_VOLUME) if level < 4 else nn.Sequential()
        kernel = _KERNELS[level]
        self.moduleMain = nn.Sequential(*_convs((_VOLUME, a, b, c)), nn.Conv2d(c, 2, kernel, padding=kernel // 2))

    def forward(self, first: Tensor, second: Tensor, coarser: Tensor | None) -> Tensor:
        first, second = self.moduleFeat(first), self.moduleFeat(second)
        flow = None if coarser is None else self.moduleUpflow(coarser)
        if flow is not None:
            second = flow_warp(second, flow * self.scale)
        volume = F.leaky_relu(correlation(first, second, _RADIUS, self.stride), _SLOPE)
        found = self.moduleMain(self.moduleUpcorr(volume))
        return found if flow is None else flow + found


class _Subpixel(nn.Module):
    """A correction of the flow from the features that it brings together."""

    def __init__(self, level: int, width: int) -> None:
        super().__init__()
        self.scale = _scale(level)
        a, b, c = (_scaled(channels, width) for channels in (128, 64, 32))
        channels = _scaled(_CHANNELS[level - 1], width)
        self.moduleFeat = _pointwise(channels, b) if level == 2 else nn.Sequential()
        inputs = 2 * (b if level == 2 else channels) + 2
        kernel = _KERNELS[level]
        self.moduleMain = nn.Sequential(*_convs((inputs, a, b, c)), nn.Conv2d(c, 2, kernel, padding=kernel // 2))

    def forward(self, first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
        warped = flow_warp(self.moduleFeat(second), flow * self.scale)
        return flow + self.moduleMain(torch.cat((self.moduleFeat(first), warped, flow), dim=1))


class _Regularization(nn.Module):
    """Smooths the flow with a kernel for every pixel, found in the features and in how well the images agree."""

    def __init__(self, level: int, width: int) -> None:
        super().__init__()
        self.scale, self.kernel = _scale(level), _KERNELS[level]
        k, channels = self.kernel, _scaled(_CHANNELS[level - 1], width)
        a, b, c = (_scaled(channels, width) for channels in (128, 64, 32))
        self.moduleFeat = _pointwise(channels, a) if level < 5 else nn.Sequential()
        inputs = 3 + (a if level < 5 else channels)
        self.moduleMain = nn.Sequential(*_convs((inputs, a, a, b, b, c, c)))
        if level < 5:
            self.moduleDist = nn.Sequential(
                nn.Conv2d(c, k * k, (k, 1), padding=(k // 2, 0)), nn.Conv2d(k * k, k * k, (1, k), padding=(0, k // 2))
            )
        else:
            self.moduleDist = nn.Sequential(nn.Conv2d(c, k * k, k, padding=k // 2))
        self.moduleScaleX = nn.Conv2d(k * k, 1, 1)
        self.moduleScaleY = nn.Conv2d(k * k, 1, 1)

    def forward(self, images: tuple[Tensor, Tensor], first: Tensor, flow: Tensor) -> Tensor:
        with torch.no_grad():
            warped = flow_warp(images[1], flow * self.scale)
            error = (images[0] - warped).square().sum(1, keepdim=True).sqrt()
        centred = flow - flow.mean((2, 3), keepdim=True)
        distance = self.moduleDist(self.moduleMain(torch.cat((error, centred, self.moduleFeat(first)), dim=1)))
        distance = -distance.float().square()
        weights = (distance - distance.amax(1, keepdim=True)).exp()
        total = weights.sum(1, keepdim=True)
        smooth = [
            scale(weights * self._neighbours(flow[:, i : i + 1])) / total
            for i, scale in enumerate((self.moduleScaleX, self.moduleScaleY))
        ]
        return torch.cat(smooth, dim=1)

    def _neighbours(self, x: Tensor) -> Tensor:
        """`(B, 1, H, W)` to the `kernel x kernel` pixels around each, `(B, kernel^2, H, W)`, zero outside."""
        return F.unfold(x, self.kernel, padding=self.kernel // 2).unflatten(2, x.shape[-2:])


@ARCH_REGISTRY.register()
class BIMNet(nn.Module):
    """BIMNet, a part of networks: two images `(B, 3, H, W)` in [0, 1] to the flow from the first to the second.

    H and W must be multiples of 32.

    Args:
        n_feat: width at full size, which all others follow; published: 32 (5,381,969 parameters).

    Raises:
        ValueError: n_feat is below 1.
    """

    paper = (
        "Recurrent Video Deblurring with Blur-Invariant Motion Estimation and Pixel Volumes, ACM TOG 2021, "
        "arXiv 2108.09982"
    )
    year = 2021

    def __init__(self, n_feat: int = 32) -> None:
        if n_feat < 1:
            raise ValueError(f"BIMNet: n_feat starts at 1, not {n_feat}")
        super().__init__()
        self.moduleFeatures = _Features(n_feat)
        self.moduleMatching = nn.ModuleList(_Matching(level, n_feat) for level in _LEVELS)
        self.moduleSubpixel = nn.ModuleList(_Subpixel(level, n_feat) for level in _LEVELS)
        self.moduleRegularization = nn.ModuleList(_Regularization(level, n_feat) for level in _LEVELS)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow at half the size.

        Args:
            first, second: `(B, 3, H, W)`.

        Returns:
            `(B, 2, H/2, W/2)`, channel 0 horizontal, in pixels of the images.
        """
        return self.match(self.pyramid(first), self.pyramid(second))

    def pyramid(self, image: Tensor) -> Pyramid:
        """What `match` needs of an image `(B, 3, H, W)`; each image of a video needs it once."""
        features = self.moduleFeatures(image)[1:]
        images = []
        for one in features:
            image = F.interpolate(image, one.shape[-2:], mode="bilinear", align_corners=False)
            images.append(image)
        return images, features

    def match(self, first: Pyramid, second: Pyramid) -> Tensor:
        """`forward` from the pyramids of the two images."""
        flow: Tensor | None = None
        for i in reversed(range(len(_LEVELS))):
            images, features = (first[0][i], second[0][i]), (first[1][i], second[1][i])
            flow = self.moduleMatching[i](*features, flow)
            flow = self.moduleSubpixel[i](*features, flow)
            flow = self.moduleRegularization[i](images, features[0], flow)
        assert flow is not None
        return flow * _UNIT
