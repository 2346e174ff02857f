from __future__ import annotations

import pytest
import torch

from deblurkit.losses.frequency_loss import FFTLoss, FFTModulusLoss, OneSidedFFTLoss


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 5), (5, 6), (3, 1), (4, 2)])
def test_conventions(size: tuple[int, int]) -> None:
    restored, gt = torch.rand(2, 2, 3, *size)
    full, half = torch.fft.fft2(restored - gt), torch.fft.rfft2(restored - gt)
    torch.testing.assert_close(FFTLoss()(restored, gt), torch.view_as_real(full).abs().mean())
    torch.testing.assert_close(OneSidedFFTLoss()(restored, gt), torch.view_as_real(half).abs().mean())
    torch.testing.assert_close(FFTModulusLoss()(restored, gt), full.abs().mean())
    torch.testing.assert_close(FFTModulusLoss(one_sided=True)(restored, gt), half.abs().mean())
