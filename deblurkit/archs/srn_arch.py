"""SRN: one encoder-decoder, used from coarse to fine with a recurrent state (SRN-DeblurNet).

Tao, Gao, Shen, Wang, Jia: Scale-recurrent Network for Deep Image Deblurring, CVPR 2018, arXiv 1802.01770.
The form is the PyTorch port in ljzycmd/SimDeblur (`model/backbone/srn/srn.py`). The authors' TensorFlow weights are
another network (other LSTM, other padding) and do not fit.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.contract import Capabilities, FrameContract, Output
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 5, stride, padding=2)


class _ResBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = _conv(width, width)
        self.conv2 = _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(x))) + x


def _resblocks(width: int) -> nn.Sequential:
    return nn.Sequential(*(_ResBlock(width) for _ in range(3)))


class _InBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.in_conv = _conv(inputs, outputs)
        self.resblocks = _resblocks(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.resblocks(F.relu(self.in_conv(x)))


class _EBlock(nn.Module):
    """To half the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down_conv = _conv(inputs, outputs, stride=2)
        self.resblocks = _resblocks(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.resblocks(F.relu(self.down_conv(x)))


class _DBlock(nn.Module):
    """To twice the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.resblocks = _resblocks(inputs)
        self.up_conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.up_conv(self.resblocks(x)))


class _OutBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.resblocks = _resblocks(inputs)
        self.out_conv = _conv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_conv(self.resblocks(x))


class _ConvLSTM(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv(2 * width, 4 * width)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """The next (hidden, cell) state; without a state (zeros) the weights that would see it are left out."""
        if state is None:
            gates = F.conv2d(x, self.conv.weight[:, : x.shape[1]], self.conv.bias, padding=2)
        else:
            gates = self.conv(torch.cat([x, state[0]], dim=1))
        i, f, o, g = gates.chunk(4, dim=1)
        cell = i.sigmoid() * g.tanh()
        if state is not None:
            cell = f.sigmoid() * state[1] + cell
        return o.sigmoid() * cell.tanh(), cell


@ARCH_REGISTRY.register()
class SRN(Network):
    """SRN-DeblurNet: images `(B, 3, H, W)` RGB in [0, 1]; 10,158,563 parameters.

    H and W must be multiples of 4 * 2 ** (num_levels - 1), which is 16. `run` returns "restored" and the coarser
    results "scale2", "scale4", ..., not clamped.

    Args:
        in_channels: the image and the estimate of the coarser level, 3 each: 6.
        inner_channels: width of the first level; 32 is published.
        num_levels: scales; 3 is published.
        with_lstm: without effect, the LSTM is always there (upstream's published options say false and still get it).

    Raises:
        ValueError: in_channels is not 6, num_levels is below 1, or `forward` gets another number of levels.
    """

    paper = "Scale-recurrent Network for Deep Image Deblurring, CVPR 2018, arXiv 1802.01770"
    year = 2018
    check_args: ClassVar = {"inner_channels": 4, "num_levels": 1}

    def __init__(
        self, in_channels: int = 6, inner_channels: int = 32, num_levels: int = 3, with_lstm: bool = True
    ) -> None:
        if in_channels != 6:
            raise ValueError(f"SRN.in_channels counts the image and the estimate before, 3 each: 6, not {in_channels}")
        if num_levels < 1:
            raise ValueError(f"SRN.num_levels must be at least 1, not {num_levels}")
        coarser = tuple(Output(f"scale{2**level}", scale=0.5**level) for level in range(1, num_levels))
        super().__init__(
            FrameContract(
                kind="image",
                multiple=4 * 2 ** (num_levels - 1),
                outputs=(Output("restored"), *coarser),
                halo=192 * (2**num_levels - 1),  # measured by gradient for 1, 2 and 3 levels
                capabilities=Capabilities(bf16=True, fp16=True),
                licence="MIT (SimDeblur)",
            )
        )
        c = inner_channels
        self.num_levels = num_levels
        self.in_block = _InBlock(in_channels, c)
        self.eblock1 = _EBlock(c, 2 * c)
        self.eblock2 = _EBlock(2 * c, 4 * c)
        self.conv_lstm = _ConvLSTM(4 * c)
        self.dblock1 = _DBlock(4 * c, 2 * c)
        self.dblock2 = _DBlock(2 * c, c)
        self.out_block = _OutBlock(c, 3)

    def forward(self, x: Tensor | list[Tensor], *coarser: Tensor) -> list[Tensor]:
        """The pyramid to the results of all levels, both finest first.

        Args:
            x: the pyramid as a list, its finest level, `(B, 3, H, W)`, or an image alone, from which the pyramid is
                then made by taking every second, fourth, ... pixel.
            coarser: the other levels, `(B, 3, H / 2, W / 2)`, ...
        """
        if isinstance(x, Tensor) and not coarser:
            levels = [x[..., :: 2**level, :: 2**level] for level in range(self.num_levels)]
        else:
            levels = [x, *coarser] if isinstance(x, Tensor) else [*x, *coarser]
        if len(levels) != self.num_levels:
            raise ValueError(f"SRN has {self.num_levels} levels, got a pyramid of {len(levels)}")

        results: list[Tensor] = []
        state: tuple[Tensor, Tensor] | None = None
        for level in reversed(levels):
            estimate = F.interpolate(results[-1], scale_factor=2.0) if results else level
            if state is not None:
                hidden, cell = (F.interpolate(s, scale_factor=2.0, mode="bilinear") for s in state)
                state = hidden, cell
            encoded0 = self.in_block(torch.cat([level, estimate], dim=1))
            encoded1 = self.eblock1(encoded0)
            state = self.conv_lstm(self.eblock2(encoded1), state)
            # the decoder sees the cell, not the hidden state (so upstream)
            decoded = self.dblock2(self.dblock1(state[1]) + encoded1)
            results.append(self.out_block(decoded + encoded0))
        return results[::-1]

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """See `Network.run`."""
        if x.ndim == 5:
            return super().run(x)
        return dict(zip((output.name for output in self.contract.outputs), self.forward(x), strict=True))
