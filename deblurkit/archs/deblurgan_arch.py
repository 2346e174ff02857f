"""DeblurGAN: a ResNet generator, and the PatchGAN discriminator that DeblurGAN-v2 uses too.

Kupyn, Budzan, Mykhailych, Mishkin, Matas: DeblurGAN: Blind Motion Deblurring Using Conditional Adversarial Networks,
CVPR 2018, arXiv 1711.07064. Upstream: KupynOrest/DeblurGAN at afc149d (`models/networks.py`), to which the published
weights belong; later commits have another residual block.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from deblurkit.archs.blocks import image_norm, use_own_statistics
from deblurkit.contract import Capabilities, FrameContract
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY


@torch.no_grad()
def _start(net: nn.Module) -> None:
    """Upstream's initial weights."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class _ResnetBlock(nn.Module):
    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


@ARCH_REGISTRY.register()
class DeblurGANGenerator(Network):
    """DeblurGAN's generator (upstream: `ResnetGenerator`): images `(B, input_nc, H, W)`, H and W multiples of 4.

    `run` takes and returns RGB in [0, 1]; `forward` works in [-1, 1]. The defaults are upstream's; the published
    weights have n_blocks 9, use_dropout and learn_residual (11,378,179 parameters).

    Args:
        input_nc, output_nc: channels; equal when learn_residual.
        ngf: width of the first level.
        norm_layer: "instance" (without weights, with running statistics) or "batch".
        use_dropout: dropout in the residual blocks in training; it shifts the keys.
        n_blocks: residual blocks.
        learn_residual: add the input and clamp to [-1, 1].
        padding_type: borders in the residual blocks.
        own_statistics: in evaluation, normalise with the statistics of each image instead of the running ones. With the
            published weights it should: upstream's inference runs in training mode (with dropout, which is left out).

    Raises:
        ValueError: an argument is out of range.
    """

    paper = "DeblurGAN: Blind Motion Deblurring Using Conditional Adversarial Networks, CVPR 2018, arXiv 1711.07064"
    year = 2018
    check_args: ClassVar = {"ngf": 8, "n_blocks": 2, "learn_residual": True}

    def __init__(
        self,
        input_nc: int = 3,
        output_nc: int = 3,
        ngf: int = 64,
        norm_layer: Literal["instance", "batch"] = "instance",
        use_dropout: bool = False,
        n_blocks: int = 6,
        learn_residual: bool = False,
        padding_type: Literal["reflect", "replicate", "zero"] = "reflect",
        own_statistics: bool = False,
    ) -> None:
        paddings = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d}
        if padding_type not in (*paddings, "zero"):
            raise ValueError(f"DeblurGANGenerator.padding_type: reflect, replicate or zero, not {padding_type!r}")
        if n_blocks < 0:
            raise ValueError(f"DeblurGANGenerator.n_blocks must not be negative, got {n_blocks}")
        if learn_residual and input_nc != output_nc:
            raise ValueError(
                f"DeblurGANGenerator: learn_residual adds input ({input_nc} channels) and output ({output_nc})"
            )
        super().__init__(
            FrameContract(
                kind="image",
                multiple=4,
                min_size=8,  # the reflection reaches 3 pixels in, and one at a quarter of the size
                halo="global" if own_statistics else 12 + 8 * n_blocks,  # measured by gradient for 0, 1, 2, 9
                capabilities=Capabilities(bf16=True, fp16=True),
                licence="BSD-2-Clause (KupynOrest/DeblurGAN)",
            )
        )
        self.learn_residual = learn_residual
        biased = norm_layer == "instance"

        def half_block(width: int) -> list[nn.Module]:
            pad = [paddings[padding_type](1)] if padding_type in paddings else []
            conv = nn.Conv2d(width, width, 3, padding=0 if pad else 1, bias=biased)
            return [*pad, conv, image_norm(norm_layer, width)]

        def block(width: int) -> _ResnetBlock:
            between: list[nn.Module] = [nn.ReLU(inplace=True), *([nn.Dropout(0.5)] if use_dropout else [])]
            return _ResnetBlock([*half_block(width), *between, *half_block(width)])

        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(input_nc, ngf, 7, bias=biased),
            image_norm(norm_layer, ngf),
            nn.ReLU(inplace=True),
        ]
        for width in (ngf, 2 * ngf):
            down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=biased)
            layers += [down, image_norm(norm_layer, 2 * width), nn.ReLU(inplace=True)]
        layers += [block(4 * ngf) for _ in range(n_blocks)]
        for width in (2 * ngf, ngf):
            up = nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1, bias=biased)
            layers += [up, image_norm(norm_layer, width), nn.ReLU(inplace=True)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, output_nc, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)
        _start(self)
        if own_statistics:
            use_own_statistics(self)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, input_nc, H, W)` in [-1, 1] to `(B, output_nc, H, W)` in [-1, 1]."""
        y = self.model(x)
        return (x + y).clamp(-1, 1) if self.learn_residual else y

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """See `Network.run`."""
        if x.ndim == 5:
            return super().run(x)
        return {"restored": (self.forward(x * 2 - 1) + 1) / 2}


@ARCH_REGISTRY.register()
class NLayerDiscriminator(nn.Module):
    """PatchGAN discriminator of DeblurGAN and DeblurGAN-v2: `(B, input_nc, H, W)` in [-1, 1] to a map of scores.

    The map is `(B, 1, h, w)`, with 11x9 scores for an image of 64x48. DeblurGAN-v2's critic of the whole image has
    n_layers 5. 2,764,737 parameters (n_layers 3) or 11,154,369 (5).

    Args:
        input_nc: channels of the image.
        ndf: width of the first layer.
        n_layers: layers of stride 2.
        norm_layer: "instance" (without weights, with running statistics) or "batch".
        use_sigmoid: end with a sigmoid, for the loss of the original GAN.

    Raises:
        ValueError: n_layers is below 1, or an unknown norm_layer.
    """

    def __init__(
        self,
        input_nc: int = 3,
        ndf: int = 64,
        n_layers: int = 3,
        norm_layer: Literal["instance", "batch"] = "instance",
        use_sigmoid: bool = False,
    ) -> None:
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"NLayerDiscriminator.n_layers must be at least 1, not {n_layers}")

        def conv(inputs: int, outputs: int, stride: int, bias: bool = True) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 4, stride, padding=2, bias=bias)

        layers: list[nn.Module] = [conv(input_nc, ndf, stride=2), nn.LeakyReLU(0.2, inplace=True)]
        width = ndf
        for n in range(1, n_layers + 1):
            before, width = width, ndf * min(2**n, 8)
            layers += [
                conv(before, width, stride=2 if n < n_layers else 1, bias=norm_layer == "instance"),
                image_norm(norm_layer, width),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        layers.append(conv(width, 1, stride=1))
        if use_sigmoid:
            layers.append(nn.Sigmoid())
        self.model = nn.Sequential(*layers)
        _start(self)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, input_nc, H, W)` to `(B, 1, h, w)`; logits without use_sigmoid."""
        return self.model(x)
