"""Restormer: a U-shaped transformer that attends over channels instead of pixels.

Zamir, Arora, Khan, Hayat, Khan, Yang: Restormer: Efficient Transformer for High-Resolution Image Restoration,
CVPR 2022, arXiv 2111.09881. Facts: swz30/Restormer, whose checkpoints load as they are.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.archs.blocks import LayerNorm2d
from deblurkit.contract import Capabilities, FrameContract
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY

_NORM_EPS = 1e-5
_LENGTH_EPS = 1e-12


class _BiasFreeNorm(nn.Module):
    """Divides each pixel by the standard deviation of its channels; their mean is not taken away."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        variance = (x - x.mean(1, keepdim=True)).square().mean(1, keepdim=True)
        return x * torch.rsqrt(variance + _NORM_EPS) * self.weight.view(-1, 1, 1)


class _Norm(nn.Module):
    def __init__(self, channels: int, with_bias: bool) -> None:
        super().__init__()
        self.body = LayerNorm2d(channels, _NORM_EPS) if with_bias else _BiasFreeNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class _Attention(nn.Module):
    """MDTA: in each head, channels attend to channels by the cosine of their maps."""

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        # pixels first: after a norm the maps lie in channels-last order, where this is a view
        pixels = self.qkv_dwconv(self.qkv(x)).permute(0, 2, 3, 1).flatten(1, 2)
        query_key, value = pixels.split([2 * x.shape[1], x.shape[1]], dim=2)
        # the maps' lengths divide the small matrix of their products, not the maps
        lengths = torch.linalg.vector_norm(query_key, dim=1).clamp_min(_LENGTH_EPS)
        query, key = query_key.unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 4, 1)
        query_length, key_length = lengths.unflatten(1, (2, self.heads, -1)).unbind(1)
        cosines = query @ key.transpose(2, 3) / (query_length.unsqueeze(3) * key_length.unsqueeze(2))
        attention = (cosines * self.temperature).softmax(3)
        # attention and projection are both linear in the channels: one matrix does the work of two at every pixel
        projection = self.project_out.weight.flatten(1).unflatten(1, (self.heads, -1)).permute(1, 0, 2)
        matrix = (projection @ attention).transpose(2, 3).flatten(1, 2)
        result = value @ matrix
        if self.project_out.bias is not None:
            result = result + self.project_out.bias
        return result.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class _FeedForward(nn.Module):
    """GDFN: one half of the hidden channels gates the other."""

    def __init__(self, channels: int, factor: float, bias: bool) -> None:
        super().__init__()
        hidden = int(channels * factor)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate).mul_(value))


