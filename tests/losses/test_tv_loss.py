from __future__ import annotations

import pytest
import torch

from deblurkit.losses.tv_loss import KAIRTVLoss, WeightedTVLoss


def test_they_look_at_the_output_alone() -> None:
    frames = torch.rand(2, 3, 6, 5)
    for loss in (WeightedTVLoss(), KAIRTVLoss()):
        assert loss(frames) == loss(frames, torch.rand_like(frames))
        assert loss(torch.ones_like(frames)) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_a_difference_takes_the_weight_of_its_first_pixel(channels: int) -> None:
    frames = torch.zeros(1, 3, 4, 4)
    frames[..., 2, 2] = 1
    weight = torch.zeros(1, channels, 4, 4)
    for position, expected in (((2, 2), 2), ((1, 2), 1), ((2, 1), 1), ((3, 2), 0), ((2, 3), 0)):
        weight.zero_()
        weight[(..., *position)] = 1
        assert WeightedTVLoss("sum")(frames, weight=weight) == 3 * expected
    weight.fill_(0.5)
    assert WeightedTVLoss()(frames, weight=weight).item() == pytest.approx(WeightedTVLoss()(frames).item())


def test_only_mean_and_sum() -> None:
    with pytest.raises(ValueError, match="reduction"):
        WeightedTVLoss("none")  # type: ignore[arg-type]
