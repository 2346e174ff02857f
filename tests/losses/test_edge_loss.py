from __future__ import annotations

import pytest
import torch

from deblurkit.losses.edge_loss import EdgeLoss, GradientL1Loss, laplacian


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_plain_areas_have_no_laplacian_and_edges_have(size: tuple[int, int]) -> None:
    frames = torch.full((1, 3, *size), 0.5)
    torch.testing.assert_close(laplacian(frames)[..., 2:-2, 2:-2], torch.zeros(1, 3, size[0] - 4, size[1] - 4))
    frames[..., 4:] = 1
    assert laplacian(frames)[..., 3:5].abs().min() > 0.05


def test_epsilon_is_what_is_left_for_equal_frames() -> None:
    frames = torch.rand(1, 3, 8, 8)
    assert EdgeLoss(eps=0.02)(frames, frames).item() == pytest.approx(0.02)
    with pytest.raises(ValueError, match="eps"):
        EdgeLoss(eps=0.0)


def test_gradients_are_compared_not_brightness() -> None:
    bright, dark = torch.zeros(2, 1, 1, 12, 12)
    bright[..., 3:9, 3:9] = 1
    dark[..., 3:9, 3:9] = -1
    assert GradientL1Loss()(bright, dark) == 0
    # four sides of 6 pixels, each seen from 2 rows, of 14 x 14 places; corners count sqrt(2) where both sides meet
    flat = torch.zeros_like(bright)
    slope, corner = 4 * 2 * 6 - 4 * 2, 4 * 2**0.5
    expected = ((slope + corner) - (slope + 4) * 1e-3) / 14**2
    assert GradientL1Loss()(bright, flat).item() == pytest.approx(expected, rel=1e-2)
