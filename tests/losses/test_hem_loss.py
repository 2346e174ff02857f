from __future__ import annotations

import pytest
import torch

from deblurkit.losses.hem_loss import HEMLoss


def test_only_the_hard_pixels_count() -> None:
    errors = torch.arange(16.0).view(1, 1, 4, 4)
    zeros = torch.zeros(1, 1, 4, 4)
    # the pixel that ranks 4th from 0 has 11, so 12 to 15 count; the mean is over all 16
    assert HEMLoss(0.25, 0.0)(errors, zeros).item() == pytest.approx((12 + 13 + 14 + 15) / 16)
    assert HEMLoss(0.0, 0.0)(errors, zeros) == 0
    assert HEMLoss(1.0, 0.0)(errors, zeros).item() == pytest.approx(errors.mean().item())
    assert HEMLoss(0.0, 1.0)(errors, zeros).item() == pytest.approx(errors.mean().item())


def test_every_frame_has_its_own_hard_pixels() -> None:
    gt = torch.zeros(1, 2, 3, 4, 4)
    restored = torch.rand(1, 2, 3, 4, 4) * torch.tensor([1.0, 100.0]).view(1, 2, 1, 1, 1)
    loss = HEMLoss(0.5, 0.0)
    single = [loss(restored[:, i], gt[:, i]).item() for i in range(2)]
    assert loss(restored, gt).item() == pytest.approx(sum(single) / 2)


def test_random_pixels_are_as_many_as_asked_for_and_follow_the_seed() -> None:
    restored, gt = torch.ones(4, 1, 10, 10), torch.zeros(4, 1, 10, 10)  # equal errors: none is hard
    loss = HEMLoss(0.5, 0.1)
    assert loss(restored, gt).item() == pytest.approx(0.1)
    noisy = torch.rand(4, 3, 10, 10)
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(loss(noisy, torch.zeros_like(noisy)).item())
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (1.1, 0.1), (0.5, float("nan")), (0.5, 2.0)])
def test_shares_lie_between_zero_and_one(shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="should lie between 0 and 1"):
        HEMLoss(*shares)


def test_one_mask_is_that_of_all_frames_as_one_picture() -> None:
    clip, sharp = torch.rand(2, 2, 4, 3, 6, 8).unbind(0)
    together = HEMLoss(0.5, 0.0, one_mask=True)(clip, sharp)
    channels = HEMLoss(0.5, 0.0)(clip.flatten(1, 2), sharp.flatten(1, 2))
    assert torch.equal(together, channels)
    assert together != HEMLoss(0.5, 0.0)(clip, sharp)
