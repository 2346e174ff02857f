"""MPRNet: three stages, the first two on quarters and halves of the image, the last at full resolution.

Zamir, Arora, Khan, Hayat, Khan, Yang, Shao: Multi-Stage Progressive Image Restoration, CVPR 2021, arXiv 2102.02808.
Facts: swz30/MPRNet, whose checkpoints load as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.contract import Capabilities, FrameContract, Output
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY

_Levels = tuple[Tensor, Tensor, Tensor]


def _split(x: Tensor, dim: int) -> Tensor:
    """Halves of each image along `dim` (2: top and bottom, 3: left and right), as twice as many images."""
    return x.unflatten(dim, (2, -1)).movedim(dim, 1).flatten(0, 1)


def _join(x: Tensor, dim: int) -> Tensor:
    """The inverse of `_split`."""
    return x.unflatten(0, (-1, 2)).movedim(1, dim).flatten(dim, dim + 1)


def _join_levels(levels: _Levels, dim: int) -> _Levels:
    first, second, third = levels
    return _join(first, dim), _join(second, dim), _join(third, dim)


def _enlarge(x: Tensor) -> Tensor:
    """To twice the size."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class _Layers:
    """Makes the layers that depend on the options of the whole network."""

    def __init__(self, kernel_size: int, reduction: int, bias: bool) -> None:
        self.kernel_size, self.reduction, self.bias = kernel_size, reduction, bias
        self.act = nn.PReLU()  # a single slope for the whole network, as upstream

    def conv(self, inputs: int, outputs: int, kernel: int | None = None) -> nn.Conv2d:
        kernel = kernel or self.kernel_size
        return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=self.bias)

    def cabs(self, channels: int, count: int) -> nn.Sequential:
        return nn.Sequential(*[_CAB(self, channels) for _ in range(count)])

    def shallow(self, inputs: int, channels: int) -> nn.Sequential:
        return nn.Sequential(self.conv(inputs, channels), _CAB(self, channels))