class _Block(nn.Module):
    def __init__(self, channels: int, heads: int, factor: float, bias: bool, with_bias: bool) -> None:
        super().__init__()
        self.norm1 = _Norm(channels, with_bias)
        self.attn = _Attention(channels, heads, bias)
        self.norm2 = _Norm(channels, with_bias)
        self.ffn = _FeedForward(channels, factor, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(self.norm1(x)).add_(x)
        return self.ffn(self.norm2(x)).add_(x)


class _PatchEmbed(nn.Module):
    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class _Resample(nn.Module):
    """To half the size and twice the channels, or (`up`) the other way round."""

    def __init__(self, channels: int, up: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 2 * channels if up else channels // 2, 3, padding=1, bias=False),
            nn.PixelShuffle(2) if up else nn.PixelUnshuffle(2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@ARCH_REGISTRY.register()
class Restormer(Network):
    """Restormer: `(B, inp_channels, H, W)` in [0, 1] to the restored image `(B, out_channels, H, W)`.

    H and W must be multiples of 8. The defaults are the published configuration for motion deblurring (26,126,644
    parameters).

    Args:
        inp_channels, out_channels: channels of the image and of the result.
        dim: channels of the first level; each level doubles them.
        num_blocks: blocks of each level from the top; the decoders have as many as the encoders.
        num_refinement_blocks: blocks after the last decoder.
        heads: attention heads of each level.
        ffn_expansion_factor: hidden channels of a feed-forward layer relative to its own.
        bias: of the convolutions inside the blocks, where levels join, and of the last one.
        LayerNorm_type: "BiasFree" has no bias and leaves the mean (denoising).
        dual_pixel_task: defocus deblurring from the two views of a dual-pixel sensor: the input is their channels one
            after the other (`inp_channels` 6), and no image is added to the result.

    Raises:
        ValueError: the image that is added to the result has other channels, or heads do not divide the channels.
    """

    paper = "Restormer: Efficient Transformer for High-Resolution Image Restoration, CVPR 2022, arXiv 2111.09881"
    year = 2022
    check_args = {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}  # noqa: RUF012

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: tuple[int, int, int, int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: tuple[int, int, int, int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: Literal["WithBias", "BiasFree"] = "WithBias",  # noqa: N803
        dual_pixel_task: bool = False,
    ) -> None:
        if inp_channels != out_channels and not dual_pixel_task:
            raise ValueError(
                f"Restormer adds its input to its result: inp_channels {inp_channels} and out_channels {out_channels} "
                "must be the same, or dual_pixel_task must be true"
            )
        if any((dim << level) % count for level, count in enumerate(heads)):
            raise ValueError(f"Restormer: heads {list(heads)} must divide the levels' channels {dim} * 1, 2, 4, 8")
        super().__init__(
            FrameContract(
                kind="image",
                multiple=8,
                channels=inp_channels,
                capabilities=Capabilities(bf16=True, fp16=False),
                licence="Academic Public License (non-commercial; Restormer)",
            )
        )
        self.dual_pixel_task = dual_pixel_task

        def level(depth: int, count: int, heads: int) -> nn.Sequential:
            block: tuple[Any, ...] = (dim << depth, heads, ffn_expansion_factor, bias, LayerNorm_type == "WithBias")
            return nn.Sequential(*[_Block(*block) for _ in range(count)])

        self.patch_embed = _PatchEmbed(inp_channels, dim)
        self.encoder_level1 = level(0, num_blocks[0], heads[0])
        self.down1_2 = _Resample(dim)
        self.encoder_level2 = level(1, num_blocks[1], heads[1])
        self.down2_3 = _Resample(2 * dim)
        self.encoder_level3 = level(2, num_blocks[2], heads[2])
        self.down3_4 = _Resample(4 * dim)
        self.latent = level(3, num_blocks[3], heads[3])
        self.up4_3 = _Resample(8 * dim, up=True)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=bias)
        self.decoder_level3 = level(2, num_blocks[2], heads[2])
        self.up3_2 = _Resample(4 * dim, up=True)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = level(1, num_blocks[1], heads[1])
        self.up2_1 = _Resample(2 * dim, up=True)
        # the first level is not reduced: it has 2 * dim channels from here on
        self.decoder_level1 = level(1, num_blocks[0], heads[0])
        self.refinement = level(1, num_refinement_blocks, heads[0])
        if dual_pixel_task:
            self.skip_conv = nn.Conv2d(dim, 2 * dim, 1, bias=bias)
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inp_channels, H, W)`, H and W multiples of 8, to `(B, out_channels, H, W)`; not clamped."""
        embedded = self.patch_embed(x)
        skip1 = self.encoder_level1(embedded)
        skip2 = self.encoder_level2(self.down1_2(skip1))
        skip3 = self.encoder_level3(self.down2_3(skip2))
        value = self.latent(self.down3_4(skip3))
        value = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(value), skip3], dim=1)))
        value = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(value), skip2], dim=1)))
        value = self.decoder_level1(torch.cat([self.up2_1(value), skip1], dim=1))
        value = self.refinement(value)
        if self.dual_pixel_task:
            return self.output(value + self.skip_conv(embedded))
        return self.output(value) + x
