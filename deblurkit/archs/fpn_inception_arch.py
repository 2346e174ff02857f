"""DeblurGAN-v2 with an Inception-ResNet-v2 backbone, its best published model.

Kupyn, Martyniuk, Wu, Wang: DeblurGAN-v2: Deblurring (Orders-of-Magnitude) Faster and Better, ICCV 2019,
arXiv 1908.03826. Upstream: VITA-Group/DeblurGANv2 (`models/fpn_inception.py`); the backbone has the names of the
package pretrainedmodels 0.7.4 (`inceptionresnetv2.py`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.archs.blocks import BatchNorm2d, FPNGenerator, normed_conv
from deblurkit.contract import Capabilities, FrameContract
from deblurkit.registry import ARCH_REGISTRY


class _Conv(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class _Mixed(nn.Module):
    """Branches of the same input, concatenated."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.names = [f"branch{i}" for i in range(len(branches))]
        for name, branch in zip(self.names, branches, strict=True):
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.get_submodule(name)(x) for name in self.names], dim=1)


class _Residual(_Mixed):
    """Concatenated branches through a 1x1 convolution, added to the input, ReLU."""

    def __init__(self, width: int, scale: float, joined: int, *branches: nn.Module) -> None:
        super().__init__(*branches)
        self.scale = scale
        self.conv2d = nn.Conv2d(joined, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.add(x, self.conv2d(super().forward(x)), alpha=self.scale), inplace=True)


def _block35() -> _Residual:
    return _Residual(
        320,
        0.17,
        128,
        _Conv(320, 32),
        nn.Sequential(_Conv(320, 32), _Conv(32, 32, 3, padding=1)),
        nn.Sequential(_Conv(320, 32), _Conv(32, 48, 3, padding=1), _Conv(48, 64, 3, padding=1)),
    )


def _block17() -> _Residual:
    across, along = _Conv(128, 160, (1, 7), padding=(0, 3)), _Conv(160, 192, (7, 1), padding=(3, 0))
    return _Residual(1088, 0.10, 384, _Conv(1088, 192), nn.Sequential(_Conv(1088, 128), across, along))


def _block8() -> _Residual:
    across, along = _Conv(192, 224, (1, 3), padding=(0, 1)), _Conv(224, 256, (3, 1), padding=(1, 0))
    return _Residual(2080, 0.20, 448, _Conv(2080, 192), nn.Sequential(_Conv(2080, 192), across, along))


