from __future__ import annotations

import pytest
import torch

from deblurkit.losses.ldl_loss import LDLLoss, artifact_map


def test_places_where_the_average_is_worse_do_not_count() -> None:
    gt = torch.rand(1, 3, 16, 16)
    restored, averaged = gt + torch.rand_like(gt), gt.clone()
    averaged[..., :8] += 5
    found = artifact_map(restored, gt, averaged)
    assert not found[..., :8].any()
    assert (found[..., 8:] > 0).all()


def test_what_it_needs() -> None:
    frames = torch.rand(1, 3, 16, 16)
    assert LDLLoss.needs == ("averaged",)
    with pytest.raises(ValueError, match="moving average"):
        LDLLoss()(frames, frames)
    with pytest.raises(ValueError, match="equal shapes"):
        LDLLoss()(frames, frames, averaged=frames[..., :8])


def test_no_gradient_reaches_the_average() -> None:
    restored, gt, averaged = torch.rand(3, 1, 3, 16, 16).unbind()
    averaged.requires_grad_()
    LDLLoss()(restored.requires_grad_(), gt, averaged=averaged).backward()
    assert averaged.grad is None
    assert restored.grad is not None
