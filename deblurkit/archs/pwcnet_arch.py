"""PWC-Net: optical flow from pyramids of features, warping and cost volumes, coarse to fine.

Sun, Yang, Liu, Kautz: PWC-Net: CNNs for Optical Flow Using Pyramid, Warping, and Cost Volume, CVPR 2018,
arXiv 1709.02371. The form is the one that CDVD-TSP trains on (csbhr/CDVD-TSP, after sniklaus/pytorch-pwc).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.ops.correlation import correlation
from deblurkit.ops.flow_warp import masked_warp_pwc
from deblurkit.registry import ARCH_REGISTRY

_SLOPE = 0.1
_RADIUS = 4
_VOLUME = (2 * _RADIUS + 1) ** 2
#: For the published width, 16: channels of the levels at 1/2, 1/4, ... 1/64 of the size; what each layer of a decoder
#: adds; and the layers of the refiner with their dilations.
_CHANNELS = (16, 32, 64, 96, 128, 196)
_GROWTH = (128, 128, 96, 64, 32)
_CONTEXT = (128, 128, 128, 96, 64, 32)
_DILATIONS = (1, 2, 4, 8, 16, 1)
_LEVELS = {2: "Two", 3: "Thr", 4: "Fou", 5: "Fiv", 6: "Six"}
_NAMES = ("One", "Two", "Thr", "Fou", "Fiv", "Six")
#: The network counts in this many pixels of the full size.
_UNIT = 20.0
_MULTIPLE = 64


def _conv(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation), nn.LeakyReLU(_SLOPE, inplace=True)
    )


def _scaled(channels: Iterable[int], width: int) -> tuple[int, ...]:
    return tuple(max(1, count * width // _CHANNELS[0]) for count in channels)


class _Extractor(nn.Module):
    """An image to its features at 1/2, 1/4, ... 1/64 of the size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inputs = 3
        for name, outputs in zip(_NAMES, _scaled(_CHANNELS, width), strict=True):
            layers = [*_conv(inputs, outputs, stride=2), *_conv(outputs, outputs), *_conv(outputs, outputs)]
            self.add_module(f"module{name}", nn.Sequential(*layers))
            inputs = outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = []
        for block in self.children():
            x = block(x)
            levels.append(x)
        return levels


class _Decoder(nn.Module):
    """Flow of one level from the features of both images and what the coarser level found."""

    def __init__(self, level: int, width: int) -> None:
        super().__init__()
        self.scale = _UNIT / 2**level
        channels, growths = _scaled(_CHANNELS, width), _scaled(_GROWTH, width)
        base = _VOLUME
        if level < 6:
            coarser = _VOLUME + (channels[level] + 4 if level < 5 else 0) + sum(growths)
            self.moduleUpflow = nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1)
            self.moduleUpfeat = nn.ConvTranspose2d(coarser, 2, 4, stride=2, padding=1)
            base += channels[level - 1] + 4
        for name, growth in zip(_NAMES, growths, strict=False):
            self.add_module(f"module{name}", _conv(base, growth))
            base += growth
        self.moduleSix = nn.Sequential(nn.Conv2d(base, 2, 3, padding=1))

    def forward(self, first: Tensor, second: Tensor, coarser: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Features of the two images, flow and features of the coarser level to flow and features of this one."""
        if coarser is None:
            features = F.leaky_relu(correlation(first, second, _RADIUS), _SLOPE)
        else:
            flow, up = self.moduleUpflow(coarser[0]), self.moduleUpfeat(coarser[1])
            volume = correlation(first, masked_warp_pwc(second, flow * self.scale), _RADIUS)
            features = torch.cat((F.leaky_relu(volume, _SLOPE), first, flow, up), dim=1)
        for name in _NAMES[:5]:
            features = torch.cat((self.get_submodule(f"module{name}")(features), features), dim=1)
        return self.moduleSix(features), features


class _Refiner(nn.Module):
    """A correction of the finest flow from a wide surrounding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inputs = _VOLUME + _scaled(_CHANNELS, width)[1] + 4 + sum(_scaled(_GROWTH, width))
        layers: list[nn.Module] = []
        for outputs, dilation in zip(_scaled(_CONTEXT, width), _DILATIONS, strict=True):
            layers += _conv(inputs, outputs, dilation=dilation)
            inputs = outputs
        self.moduleMain = nn.Sequential(*layers, nn.Conv2d(inputs, 2, 3, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        return self.moduleMain(features)


@ARCH_REGISTRY.register()
class PWCNet(nn.Module):
    """PWC-Net, a part of networks: two images `(B, 3, H, W)` in [0, 1] to the flow from the first to the second.

    The original weights expect BGR; CDVD-TSP trained them further on RGB.

    Args:
        n_feat: width of the first level, which all others follow; published: 16 (9,374,274 parameters).

    Raises:
        ValueError: n_feat is below 1.
    """

    paper = "PWC-Net: CNNs for Optical Flow Using Pyramid, Warping, and Cost Volume, CVPR 2018, arXiv 1709.02371"
    year = 2018

    def __init__(self, n_feat: int = 16) -> None:
        if n_feat < 1:
            raise ValueError(f"PWCNet: n_feat starts at 1, not {n_feat}")
        super().__init__()
        self.moduleExtractor = _Extractor(n_feat)
        for level, name in _LEVELS.items():
            self.add_module(f"module{name}", _Decoder(level, n_feat))
        self.moduleRefiner = _Refiner(n_feat)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow at a quarter of the size.

        Args:
            first, second: `(B, 3, H, W)`, H and W multiples of 64.

        Returns:
            `(B, 2, H/4, W/4)`, channel 0 horizontal, in 20 pixels of the images.
        """
        return self.match(self.moduleExtractor(first)[1:], self.moduleExtractor(second)[1:])

    def match(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        """`forward` from the features of the two images at 1/4 to 1/64 of the size."""
        coarser = None
        for level in (6, 5, 4, 3, 2):
            decoder = self.get_submodule(f"module{_LEVELS[level]}")
            coarser = decoder(first[level - 2], second[level - 2], coarser)
        assert coarser is not None
        flow, features = coarser
        return flow + self.moduleRefiner(features)

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """What `flow_of_pyramids` needs of an image `(B, 3, H, W)` of any size; each image of a video needs it once."""
        height, width = image.shape[-2:]
        size = [-(-side // _MULTIPLE) * _MULTIPLE for side in (height, width)]
        if size != [height, width]:
            image = F.interpolate(image, size, mode="bilinear", align_corners=False)
        return self.moduleExtractor(image)[1:]

    def flow_of_pyramids(self, first: Sequence[Tensor], second: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """The flow `(B, 2, *size)` in pixels, from the pyramids of two images of that size."""
        height, width = size
        flow = self.match(first, second)
        rows, columns = 4 * flow.shape[-2], 4 * flow.shape[-1]  # of the images as they were taken
        flow = F.interpolate(flow, (height, width), mode="bilinear", align_corners=False)
        return flow * flow.new_tensor([_UNIT * width / columns, _UNIT * height / rows]).view(2, 1, 1)

    def flow(self, first: Tensor, second: Tensor) -> Tensor:
        """The flow `(B, 2, H, W)` in pixels, from the first image `(B, 3, H, W)` of any size to the second."""
        return self.flow_of_pyramids(self.pyramid(first), self.pyramid(second), first.shape[-2:])
