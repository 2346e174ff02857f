"""NAFNet and Baseline: plain U-Nets for image restoration, and their local (TLC) forms for whole images.

Chen, Chu, Zhang, Sun: Simple Baselines for Image Restoration, ECCV 2022, arXiv 2204.04676.
Chu, Chen, Chen, Lu: Improving Image Restoration by Revisiting Global Information Aggregation (TLC), ECCV 2022,
arXiv 2112.04491: networks that pool over the image are trained on crops and tested on whole images; the local forms
pool over windows about as large as the crops instead. The checkpoints of the plain and the local form are the same.
Facts: megvii-research/NAFNet (MIT), whose checkpoints load as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.archs.blocks import LayerNorm2d
from deblurkit.contract import Capabilities, FrameContract
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY

_NORM_EPS = 1e-6


class _GlobalPool(nn.Module):
    """Mean over the image, `(B,C,H,W)` to `(B,C,1,1)`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)

    def spread(self, weights: Tensor, size: tuple[int, int]) -> Tensor:
        """Bring what was computed from the pooled map to a shape that multiplies a map of `size`."""
        return weights


class _LocalPool(_GlobalPool):
    """Mean over the window around each pixel; over the image where the window is not smaller.

    Only the windows that lie inside the image are computed, `(B,C,H,W)` to `(B,C,H-h+1,W-w+1)`; `spread` repeats those
    at the border. What stands between the two works pixel by pixel, so it need not see the repetitions.

    Args:
        window: height and width of the window.
        strides: None, or the largest sub-sampling of each axis: only every n-th pixel of the window is looked at, and
            only every n-th window (upstream's `fast_imp`; not equivalent).
    """

    def __init__(self, window: tuple[int, int], strides: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.window, self.strides = window, strides

    def _is_global(self, size: tuple[int, int]) -> bool:
        return self.window[0] >= size[0] and self.window[1] >= size[1]

    def _steps(self, size: tuple[int, int]) -> tuple[int, int]:
        """The sub-sampling of each axis: it must divide the size."""
        assert self.strides is not None
        rows, columns = (
            max(step for step in range(1, min(limit, 5) + 1) if length % step == 0)
            for length, limit in zip(size, self.strides, strict=True)
        )
        return rows, columns

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        if self._is_global(size):
            return super().forward(x)
        sums = x.float()  # sums of thousands of pixels need more than half precision
        if self.strides is None:
            rows, columns = min(self.window[0], size[0]), min(self.window[1], size[1])
        else:
            row_step, column_step = self._steps(size)
            sums = sums[..., ::row_step, ::column_step]
            # upstream's integral image lacks its zero row and column: no window holds the first pixels
            sums = sums[..., min(1, sums.shape[2] - 1) :, min(1, sums.shape[3] - 1) :]
            rows = max(1, min(sums.shape[2], self.window[0] // row_step))
            columns = max(1, min(sums.shape[3], self.window[1] // column_step))
        sums = _sliding_sum(_sliding_sum(sums, columns, 3), rows, 2)
        return (sums / (rows * columns)).to(x.dtype)

    def spread(self, weights: Tensor, size: tuple[int, int]) -> Tensor:
        if self._is_global(size):
            return weights
        if self.strides is not None:
            row_step, column_step = self._steps(size)
            weights = weights.repeat_interleave(row_step, 2).repeat_interleave(column_step, 3)
        top, left = size[0] - weights.shape[2], size[1] - weights.shape[3]
        return F.pad(weights, (left // 2, left - left // 2, top // 2, top - top // 2), mode="replicate")


def _sliding_sum(x: Tensor, length: int, dim: int) -> Tensor:
    """Sums of `length` neighbours along `dim`, wherever all of them exist."""
    total = x.cumsum(dim)
    count = x.shape[dim] - length
    later = total.narrow(dim, length, count) - total.narrow(dim, 0, count)
    return torch.cat([total.narrow(dim, length - 1, 1), later], dim)


class _LocalPools:
    """The local pools of a network with `stages` halvings that was trained on crops of `train_size` (B, C, H, W)."""

    def __init__(self, train_size: Sequence[int], fast: bool, stages: int) -> None:
        if len(train_size) != 4 or min(train_size) < 1:
            raise ValueError(f"train_size is (batch, channels, height, width) of the training crops, not {train_size}")
        self.crop = tuple(train_size[2:])
        # the maps of a crop are those of the crop that the network has padded
        self.padded = [-(-length // 2**stages) * 2**stages for length in self.crop]
        self.fast = fast

    def at(self, level: int) -> _LocalPool:
        """The pool for maps of the size divided by `2**level`."""
        sizes = [(length >> level, crop) for length, crop in zip(self.padded, self.crop, strict=True)]
        rows, columns = (size * (crop * 3 // 2) // crop for size, crop in sizes)
        if not self.fast:
            return _LocalPool((rows, columns))
        row_step, column_step = (max(1, 5 * size // crop) for size, crop in sizes)
        return _LocalPool((rows, columns), (row_step, column_step))


class _ChannelAttention(nn.Sequential):
    """Weights for the channels of a map from its pooled values: a pool, then layers that work pixel by pixel."""

    def forward(self, x: Tensor) -> Tensor:
        pool = self[0]
        assert isinstance(pool, _GlobalPool)
        return x * pool.spread(super().forward(x), (x.shape[2], x.shape[3]))


def _add_scaled(x: Tensor, conv: nn.Conv2d, y: Tensor, scale: Tensor) -> Tensor:
    """`x + scale * conv(y)`, with the scale multiplied into the few weights instead of the many pixels."""
    assert conv.bias is not None
    return F.conv2d(y, conv.weight * scale.transpose(0, 1), conv.bias * scale.flatten()).add_(x)


class _Block(nn.Module):
    """What the blocks of both networks share: spatial mixing, then channel mixing, each a scaled residual.

    Args:
        spatial: channels of the first half, before and after its activation.
        hidden: channels of the second half, likewise.
        attention: name and layers of the channel attention.
    """

    def __init__(
        self,
        channels: int,
        spatial: tuple[int, int],
        hidden: tuple[int, int],
        attention: tuple[str, _ChannelAttention],
    ) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.conv1 = nn.Conv2d(channels, spatial[0], 1)
        self.conv2 = nn.Conv2d(spatial[0], spatial[0], 3, padding=1, groups=spatial[0])
        self.conv3 = nn.Conv2d(spatial[1], channels, 1)
        self.add_module(*attention)
        self.conv4 = nn.Conv2d(channels, hidden[0], 1)
        self.conv5 = nn.Conv2d(hidden[1], channels, 1)
        self.norm1 = LayerNorm2d(channels, _NORM_EPS)
        self.norm2 = LayerNorm2d(channels, _NORM_EPS)

    def activate(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def attend(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y = self.attend(self.activate(self.conv2(self.conv1(self.norm1(x)))))
        x = _add_scaled(x, self.conv3, y, self.beta)
        y = self.activate(self.conv4(self.norm2(x)))
        return _add_scaled(x, self.conv5, y, self.gamma)


class _NAFBlock(_Block):
    """The product of two halves in place of an activation function, and attention without one."""

    sca: _ChannelAttention

    def __init__(self, channels: int, pool: _GlobalPool) -> None:
        attention = _ChannelAttention(pool, nn.Conv2d(channels, channels, 1))
        super().__init__(channels, (2 * channels, channels), (2 * channels, channels), ("sca", attention))

    def activate(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return first * second

    def attend(self, x: Tensor) -> Tensor:
        return self.sca(x)


class _BaselineBlock(_Block):
    """GELU, and squeeze-and-excitation attention."""

    se: _ChannelAttention

    def __init__(self, channels: int, pool: _GlobalPool, dw_expand: int, ffn_expand: int) -> None:
        spatial, hidden = channels * dw_expand, channels * ffn_expand
        attention = _ChannelAttention(
            pool,
            nn.Conv2d(spatial, spatial // 2, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(spatial // 2, spatial, 1),
            nn.Sigmoid(),
        )
        super().__init__(channels, (spatial, spatial), (hidden, hidden), ("se", attention))

    def activate(self, x: Tensor) -> Tensor:
        return F.gelu(x)

    def attend(self, x: Tensor) -> Tensor:
        return self.se(x)


class _UNet(Network):
    """The U-Net around the blocks: halves the size and doubles the channels from level to level, skips are added.

    Args:
        make_block: from channels and level to a block.
    """

    paper = "Simple Baselines for Image Restoration, ECCV 2022, arXiv 2204.04676"
    year = 2022

    def __init__(
        self,
        img_channel: int,
        width: int,
        middle_blk_num: int,
        enc_blk_nums: Sequence[int],
        dec_blk_nums: Sequence[int],
        make_block: Callable[[int, int], _Block],
    ) -> None:
        if len(enc_blk_nums) != len(dec_blk_nums):
            raise ValueError(
                f"{type(self).__name__}: enc_blk_nums {list(enc_blk_nums)} and dec_blk_nums {list(dec_blk_nums)} must "
                "have the same length: each encoder stage halves the size and a decoder stage doubles it again"
            )
        super().__init__(
            FrameContract(
                kind="image",
                channels=img_channel,
                pad="zeros",
                halo="global",  # the local windows end somewhere too, but 36 of them in a row reach across any image
                capabilities=Capabilities(bf16=True, fp16=False),
                licence="MIT (NAFNet)",
            )
        )
        depth = len(enc_blk_nums)
        self.multiple = 2**depth
        widths = [width << level for level in range(depth + 1)]

        def stage(count: int, level: int) -> nn.Sequential:
            return nn.Sequential(*[make_block(widths[level], level) for _ in range(count)])

        def up(channels: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.PixelShuffle(2))

        self.intro = nn.Conv2d(img_channel, width, 3, padding=1)
        self.ending = nn.Conv2d(width, img_channel, 3, padding=1)
        self.encoders = nn.ModuleList(stage(count, level) for level, count in enumerate(enc_blk_nums))
        self.decoders = nn.ModuleList(stage(count, depth - 1 - i) for i, count in enumerate(dec_blk_nums))
        self.middle_blks = stage(middle_blk_num, depth)
        self.ups = nn.ModuleList(up(channels) for channels in reversed(widths[1:]))
        self.downs = nn.ModuleList(nn.Conv2d(channels, 2 * channels, 2, stride=2) for channels in widths[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """`(B, img_channel, H, W)`, any size (completed with zeros inside), to the same shape; not clamped."""
        height, width = x.shape[-2:]
        value = self.intro(F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple)))
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(value))
            value = down(skips[-1])
        value = self.middle_blks(value)
        for decoder, up in zip(self.decoders, self.ups, strict=True):
            value = decoder(up(value).add_(skips.pop()))
        return self.ending(value)[..., :height, :width] + x


_SMALL: dict[str, Any] = {"width": 8, "enc_blk_nums": [1, 1, 1, 2], "dec_blk_nums": [1, 1, 1, 1]}


@ARCH_REGISTRY.register()
class NAFNet(_UNet):
    """NAFNet without non-linear activation functions: `(B, img_channel, H, W)` in [0, 1] to the restored image.

    Any size is taken. Published for GoPro and REDS: width 32 (17,111,907 parameters) or 64 (67,888,835), one middle
    block, encoders [1, 1, 1, 28], decoders [1, 1, 1, 1]; for SIDD: 12 middle blocks, encoders [2, 2, 4, 8], decoders
    [2, 2, 2, 2]. Trained on crops of 256; upstream tests whole images with `NAFNetLocal`.

    Args:
        img_channel: channels of the image.
        width: channels of the first level; each stage doubles them.
        middle_blk_num: blocks at the lowest level.
        enc_blk_nums, dec_blk_nums: blocks of each encoder stage from the top, and of each decoder stage from below.

    Raises:
        ValueError: there are not as many decoder stages as encoder stages.
    """

    check_args = _SMALL

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 16,
        middle_blk_num: int = 1,
        enc_blk_nums: Sequence[int] = (),
        dec_blk_nums: Sequence[int] = (),
    ) -> None:
        super().__init__(
            img_channel,
            width,
            middle_blk_num,
            enc_blk_nums,
            dec_blk_nums,
            lambda channels, level: _NAFBlock(channels, _GlobalPool()),
        )


@ARCH_REGISTRY.register()
class NAFNetLocal(_UNet):
    """`NAFNet` whose channel attention pools over windows instead of over the image (TLC); the same checkpoints.

    Up to 1.5 times the size of the training crops it is the same as `NAFNet`; above, every pixel sees the mean over a
    window of that size, so that the statistics are those of training.

    Args:
        img_channel, width, middle_blk_num, enc_blk_nums, dec_blk_nums: see `NAFNet`.
        train_size: (batch, channels, height, width) of the crops that the weights were trained on; batch and channels
            do not matter.
        fast_imp: look only at a part of each window's pixels; not equivalent.

    Raises:
        ValueError: there are not as many decoder stages as encoder stages, or train_size is not positive.
    """

    check_args = {**_SMALL, "train_size": [1, 3, 32, 32]}  # noqa: RUF012

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 16,
        middle_blk_num: int = 1,
        enc_blk_nums: Sequence[int] = (),
        dec_blk_nums: Sequence[int] = (),
        train_size: tuple[int, int, int, int] = (1, 3, 256, 256),
        fast_imp: bool = False,
    ) -> None:
        pools = _LocalPools(train_size, fast_imp, len(enc_blk_nums))
        super().__init__(
            img_channel,
            width,
            middle_blk_num,
            enc_blk_nums,
            dec_blk_nums,
            lambda channels, level: _NAFBlock(channels, pools.at(level)),
        )


@ARCH_REGISTRY.register()
class Baseline(_UNet):
    """The plainer sibling of `NAFNet`, with GELU and squeeze-and-excitation attention; the same configurations.

    Width 32 has 17,023,875 parameters, width 64 has 67,712,771.

    Args:
        img_channel, width, middle_blk_num, enc_blk_nums, dec_blk_nums: see `NAFNet`.
        dw_expand, ffn_expand: how many times the channels the two halves of a block work on.

    Raises:
        ValueError: there are not as many decoder stages as encoder stages.
    """

    check_args = _SMALL

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 16,
        middle_blk_num: int = 1,
        enc_blk_nums: Sequence[int] = (),
        dec_blk_nums: Sequence[int] = (),
        dw_expand: int = 1,
        ffn_expand: int = 2,
    ) -> None:
        super().__init__(
            img_channel,
            width,
            middle_blk_num,
            enc_blk_nums,
            dec_blk_nums,
            lambda channels, level: _BaselineBlock(channels, _GlobalPool(), dw_expand, ffn_expand),
        )


@ARCH_REGISTRY.register()
class BaselineLocal(_UNet):
    """`Baseline` whose channel attention pools over windows instead of over the image (TLC); see `NAFNetLocal`.

    Args:
        img_channel, width, middle_blk_num, enc_blk_nums, dec_blk_nums: see `NAFNet`.
        dw_expand, ffn_expand: see `Baseline`.
        train_size, fast_imp: see `NAFNetLocal`.

    Raises:
        ValueError: there are not as many decoder stages as encoder stages, or train_size is not positive.
    """

    check_args = {**_SMALL, "train_size": [1, 3, 32, 32]}  # noqa: RUF012

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 16,
        middle_blk_num: int = 1,
        enc_blk_nums: Sequence[int] = (),
        dec_blk_nums: Sequence[int] = (),
        dw_expand: int = 1,
        ffn_expand: int = 2,
        train_size: tuple[int, int, int, int] = (1, 3, 256, 256),
        fast_imp: bool = False,
    ) -> None:
        pools = _LocalPools(train_size, fast_imp, len(enc_blk_nums))
        super().__init__(
            img_channel,
            width,
            middle_blk_num,
            enc_blk_nums,
            dec_blk_nums,
            lambda channels, level: _BaselineBlock(channels, pools.at(level), dw_expand, ffn_expand),
        )
