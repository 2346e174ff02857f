"""Blocks that several networks share."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.contract import FrameContract
from deblurkit.errors import CheckpointError
from deblurkit.network import Network


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of each pixel: `(B,C,H,W)` to the same shape, in channels-last memory order.

    The order spares two copies, and the pointwise and depthwise convolutions that follow are faster in it on a CPU.

    Args:
        channels: C. eps: added to the (biased) variance.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalised, scaled and shifted."""
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class _OwnStatistics:
    """Mixin for norm layers: see `use_own_statistics`."""

    own_statistics = False

    def forward(self, x: Tensor) -> Tensor:
        """`(B,C,H,W)` to the same shape."""
        assert isinstance(self, nn.BatchNorm2d | nn.InstanceNorm2d)
        if self.own_statistics and not self.training:
            return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        return super().forward(x)  # type: ignore[misc]


class BatchNorm2d(_OwnStatistics, nn.BatchNorm2d):
    """`nn.BatchNorm2d` that `use_own_statistics` reaches."""


class InstanceNorm2d(_OwnStatistics, nn.InstanceNorm2d):
    """`nn.InstanceNorm2d` that `use_own_statistics` reaches."""


def use_own_statistics(net: nn.Module) -> None:
    """Make norm layers evaluate with the statistics of each image instead of the running ones, which stay as they are.

    This is what training does with an image alone; upstream's inference of the DeblurGAN family runs in training mode.
    """
    for module in net.modules():
        if isinstance(module, _OwnStatistics):
            module.own_statistics = True


def image_norm(kind: Literal["instance", "batch"], channels: int) -> nn.Module:
    """The norm layers of pix2pix and its heirs (DeblurGAN, DeblurGAN-v2).

    Args:
        kind: "instance": without weights, but with running statistics that evaluation uses; "batch": with weights.
        channels: of the input.

    Raises:
        ValueError: an unknown kind.
    """
    if kind == "instance":
        return InstanceNorm2d(channels, affine=False, track_running_stats=True)
    if kind == "batch":
        return BatchNorm2d(channels)
    raise ValueError(f"norm_layer must be 'instance' or 'batch', not {kind!r}")