class _InceptionResNetV2(nn.Module):
    """The classifier; the generator uses its layers up to `mixed_7a` and only keeps the others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = _Conv(3, 32, 3, stride=2)
        self.conv2d_2a = _Conv(32, 32, 3)
        self.conv2d_2b = _Conv(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = _Conv(64, 80)
        self.conv2d_4a = _Conv(80, 192, 3)
        self.maxpool_5a = nn.MaxPool2d(3, stride=2)
        self.mixed_5b = _Mixed(
            _Conv(192, 96),
            nn.Sequential(_Conv(192, 48), _Conv(48, 64, 5, padding=2)),
            nn.Sequential(_Conv(192, 64), _Conv(64, 96, 3, padding=1), _Conv(96, 96, 3, padding=1)),
            nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), _Conv(192, 64)),
        )
        self.repeat = nn.Sequential(*(_block35() for _ in range(10)))
        self.mixed_6a = _Mixed(
            _Conv(320, 384, 3, stride=2),
            nn.Sequential(_Conv(320, 256), _Conv(256, 256, 3, padding=1), _Conv(256, 384, 3, stride=2)),
            nn.MaxPool2d(3, stride=2),
        )
        self.repeat_1 = nn.Sequential(*(_block17() for _ in range(20)))
        self.mixed_7a = _Mixed(
            nn.Sequential(_Conv(1088, 256), _Conv(256, 384, 3, stride=2)),
            nn.Sequential(_Conv(1088, 256), _Conv(256, 288, 3, stride=2)),
            nn.Sequential(_Conv(1088, 256), _Conv(256, 288, 3, padding=1), _Conv(288, 320, 3, stride=2)),
            nn.MaxPool2d(3, stride=2),
        )
        self.repeat_2 = nn.Sequential(*(_block8() for _ in range(9)))
        self.block8 = _block8()
        self.conv2d_7b = _Conv(2080, 1536)
        self.last_linear = nn.Linear(1536, 1000)


class _FPN(nn.Module):
    """Feature pyramid over Inception-ResNet-v2.

    The layers in use are registered twice, in `inception` and in `enc0` to `enc4`, as in upstream's checkpoints. The
    backbone's convolutions without padding shrink its maps, so reflection completes them to H / 2, H / 4, ...
    """

    def __init__(self, width: int, norm_layer: Literal["instance", "batch"]) -> None:
        super().__init__()
        self.inception = net = _InceptionResNetV2()
        self.enc0 = net.conv2d_1a
        self.enc1 = nn.Sequential(net.conv2d_2a, net.conv2d_2b, net.maxpool_3a)
        self.enc2 = nn.Sequential(net.conv2d_3b, net.conv2d_4a, net.maxpool_5a)
        self.enc3 = nn.Sequential(net.mixed_5b, net.repeat, net.mixed_6a)
        self.enc4 = nn.Sequential(net.repeat_1, net.mixed_7a)
        self.td1 = normed_conv(width, width, norm_layer)
        self.td2 = normed_conv(width, width, norm_layer)
        self.td3 = normed_conv(width, width, norm_layer)
        self.lateral4 = nn.Conv2d(2080, width, 1, bias=False)
        self.lateral3 = nn.Conv2d(1088, width, 1, bias=False)
        self.lateral2 = nn.Conv2d(192, width, 1, bias=False)
        self.lateral1 = nn.Conv2d(64, width, 1, bias=False)
        self.lateral0 = nn.Conv2d(32, width // 2, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """`(B, 3, H, W)` to the maps at 1/2, 1/4, 1/8, 1/16, 1/32."""

        def padded(value: Tensor, left: int, right: int) -> Tensor:
            """By so much at the left and the top, and at the right and the bottom."""
            return F.pad(value, (left, right, left, right), mode="reflect")

        encoded0 = self.enc0(x)
        encoded1 = self.enc1(encoded0)
        encoded2 = self.enc2(encoded1)
        encoded3 = self.enc3(encoded2)
        encoded4 = self.enc4(encoded3)
        map4 = padded(self.lateral4(encoded4), 1, 1)
        map3 = self.td1(padded(self.lateral3(encoded3), 1, 1) + F.interpolate(map4, scale_factor=2.0))
        map2 = self.td2(padded(self.lateral2(encoded2), 1, 2) + F.interpolate(map3, scale_factor=2.0))
        map1 = self.td3(padded(self.lateral1(encoded1), 1, 1) + F.interpolate(map2, scale_factor=2.0))
        return padded(self.lateral0(encoded0), 0, 1), map1, map2, map3, map4


def _names(conv: str) -> list[str]:
    """Parameters of a `_Conv`."""
    return [f"{conv}.conv.weight", f"{conv}.bn.weight", f"{conv}.bn.bias"]


def _unused() -> list[str]:
    """Parameters of the classifier's layers after `mixed_7a`."""
    names = [*_names("conv2d_7b"), "last_linear.weight", "last_linear.bias"]
    for block in ("block8", *(f"repeat_2.{i}" for i in range(9))):
        for branch in ("branch0", "branch1.0", "branch1.1", "branch1.2"):
            names += _names(f"{block}.{branch}")
        names += [f"{block}.conv2d.weight", f"{block}.conv2d.bias"]
    return [f"fpn.inception.{name}" for name in names]


@ARCH_REGISTRY.register()
class FPNInception(FPNGenerator):
    """DeblurGAN-v2 (Inception-ResNet-v2): images `(B, 3, H, W)`; 60,929,291 parameters, 35,840,099 used.

    H and W must be multiples of 32 and at least 128. `run` takes and returns RGB in [0, 1]; `forward` works in [-1, 1].
    Upstream pads with mid grey, here sizes are completed by reflection.

    Args:
        norm_layer: "instance" (published; without weights, with running statistics) or "batch".
        output_ch: channels of the result.
        num_filters: channels of the heads.
        num_filters_fpn: channels of the pyramid; twice num_filters.
        pretrained: a file with ImageNet weights (of the package pretrainedmodels) for the backbone. Nothing is
            downloaded (upstream always does).
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
        _unused(), "the classifier's last layers are in every checkpoint but not used"
    )

    def __init__(
        self,
        norm_layer: Literal["instance", "batch"] = "instance",
        output_ch: int = 3,
        num_filters: int = 128,
        num_filters_fpn: int = 256,
        pretrained: str | Literal[False] = False,
        freeze_backbone: bool = True,
        own_statistics: bool = False,
    ) -> None:
        if num_filters_fpn != 2 * num_filters:
            raise ValueError(
                f"FPNInception: num_filters_fpn ({num_filters_fpn}) must be twice num_filters ({num_filters})"
            )
        super().__init__(
            FrameContract(
                kind="image",
                multiple=32,
                min_size=128,  # a map at 1/32, smaller by two pixels, is reflected
                halo="global",  # with running statistics it is 1291 pixels (by gradient): wider than any tile
                capabilities=Capabilities(bf16=True, fp16=True),
                licence="BSD-style (VITA-Group/DeblurGANv2)",
            ),
            fpn=_FPN(num_filters_fpn, norm_layer),
            backbone="inception",
            freeze_backbone=freeze_backbone,
            norm_layer=norm_layer,
            own_statistics=own_statistics,
            output_ch=output_ch,
            num_filters=num_filters,
        )
        if pretrained:
            self._load_backbone(pretrained)
