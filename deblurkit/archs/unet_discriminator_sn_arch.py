"""UNetDiscriminatorSN: a U-Net with spectral norm that judges every pixel.

Wang, Xie, Dong, Shan: Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data, ICCVW 2021,
arXiv 2107.10833; RealBasicVSR (arXiv 2111.12704) trains against it too. The form is BasicSR's. Spectral norm: Miyato,
Kataoka, Koyama, Yoshida, ICLR 2018, arXiv 1802.05957.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.errors import DataError
from deblurkit.ops.backend import without_autocast
from deblurkit.registry import ARCH_REGISTRY

_SLOPE = 0.2
_EPS = 1e-12
_FIRST_STEPS = 15  # of the power iteration


class _SpectralConv2d(nn.Module):
    """A convolution without bias whose weight is divided by its largest singular value.

    The entries `weight_orig`, `weight_u` and `weight_v` are those of `torch.nn.utils.spectral_norm`. Unlike that, it
    starts with a good estimate of the singular value, makes it in fp32 under autocast too, and can be copied after a
    forward pass. In training every call takes one step of the power iteration.

    Args:
        inputs, outputs: channels. kernel_size: of the convolution, which has a zero padding of 1. stride: of it.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__()
        like = nn.Conv2d(inputs, outputs, kernel_size, bias=False)
        self.stride = stride
        self.weight_orig = nn.Parameter(like.weight.detach())
        self.register_buffer("weight_u", F.normalize(torch.randn(outputs), dim=0, eps=_EPS))
        self.register_buffer("weight_v", F.normalize(torch.randn(inputs * kernel_size**2), dim=0, eps=_EPS))
        self.weight_u: Tensor
        self.weight_v: Tensor
        for _ in range(_FIRST_STEPS):
            self._iterate()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` to `(B, outputs, h, w)`."""
        return F.conv2d(x, self._normalised(), stride=self.stride, padding=1)

    def _normalised(self) -> Tensor:
        with without_autocast(self.weight_orig.device.type):
            if self.training:
                self._iterate()
            # copies: the next call changes the buffers, and the backward pass of this one still needs them
            u, v = self.weight_u.clone(), self.weight_v.clone()
            return self.weight_orig / torch.dot(u, torch.mv(self.weight_orig.flatten(1), v))

    @torch.no_grad()
    def _iterate(self) -> None:
        matrix = self.weight_orig.flatten(1)
        self.weight_v.copy_(F.normalize(torch.mv(matrix.mT, self.weight_u), dim=0, eps=_EPS))
        self.weight_u.copy_(F.normalize(torch.mv(matrix, self.weight_v), dim=0, eps=_EPS))


@ARCH_REGISTRY.register()
class UNetDiscriminatorSN(nn.Module):
    """U-Net discriminator with spectral norm: `(B, num_in_ch, H, W)` in [0, 1] to logits `(B, 1, H, W)`, one a pixel.

    H and W must be multiples of 8. 4,376,897 parameters for the defaults and three channels.

    Args:
        num_in_ch: channels of the image.
        num_feat: width of the first level.
        skip_connection: add the maps of the way down to those of the way up.

    Raises:
        DataError: `forward` gets another size.
    """

    def __init__(self, num_in_ch: int, num_feat: int = 64, skip_connection: bool = True) -> None:
        super().__init__()
        f = num_feat
        self.skip_connection = skip_connection
        self.conv0 = nn.Conv2d(num_in_ch, f, 3, padding=1)
        self.conv1 = _SpectralConv2d(f, 2 * f, 4, stride=2)
        self.conv2 = _SpectralConv2d(2 * f, 4 * f, 4, stride=2)
        self.conv3 = _SpectralConv2d(4 * f, 8 * f, 4, stride=2)
        self.conv4 = _SpectralConv2d(8 * f, 4 * f)
        self.conv5 = _SpectralConv2d(4 * f, 2 * f)
        self.conv6 = _SpectralConv2d(2 * f, f)
        self.conv7 = _SpectralConv2d(f, f)
        self.conv8 = _SpectralConv2d(f, f)
        self.conv9 = nn.Conv2d(f, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, num_in_ch, H, W)` to logits `(B, 1, H, W)`."""
        if x.shape[-2] % 8 or x.shape[-1] % 8:
            raise DataError(
                f"UNetDiscriminatorSN takes images whose sides are multiples of 8, not {tuple(x.shape)}: change gt_size"
            )

        def through(value: Tensor, layer: nn.Module) -> Tensor:
            return F.leaky_relu(layer(value), _SLOPE, inplace=True)

        maps = [through(x, self.conv0)]
        for down in (self.conv1, self.conv2, self.conv3):
            maps.append(through(maps[-1], down))
        value = maps.pop()
        for up in (self.conv4, self.conv5, self.conv6):
            value = through(F.interpolate(value, scale_factor=2, mode="bilinear", align_corners=False), up)
            skipped = maps.pop()
            if self.skip_connection:
                value = value + skipped
        return self.conv9(through(through(value, self.conv7), self.conv8))
