"""Blocks that EDVR and the BasicVSR family share, with BasicSR's names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.ops.backend import budget_of

SLOPE = 0.1  # of every leaky ReLU of these networks


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size (or halves it)."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)


def activated(x: Tensor) -> Tensor:
    """The leaky ReLU, in place: x must be the fresh result of a convolution."""
    return F.leaky_relu(x, SLOPE, inplace=True)


class ResidualBlock(nn.Module):
    """`x + conv2(relu(conv1(x)))`; starts close to x (He et al.'s weights, a tenth of their size).

    Args:
        channels: of `(B, channels, H, W)`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3x3(channels, channels), conv3x3(channels, channels)
        with torch.no_grad():
            for conv in (self.conv1, self.conv2):
                nn.init.kaiming_normal_(conv.weight)
                conv.weight.mul_(0.1)
                assert conv.bias is not None
                nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, channels, H, W)` to the same shape."""
        return x + self.conv2(F.relu(self.conv1(x), inplace=True))


class Trunk(nn.Module):
    """A convolution, a leaky ReLU, and residual blocks: `(B, inputs, H, W)` to `(B, channels, H, W)`."""

    def __init__(self, inputs: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            conv3x3(inputs, channels),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks))),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        return self.main(x)


def enlarged(
    features: Tensor, upconv1: nn.Module, upconv2: nn.Module, conv_hr: nn.Module, conv_last: nn.Module
) -> Tensor:
    """The tail of EDVR and BasicVSR: `(B, C, h, w)` to `(B, 3, 4 h, 4 w)` by two pixel shuffles."""
    for conv in (upconv1, upconv2):
        features = F.pixel_shuffle(activated(conv(features)), 2)
    return conv_last(activated(conv_hr(features)))


def tail_bytes(features: Tensor) -> int:
    """Bytes that `enlarged` takes for one sample: its widest maps have 64 channels at four times the size."""
    return 2 * 64 * 16 * features.shape[-2] * features.shape[-1] * features.element_size()


def by_frame(call: Callable[..., Tensor], maps: Sequence[Sequence[Tensor]], item_bytes: int) -> list[Tensor]:
    """Apply something to each of T frames, several as one batch.

    Without gradients, as many at a time as fit the budget for intermediate tensors (`ops.backend`); with gradients,
    which keep all of them anyway, all at once.

    Args:
        call: from batches `(n, ...)`, one for each of `maps`, to `(n, ...)`.
        maps: lists of T tensors `(B, ...)`, the same frames in each.
        item_bytes: what one sample takes.

    Returns:
        T tensors `(B, ...)`.
    """
    batch, count = len(maps[0][0]), len(maps[0])
    each = count
    if not torch.is_grad_enabled():
        device = maps[0][0].device.type
        # meta stands for a device whose memory is being estimated, and its own budget is endless
        each = max(1, budget_of("cpu" if device == "meta" else device) // max(1, item_bytes * batch))
    results: list[Tensor] = []
    for start in range(0, count, each):
        groups = [list(one[start : start + each]) for one in maps]
        outputs = call(*(torch.cat(group) if len(group) > 1 else group[0] for group in groups))
        results += outputs.split(batch)
    return results
