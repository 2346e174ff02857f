"""VGGStyleDiscriminator: convolutions with batch norm that judge an image of one size as a whole.

Ledig et al.: Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network (SRGAN), CVPR 2017,
arXiv 1609.04802; Wang et al.: ESRGAN, ECCVW 2018, arXiv 1809.00219. The form is BasicSR's.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.errors import DataError
from deblurkit.registry import ARCH_REGISTRY

_SLOPE = 0.2


@ARCH_REGISTRY.register()
class VGGStyleDiscriminator(nn.Module):
    """VGG-style discriminator: `(B, num_in_ch, input_size, input_size)` to one logit per image, `(B, 1)`.

    Args:
        num_in_ch: channels of the image.
        num_feat: width of the first level.
        input_size: of the images; one more stage for 256.

    Raises:
        ValueError: another input_size.
        DataError: `forward` gets images of another size.
    """

    def __init__(self, num_in_ch: int, num_feat: int, input_size: Literal[128, 256] = 128) -> None:
        super().__init__()
        if input_size not in (128, 256):
            raise ValueError(f"VGGStyleDiscriminator.input_size must be 128 or 256, not {input_size}")
        self.input_size = input_size
        widths = [num_feat * min(2**stage, 8) for stage in range(5 if input_size == 128 else 6)]
        self._stages = len(widths)
        for stage, (inputs, width) in enumerate(zip([num_in_ch, *widths], widths, strict=False)):
            setattr(self, f"conv{stage}_0", nn.Conv2d(inputs, width, 3, padding=1, bias=stage == 0))
            if stage:
                setattr(self, f"bn{stage}_0", nn.BatchNorm2d(width))
            setattr(self, f"conv{stage}_1", nn.Conv2d(width, width, 4, stride=2, padding=1, bias=False))
            setattr(self, f"bn{stage}_1", nn.BatchNorm2d(width))
        self.linear1 = nn.Linear(widths[-1] * 4 * 4, 100)
        self.linear2 = nn.Linear(100, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, num_in_ch, input_size, input_size)` to logits `(B, 1)`."""
        if x.shape[-2:] != (self.input_size, self.input_size):
            raise DataError(
                f"VGGStyleDiscriminator judges images of {self.input_size}x{self.input_size}, got {tuple(x.shape)}: "
                "change gt_size or network_d.input_size"
            )
        for stage in range(self._stages):
            for layer in (f"{stage}_0", f"{stage}_1"):
                x = getattr(self, f"conv{layer}")(x)
                x = getattr(self, f"bn{layer}")(x) if layer != "0_0" else x
                x = F.leaky_relu(x, _SLOPE, inplace=True)
        return self.linear2(F.leaky_relu(self.linear1(x.flatten(1)), _SLOPE))
