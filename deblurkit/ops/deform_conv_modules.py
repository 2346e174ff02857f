"""Deformable convolution as modules: plain, with the convolution that makes its offsets, and guided by flows.

State-dict names are those of torchvision, mmcv and the networks that use them (EDVR, BasicVSR++, VRT, BSST).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from deblurkit.ops.deform_conv import deform_conv2d


def split_offset_mask(raw: Tensor) -> tuple[Tensor, Tensor]:
    """The map of an offset convolution `(N, 3*D*K, H, W)` to offset `(N, 2*D*K, H, W)` and mask `(N, D*K, H, W)`.

    Raises:
        ValueError: the number of channels is not a multiple of 3.
    """
    _check_raw(raw)
    offset, logits = raw.split([raw.shape[1] // 3 * 2, raw.shape[1] // 3], dim=1)
    return offset, logits.sigmoid()


def guided_offset_mask(
    raw: Tensor, flows: Sequence[Tensor], max_residue: float, mask_bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Offsets that correct optical flows (Chan et al., BasicVSR++, CVPR 2022).

    Offset = max_residue * tanh(first two thirds of raw) + flow. The deformable groups are divided equally among the
    flows, in order.

    Args:
        raw: `(N, 3*D*K, H, W)`.
        flows: each `(N, 2, H, W)`, channel 0 horizontal; their number must divide D.
        max_residue: bound of the correction in pixels.
        mask_bias: added to the mask's logits before the sigmoid; broadcasts to `(N, D*K, H, W)`.

    Returns:
        offset `(N, 2*D*K, H, W)` and mask `(N, D*K, H, W)`.

    Raises:
        ValueError: raw's channels do not divide among the flows.
    """
    _check_raw(raw)
    taps = raw.shape[1] // 3
    if not flows or taps % len(flows):
        raise ValueError(f"{taps} deformable taps cannot be divided among {len(flows)} flows")
    residue, logits = raw.split([2 * taps, taps], dim=1)
    flow = torch.stack(list(flows), dim=1).flip(2).unsqueeze(2)  # (N, flows, 1, 2, H, W), vertical first
    offset = torch.add(flow, residue.tanh().unflatten(1, (len(flows), -1, 2)), alpha=max_residue).flatten(1, 3)
    return offset, (logits if mask_bias is None else logits + mask_bias).sigmoid()


class DeformConv2d(nn.Module):
    """Deformable convolution, version 1 or 2: `(N, Cin, H, W)`, offset and mask to `(N, Cout, Ho, Wo)`.

    Parameters `weight` and, with bias, `bias`. `deform_conv2d` says what offset and mask are.

    Args:
        in_channels: Cin. out_channels: Cout.
        kernel_size: rows and columns of taps. stride, padding, dilation: as in a convolution.
        groups: of the convolution. deformable_groups: blocks of input channels with offsets of their own.
        bias: whether there is one.

    Attributes:
        offset_watch: called with the offsets of every convolution in training; None: nobody looks at them.

    Raises:
        ValueError: channels that the groups do not divide.
    """

    offset_watch: Callable[[Tensor], None] | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.offset_watch = None
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}")
        if in_channels % deformable_groups:
            raise ValueError(f"deformable_groups={deformable_groups} must divide in_channels={in_channels}")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.groups, self.deformable_groups = groups, deformable_groups
        bound = 1 / math.sqrt(in_channels * kernel_size**2)
        shape = (out_channels, in_channels // groups, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        """Convolve."""
        if self.offset_watch is not None and self.training:
            self.offset_watch(offset)
        return deform_conv2d(
            x,
            offset,
            self.weight,
            self.bias,
            mask,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, "
            f"deformable_groups={self.deformable_groups}, bias={self.bias is not None}"
        )


class DeformConvPack(DeformConv2d):
    """Deformable convolution that finds its own offsets ("DCN pack" of Wang et al., EDVR, CVPRW 2019).

    Parameters `weight`, `bias` and `conv_offset.{weight,bias}`; the latter start at zero.

    Args:
        in_channels: Cin. out_channels: Cout.
        kernel_size: rows and columns of taps. stride, padding, dilation: of both convolutions.
        groups: of the main convolution. deformable_groups: blocks of input channels with offsets of their own.
        bias: whether the main convolution has one.
        modulated: version 2, with masks.
        source_channels: channels of the map that offsets are found in; Cin if None.

    Raises:
        ValueError: channels that the groups do not divide.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = True,
        modulated: bool = True,
        source_channels: int | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, deformable_groups, bias
        )
        self.modulated = modulated
        self.conv_offset = nn.Conv2d(
            in_channels if source_channels is None else source_channels,
            (3 if modulated else 2) * deformable_groups * kernel_size**2,
            kernel_size,
            stride,
            padding,
            dilation,
        )
        _zero(self.conv_offset)

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Convolve `x (N, Cin, H, W)` with offsets found in `source (N, source_channels, H, W)`, or in x."""
        raw = self.conv_offset(x if source is None else source)
        return super().forward(x, *(split_offset_mask(raw) if self.modulated else (raw,)))


class FlowGuidedDeformConv(DeformConv2d):
    """Deformable convolution that corrects optical flows (Chan et al., BasicVSR++, CVPR 2022; also in VRT and BSST).

    Parameters `weight`, `bias` and `conv_offset.{0,2,4,6}.{weight,bias}`; the last of those start at zero.

    Args:
        in_channels: Cin; with several flows, the maps that they align are concatenated here in their order.
        out_channels: Cout, also the width of the offset convolutions.
        condition_channels: channels of what the offsets are found in.
        deformable_groups: D; the flows take equal shares of them, in order.
        max_residue_magnitude: bound of the correction in pixels.
        groups: of the main convolution.
        kernel_size: odd; of the main convolution, which keeps the size.

    Raises:
        ValueError: channels that the groups do not divide.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        condition_channels: int,
        deformable_groups: int = 16,
        max_residue_magnitude: float = 10.0,
        groups: int = 1,
        kernel_size: int = 3,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            padding=kernel_size // 2,
            groups=groups,
            deformable_groups=deformable_groups,
        )
        self.max_residue_magnitude = max_residue_magnitude
        layers: list[nn.Module] = []
        for channels in (condition_channels, out_channels, out_channels):
            layers += [nn.Conv2d(channels, out_channels, 3, padding=1), nn.LeakyReLU(0.1, inplace=True)]
        last = nn.Conv2d(out_channels, 3 * deformable_groups * kernel_size**2, 3, padding=1)
        _zero(last)
        self.conv_offset = nn.Sequential(*layers, last)

    def forward(  # type: ignore[override]
        self, x: Tensor, condition: Tensor, flows: Sequence[Tensor], mask_bias: Tensor | None = None
    ) -> Tensor:
        """Align `x (N, Cin, H, W)` along flows `(N, 2, H, W)`, corrected by what `condition` shows.

        `mask_bias`, if any, is added to the mask's logits.
        """
        raw = self.conv_offset(condition)
        return super().forward(x, *guided_offset_mask(raw, flows, self.max_residue_magnitude, mask_bias))


def _zero(conv: nn.Conv2d) -> None:
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)


def _check_raw(raw: Tensor) -> None:
    if raw.shape[1] % 3:
        raise ValueError(f"offsets and mask need a multiple of 3 channels, got {raw.shape[1]}")
