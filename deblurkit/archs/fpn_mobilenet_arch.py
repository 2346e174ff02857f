"""DeblurGAN-v2 with a MobileNetV2 backbone.

Kupyn, Martyniuk, Wu, Wang: DeblurGAN-v2: Deblurring (Orders-of-Magnitude) Faster and Better, ICCV 2019,
arXiv 1908.03826. Upstream: VITA-Group/DeblurGANv2 (`models/fpn_mobilenet.py`, `mobilenet_v2.py`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.archs.blocks import BatchNorm2d, FPNGenerator, normed_conv
from deblurkit.contract import Capabilities, FrameContract
from deblurkit.registry import ARCH_REGISTRY

#: MobileNetV2's rows of inverted residuals: expansion, channels, number, stride of the first.
_ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
#: Where the classifier's layers are cut into the five maps of the pyramid; the layers after the last cut are not used.
_CUTS = (0, 2, 4, 7, 11, 16)


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution and batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, BatchNorm2d(outputs)]


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = [*_conv(inputs, inner), nn.ReLU6(inplace=True)] if expansion > 1 else []
        depthwise = [*_conv(inner, inner, 3, stride, groups=inner), nn.ReLU6(inplace=True)]
        self.conv = nn.Sequential(*expand, *depthwise, *_conv(inner, outputs))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


def _mobilenet_features() -> nn.Sequential:
    """The 19 layers of MobileNetV2 before its classifier."""
    layers: list[nn.Module] = [nn.Sequential(*_conv(3, 32, 3, stride=2), nn.ReLU6(inplace=True))]
    width = 32
    for expansion, outputs, number, stride in _ROWS:
        for i in range(number):
            layers.append(_InvertedResidual(width, outputs, stride if i == 0 else 1, expansion))
            width = outputs
    layers.append(nn.Sequential(*_conv(width, 1280), nn.ReLU6(inplace=True)))
    return nn.Sequential(*layers)


class _FPN(nn.Module):
    """Feature pyramid over MobileNetV2.

    Its layers are registered twice, in `features` and in `enc0` to `enc4`, as in upstream's checkpoints.
    """

    def __init__(self, width: int, norm_layer: Literal["instance", "batch"]) -> None:
        super().__init__()
        self.features = _mobilenet_features()
        for i, (start, end) in enumerate(pairwise(_CUTS)):
            self.add_module(f"enc{i}", nn.Sequential(*list(self.features)[start:end]))
        self.td1 = normed_conv(width, width, norm_layer)
        self.td2 = normed_conv(width, width, norm_layer)
        self.td3 = normed_conv(width, width, norm_layer)
        self.lateral4 = nn.Conv2d(160, width, 1, bias=False)
        self.lateral3 = nn.Conv2d(64, width, 1, bias=False)
        self.lateral2 = nn.Conv2d(32, width, 1, bias=False)
        self.lateral1 = nn.Conv2d(24, width, 1, bias=False)
        self.lateral0 = nn.Conv2d(16, width // 2, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """`(B, 3, H, W)` to the maps at 1/2, 1/4, 1/8, 1/16, 1/32."""
        encoded = []
        for i in range(5):
            x = self.get_submodule(f"enc{i}")(x)
            encoded.append(x)
        map4 = self.lateral4(encoded[4])
        map3 = self.td1(self.lateral3(encoded[3]) + F.interpolate(map4, scale_factor=2.0))
        map2 = self.td2(self.lateral2(encoded[2]) + F.interpolate(map3, scale_factor=2.0))
        map1 = self.td3(self.lateral1(encoded[1]) + F.interpolate(map2, scale_factor=2.0))
        return self.lateral0(encoded[0]), map1, map2, map3, map4


@ARCH_REGISTRY.register()
class FPNMobileNet(FPNGenerator):
    """DeblurGAN-v2 (MobileNetV2): images `(B, 3, H, W)`, H and W multiples of 32; 3,312,707 parameters, 2,106,627 used.

    `run` takes and returns RGB in [0, 1]; `forward` works in [-1, 1]. Upstream pads with mid grey, here sizes are
    completed by reflection.

    Args:
        norm_layer: "instance" (published; without weights, with running statistics) or "batch".
        output_ch: channels of the result.
        num_filters: channels of the heads.
        num_filters_fpn: channels of the pyramid; twice num_filters.
        pretrained: a file with MobileNetV2's ImageNet weights for the backbone, true for `mobilenetv2.pth.tar` in the
            working directory (upstream's default). Nothing is downloaded.
        freeze_backbone: the backbone learns nothing until `unfreeze` is called; sensible with `pretrained` only.
        own_statistics: in evaluation, normalise with the statistics of each image instead of the running ones. With the
            published weights it should: upstream's inference runs in training mode.

    Raises:
        ValueError: num_filters_fpn is not twice num_filters, or an unknown norm_layer.
        CheckpointError: `pretrained` is missing or something else.
    """

    paper = "DeblurGAN-v2: Deblurring (Orders-of-Magnitude) Faster and Better, ICCV 2019, arXiv 1908.03826"
    year = 2019
    check_args: ClassVar = {"num_filters": 8, "num_filters_fpn": 16, "freeze_backbone": False}
    dead_parameters: ClassVar = dict.fromkeys(
        [
            *(f"fpn.features.{i}.conv.{j}.weight" for i in (16, 17) for j in (0, 1, 3, 4, 6, 7)),
            *(f"fpn.features.{i}.conv.{j}.bias" for i in (16, 17) for j in (1, 4, 7)),
            *(f"fpn.features.18.{key}" for key in ("0.weight", "1.weight", "1.bias")),
        ],
        "the classifier's last layers are in every checkpoint but not used",
    )

    def __init__(
        self,
        norm_layer: Literal["instance", "batch"] = "instance",
        output_ch: int = 3,
        num_filters: int = 64,
        num_filters_fpn: int = 128,
        pretrained: bool | str = False,
        freeze_backbone: bool = True,
        own_statistics: bool = False,
    ) -> None:
        if num_filters_fpn != 2 * num_filters:
            raise ValueError(
                f"FPNMobileNet: num_filters_fpn ({num_filters_fpn}) must be twice num_filters ({num_filters})"
            )
        super().__init__(
            FrameContract(
                kind="image",
                multiple=32,
                min_size=64 if own_statistics else 1,  # one pixel has no statistics
                halo="global" if own_statistics else 283,  # measured by gradient: up and left, 252 down and right
                # statistics of the few pixels at 1/32 multiply the errors of half precision: 0.05 of the result in bf16
                capabilities=Capabilities(bf16=not own_statistics, fp16=not own_statistics),
                licence="BSD-style (VITA-Group/DeblurGANv2)",
            ),
            fpn=_FPN(num_filters_fpn, norm_layer),
            backbone="features",
            freeze_backbone=freeze_backbone,
            norm_layer=norm_layer,
            own_statistics=own_statistics,
            output_ch=output_ch,
            num_filters=num_filters,
        )
        if pretrained:
            self._load_backbone("mobilenetv2.pth.tar" if pretrained is True else pretrained)
