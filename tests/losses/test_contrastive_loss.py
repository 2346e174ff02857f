from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from deblurkit.losses.contrastive_loss import ContrastiveLoss
from tests.support.losses import gradients


def test_cross_entropy_with_the_first_as_the_right_one() -> None:
    logits = torch.randn(5, 21).requires_grad_()
    value = ContrastiveLoss()(logits)
    torch.testing.assert_close(value, F.cross_entropy(logits, torch.zeros(5, dtype=torch.int64)))
    (gradient,) = gradients([logits], value)
    assert (gradient[:, 0] < 0).all()
    assert ContrastiveLoss()(logits, torch.rand(5, 3, 8, 8)) == value


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3, 8, 8)])
def test_other_outputs_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="takes logits"):
        ContrastiveLoss()(torch.rand(shape))