def conv_norm(x: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
    """`norm(conv(x))`; in evaluation as one convolution, which spares a pass over the result.

    Args:
        x: `(B,C,H,W)`.
        conv: an `nn.Conv2d` with zero padding. norm: batch norm with running statistics, weight and bias.
    """
    if norm.training:
        return norm(conv(x))
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    bias = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    weight = conv.weight * scale[:, None, None, None]
    return F.conv2d(x, weight, bias * scale + norm.bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def conv_of_doubled(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """`conv` of `x` enlarged to twice its size by nearest interpolation, but cheaper.

    A window on the enlarged image covers two pixels of `x` per axis: so each of the four pixels that one pixel becomes
    is a convolution of `x` itself, with some weights added up.

    Args:
        x: `(B, C, H, W)`. conv: 3x3 with zero padding 1 and stride 1, C to O channels.

    Returns:
        `(B, O, 2 H, 2 W)`.
    """

    def phases(kernels: Tensor, axis: int, place: int) -> Tensor:
        first, middle, last = kernels.unbind(axis)
        none = torch.zeros_like(first)
        both = (first, middle + last, none), (none, first + middle, last)
        return torch.stack([torch.stack(taps, axis) for taps in both], place)

    kernels = phases(phases(conv.weight, -2, 1), -1, 2).flatten(0, 2)
    bias = None if conv.bias is None else conv.bias.repeat_interleave(4)
    return F.pixel_shuffle(F.conv2d(x, kernels, bias, padding=1), 2)


def normed_conv(inputs: int, outputs: int, norm_layer: Literal["instance", "batch"]) -> nn.Sequential:
    """A 3x3 convolution with bias, a norm layer (`image_norm`) and a ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), image_norm(norm_layer, outputs), nn.ReLU(inplace=True)
    )


class _FPNHead(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.block0 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.block1 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.block1(F.relu(self.block0(x))))


class FPNGenerator(Network):
    """What the generators of DeblurGAN-v2 have in common: all but the pyramid of features.

    `run` takes and returns RGB in [0, 1]; `forward` works in [-1, 1].

    Args:
        contract: see `FrameContract`.
        fpn: `(B, 3, H, W)` to maps at 1/2 (num_filters channels), 1/4, 1/8, 1/16 and 1/32 (2 * num_filters channels).
        backbone: name of the part of `fpn` that was trained as a classifier.
        freeze_backbone: it learns nothing until `unfreeze` is called.
        norm_layer: see `image_norm`. own_statistics: see `use_own_statistics`.
        output_ch, num_filters: channels.
    """

    def __init__(
        self,
        contract: FrameContract,
        fpn: nn.Module,
        backbone: str,
        freeze_backbone: bool,
        norm_layer: Literal["instance", "batch"],
        own_statistics: bool,
        output_ch: int,
        num_filters: int,
    ) -> None:
        super().__init__(contract)
        n = num_filters
        self.fpn = fpn
        self.head1 = _FPNHead(2 * n, n)
        self.head2 = _FPNHead(2 * n, n)
        self.head3 = _FPNHead(2 * n, n)
        self.head4 = _FPNHead(2 * n, n)
        self.smooth = normed_conv(4 * n, n, norm_layer)
        self.smooth2 = normed_conv(n, n // 2, norm_layer)
        self.final = nn.Conv2d(n // 2, output_ch, 3, padding=1)
        if own_statistics:
            use_own_statistics(self)
        self._backbone = backbone
        self.fpn.get_submodule(backbone).requires_grad_(not freeze_backbone)

    def unfreeze(self) -> None:
        """Let the backbone learn too; upstream does it after three epochs, with a new optimiser."""
        self.fpn.get_submodule(self._backbone).requires_grad_(True)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 3, H, W)` in [-1, 1] to `(B, output_ch, H, W)` in [-1, 1]."""
        map0, map1, map2, map3, map4 = self.fpn(x)
        maps = [
            F.interpolate(self.head4(map4), scale_factor=8.0),
            F.interpolate(self.head3(map3), scale_factor=4.0),
            F.interpolate(self.head2(map2), scale_factor=2.0),
            self.head1(map1),
        ]
        smoothed = self.smooth(torch.cat(maps, dim=1))
        smoothed = self.smooth2(F.interpolate(smoothed, scale_factor=2.0) + map0)
        residual = conv_of_doubled(smoothed, self.final)
        return (residual.tanh() + x).clamp(-1, 1)

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """See `Network.run`."""
        if x.ndim == 5:
            return super().run(x)
        return {"restored": (self.forward(x * 2 - 1) + 1) / 2}

    def _load_backbone(self, path: str) -> None:
        """Put the weights of a classifier (ImageNet) into the backbone.

        Checkpoints of this network have them from then on, so that `config` does not ask for the file again.

        Raises:
            CheckpointError: the file is missing, damaged, or holds something else.
        """
        from deblurkit.engine.checkpoint import read_checkpoint

        found = {key.removeprefix(f"{self._backbone}."): value for key, value in read_checkpoint(path).state.items()}
        backbone = self.fpn.get_submodule(self._backbone)
        own = backbone.state_dict()
        fitting = {key: found[key] for key, value in own.items() if key in found and found[key].shape == value.shape}
        # counters of batches are younger than the published files; the last layer may know another number of classes
        lacking = [key for key in own if key not in fitting and not key.endswith("num_batches_tracked")]
        lacking = [key for key in lacking if not key.startswith("last_linear.")]
        if lacking:
            raise CheckpointError(f"{path}: is not a backbone of {type(self).__name__}: {lacking[0]} does not fit")
        backbone.load_state_dict(fitting, strict=False)
        self.config["pretrained"] = False