class _ChannelWeights(nn.Module):
    """Weights for the channels from their means, `(B,C,H,W)` to `(B,C,1,1)`."""

    def __init__(self, layers: _Layers, channels: int) -> None:
        super().__init__()
        squeezed = channels // layers.reduction
        self.conv_du = nn.Sequential(
            layers.conv(channels, squeezed, 1), nn.ReLU(inplace=True), layers.conv(squeezed, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_du(x.mean((2, 3), keepdim=True))


class _CAB(nn.Module):
    """Residual block with channel attention."""

    def __init__(self, layers: _Layers, channels: int) -> None:
        super().__init__()
        self.CA = _ChannelWeights(layers, channels)
        self.body = nn.Sequential(layers.conv(channels, channels), layers.act, layers.conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return torch.addcmul(x, y, self.CA(y))


class _SAM(nn.Module):
    """Supervised attention: an image from the features of a stage, and those features weighted by that image."""

    def __init__(self, layers: _Layers, channels: int) -> None:
        super().__init__()
        self.conv1 = layers.conv(channels, channels, 1)
        self.conv2 = layers.conv(channels, 3, 1)
        self.conv3 = layers.conv(3, channels, 1)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        restored = self.conv2(x) + image
        return torch.addcmul(x, self.conv1(x), self.conv3(restored).sigmoid()), restored


class _Down(nn.Module):
    """To half the size (the mean of 2 x 2 pixels) and `more` channels more."""

    def __init__(self, channels: int, more: int) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, channels + more, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(x)


class _Up(nn.Module):
    """To `less` channels less and twice the size.

    Upstream enlarges first. Bilinear weights add up to one, so a pointwise convolution may as well come before, where
    there are a quarter of the pixels, and sums may be taken before enlarging.
    """

    def __init__(self, channels: int, less: int) -> None:
        super().__init__()
        self.up = nn.Sequential(nn.Identity(), nn.Conv2d(channels + less, channels, 1, bias=False))

    def project(self, x: Tensor) -> Tensor:
        """Without the enlarging."""
        return self.up(x)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return _enlarge(self.project(x)).add_(skip)


class _Encoder(nn.Module):
    """Three levels; with `fusion`, each also takes in the levels of the encoder and decoder of the stage before."""

    def __init__(self, layers: _Layers, channels: int, more: int, fusion: bool) -> None:
        super().__init__()
        widths = [channels, channels + more, channels + 2 * more]
        self.encoder_level1, self.encoder_level2, self.encoder_level3 = (layers.cabs(width, 2) for width in widths)
        self.down12 = _Down(channels, more)
        self.down23 = _Down(channels + more, more)
        if fusion:
            self.csff_enc1, self.csff_enc2, self.csff_enc3 = (layers.conv(width, width, 1) for width in widths)
            self.csff_dec1, self.csff_dec2, self.csff_dec3 = (layers.conv(width, width, 1) for width in widths)

    def forward(self, x: Tensor, before: tuple[_Levels, _Levels] | None = None) -> _Levels:
        first = self._fuse(self.encoder_level1(x), 1, before)
        second = self._fuse(self.encoder_level2(self.down12(first)), 2, before)
        third = self._fuse(self.encoder_level3(self.down23(second)), 3, before)
        return first, second, third

    def _fuse(self, x: Tensor, level: int, before: tuple[_Levels, _Levels] | None) -> Tensor:
        if before is None:
            return x
        encoded, decoded = getattr(self, f"csff_enc{level}"), getattr(self, f"csff_dec{level}")
        return encoded(before[0][level - 1]).add_(decoded(before[1][level - 1])).add_(x)


class _Decoder(nn.Module):
    def __init__(self, layers: _Layers, channels: int, more: int) -> None:
        super().__init__()
        widths = [channels, channels + more, channels + 2 * more]
        self.decoder_level1, self.decoder_level2, self.decoder_level3 = (layers.cabs(width, 2) for width in widths)
        self.skip_attn1 = _CAB(layers, channels)
        self.skip_attn2 = _CAB(layers, channels + more)
        self.up21 = _Up(channels, more)
        self.up32 = _Up(channels + more, more)

    def forward(self, levels: _Levels) -> _Levels:
        third = self.decoder_level3(levels[2])
        second = self.decoder_level2(self.up32(third, self.skip_attn2(levels[1])))
        first = self.decoder_level1(self.up21(second, self.skip_attn1(levels[0])))
        return first, second, third


class _ORB(nn.Module):
    """Residual group at full resolution."""

    def __init__(self, layers: _Layers, channels: int, count: int) -> None:
        super().__init__()
        kernel = layers.kernel_size
        last = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
        self.body = nn.Sequential(*layers.cabs(channels, count), last)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).add_(x)


class _ORSNet(nn.Module):
    """The last stage: never leaves the full resolution, and takes in the levels of the stage before."""

    def __init__(self, layers: _Layers, channels: int, own: int, more: int, count: int) -> None:
        super().__init__()
        width = channels + own
        self.orb1, self.orb2, self.orb3 = (_ORB(layers, width, count) for _ in range(3))
        self.up_enc1 = _Up(channels, more)
        self.up_dec1 = _Up(channels, more)
        self.up_enc2 = nn.Sequential(_Up(channels + more, more), _Up(channels, more))
        self.up_dec2 = nn.Sequential(_Up(channels + more, more), _Up(channels, more))
        self.conv_enc1, self.conv_enc2, self.conv_enc3 = (layers.conv(channels, width, 1) for _ in range(3))
        self.conv_dec1, self.conv_dec2, self.conv_dec3 = (layers.conv(channels, width, 1) for _ in range(3))

    def forward(self, x: Tensor, encoded: _Levels, decoded: _Levels) -> Tensor:
        x = self.orb1(x).add_(self.conv_enc1(encoded[0])).add_(self.conv_dec1(decoded[0]))
        second = self.conv_enc2(self.up_enc1.project(encoded[1])) + self.conv_dec2(self.up_dec1.project(decoded[1]))
        x = self.orb2(x).add_(_enlarge(second))
        third = self.conv_enc3(_project_twice(self.up_enc2, encoded[2]))
        third = third + self.conv_dec3(_project_twice(self.up_dec2, decoded[2]))
        return self.orb3(x).add_(_enlarge(_enlarge(third)))


def _project_twice(ups: nn.Sequential, x: Tensor) -> Tensor:
    for up in ups:
        assert isinstance(up, _Up)
        x = up.project(x)
    return x


@ARCH_REGISTRY.register()
class MPRNet(Network):
    """MPRNet: `(B, 3, H, W)` in [0, 1] to the restored image and to those of the two stages before it.

    H and W must be multiples of 8. The defaults are the published configuration for deblurring (20,127,073 parameters).

    Args:
        in_c, out_c: channels of the image and of the result; 3, since each stage adds the image to its result.
        n_feat: channels of the first level.
        scale_unetfeats: by how many channels a level has more than the one above it.
        scale_orsnetfeats: by how many channels the last stage has more than the first level.
        num_cab: blocks of each of the last stage's three groups.
        kernel_size: of the convolutions; odd.
        reduction: by how much the channel attention narrows its channels.
        bias: of the convolutions, but for those that resample and that end the last stage's groups.

    Raises:
        ValueError: in_c or out_c is not 3, kernel_size is even, or H and W are not multiples of 8.
    """

    paper = "Multi-Stage Progressive Image Restoration, CVPR 2021, arXiv 2102.02808"
    year = 2021
    check_args = {"n_feat": 8, "scale_unetfeats": 4, "scale_orsnetfeats": 4, "num_cab": 1}  # noqa: RUF012

    def __init__(
        self,
        in_c: int = 3,
        out_c: int = 3,
        n_feat: int = 96,
        scale_unetfeats: int = 48,
        scale_orsnetfeats: int = 32,
        num_cab: int = 8,
        kernel_size: int = 3,
        reduction: int = 4,
        bias: bool = False,
    ) -> None:
        if (in_c, out_c) != (3, 3):
            raise ValueError(f"MPRNet adds the image to each stage's result: in_c {in_c} and out_c {out_c} must be 3")
        if kernel_size % 2 == 0:
            raise ValueError(f"MPRNet keeps the size of its maps: kernel_size must be odd, not {kernel_size}")
        super().__init__(
            FrameContract(
                kind="image",
                multiple=8,
                outputs=(Output("restored"), Output("stage2"), Output("stage1")),
                capabilities=Capabilities(bf16=True, fp16=False),
                licence="Academic Public License (non-commercial; MPRNet)",
            )
        )
        layers = _Layers(kernel_size, reduction, bias)
        self.shallow_feat1, self.shallow_feat2, self.shallow_feat3 = (layers.shallow(in_c, n_feat) for _ in range(3))
        self.stage1_encoder = _Encoder(layers, n_feat, scale_unetfeats, fusion=False)
        self.stage1_decoder = _Decoder(layers, n_feat, scale_unetfeats)
        self.stage2_encoder = _Encoder(layers, n_feat, scale_unetfeats, fusion=True)
        self.stage2_decoder = _Decoder(layers, n_feat, scale_unetfeats)
        self.stage3_orsnet = _ORSNet(layers, n_feat, scale_orsnetfeats, scale_unetfeats, num_cab)
        self.sam12 = _SAM(layers, n_feat)
        self.sam23 = _SAM(layers, n_feat)
        self.concat12 = layers.conv(2 * n_feat, n_feat)
        self.concat23 = layers.conv(2 * n_feat, n_feat + scale_orsnetfeats)
        self.tail = layers.conv(n_feat + scale_orsnetfeats, out_c)

    def forward(self, x: Tensor) -> list[Tensor]:
        """`(B, 3, H, W)` to the results of stages 3, 2 and 1, each `(B, 3, H, W)`; not clamped."""
        if x.shape[-2] % 8 or x.shape[-1] % 8:
            raise ValueError(f"MPRNet takes heights and widths that are multiples of 8, got {tuple(x.shape[-2:])}")
        # stage 1 encodes quarters and decodes halves; channel attention must not see beyond them
        halves = _split(x, 2)
        encoded = _join_levels(self.stage1_encoder(self.shallow_feat1(_split(halves, 3))), 3)
        decoded = self.stage1_decoder(encoded)
        features, stage1 = self.sam12(decoded[0], halves)

        # stage 2 encodes halves and decodes the whole
        value = self.concat12(torch.cat([self.shallow_feat2(halves), features], dim=1))
        encoded = _join_levels(self.stage2_encoder(value, (encoded, decoded)), 2)
        decoded = self.stage2_decoder(encoded)
        features, stage2 = self.sam23(decoded[0], x)

        value = self.concat23(torch.cat([self.shallow_feat3(x), features], dim=1))
        value = self.stage3_orsnet(value, encoded, decoded)
        return [self.tail(value) + x, stage2, _join(stage1, 2)]

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """See `Network.run`."""
        if x.ndim == 5:
            return super().run(x)
        restored, stage2, stage1 = self.forward(x)
        return {"restored": restored, "stage2": stage2, "stage1": stage1}
