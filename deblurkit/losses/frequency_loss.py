"""L1 losses of spectra, in the three conventions that are in use; their values differ.

The FFT is unnormalised, over height and width. Sources: `chosj95/MIMO-UNet@5c58013` (FFTLoss),
`INVOKERer/AdaRevD@754988d` and LoFormer (FFTModulusLoss, one-sided).
"""

from __future__ import annotations

import torch
from torch import Tensor

from deblurkit.losses.base import Loss, difference
from deblurkit.registry import LOSS_REGISTRY


def _two_sided_mean(half: Tensor, width: int) -> Tensor:
    """The mean over a two-sided spectrum of values that are equal for a frequency and its negative.

    Args:
        half: values of the one-sided spectrum, `(..., H, width // 2 + 1)`. width: of the picture.
    """
    total = 2 * half.sum() - half[..., 0].sum()  # column zero has no counterpart,
    if width % 2 == 0:  # nor has the highest frequency of an even width
        total = total - half[..., -1].sum()
    return total / (half[..., 0].numel() * width)


@LOSS_REGISTRY.register()
class FFTLoss(Loss):
    """Mean of |Re D| and |Im D| over the **two-sided** spectrum D of restored - gt.

    MIMO-UNet's, with the weight 0.1 there; also FFTformer's, EVSSM's and MSSNet's. A real
    picture's spectrum repeats itself, so half of it is computed.
    """

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """See `Loss.forward`."""
        half = torch.fft.rfft2(difference(restored, gt))
        return _two_sided_mean((half.real.abs() + half.imag.abs()) / 2, restored.shape[-1])


@LOSS_REGISTRY.register()
class OneSidedFFTLoss(Loss):
    """Mean of |Re D| and |Im D| over the one-sided spectrum (`rfft2`) D of restored - gt.

    Not MIMO-UNet's: columns that the two-sided spectrum has twice count once.
    """

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """See `Loss.forward`."""
        return torch.view_as_real(torch.fft.rfft2(difference(restored, gt))).abs().mean()


@LOSS_REGISTRY.register()
class FFTModulusLoss(Loss):
    """Mean of the complex modulus |D| over the spectrum D of restored - gt.

    Args:
        one_sided: over `rfft2` (LoFormer, AdaRevD: weight 0.01; DSTNet: 0.1) instead of the two-sided spectrum
            (DeepRFT, MISCKernelNet: 0.01).
    """

    def __init__(self, one_sided: bool = False) -> None:
        super().__init__()
        self.one_sided = one_sided

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """See `Loss.forward`."""
        modulus = torch.fft.rfft2(difference(restored, gt)).abs()
        return modulus.mean() if self.one_sided else _two_sided_mean(modulus, restored.shape[-1])
