from __future__ import annotations

from typing import Any

import pytest
import torch

import deblurkit
from deblurkit.losses.pixel_loss import CharbonnierLoss, L1Loss, MPRNetCharbonnierLoss, MSELoss, PSNRLoss
from tests.support.losses import VALUES, gradients, pair


def test_weight_and_output_belong_to_the_trainer() -> None:
    loss = deblurkit.build_loss({"type": "L1Loss", "weight": 3.0, "output": "restored"})
    assert loss(*pair()).item() == pytest.approx(VALUES["l1_mean"], rel=1e-5)


@pytest.mark.parametrize("cls", [L1Loss, MSELoss, CharbonnierLoss])
@pytest.mark.parametrize("shape", [(2, 3, 6, 5), (2, 4, 3, 6, 5)])
def test_the_weighted_mean_over_some_pixels_is_the_mean_of_those(cls: Any, shape: tuple[int, ...]) -> None:
    restored, gt = torch.rand(2, *shape)
    part = (restored[..., :3, :], gt[..., :3, :])
    for channels in (1, 3):
        weight = torch.zeros(*shape[:-3], channels, 6, 5)
        weight[..., :3, :] = 0.7
        assert cls()(restored, gt, weight=weight).item() == pytest.approx(cls()(*part).item(), rel=1e-5)
        total = cls(reduction="sum")(restored, gt, weight=weight)
        assert total.item() == pytest.approx(0.7 * cls(reduction="sum")(*part).item(), rel=1e-5)


def test_weights_of_zero_and_of_a_wrong_shape() -> None:
    restored, gt = torch.rand(2, 2, 3, 4, 4)
    value = L1Loss()(restored.requires_grad_(), gt, weight=torch.zeros(2, 1, 4, 4))
    assert value == 0
    assert not gradients([restored], value)[0].any()
    with pytest.raises(ValueError, match=r"should be \(2, 3, 4, 4\) or \(2, 1, 4, 4\), got \(2, 4, 4\)"):
        L1Loss()(restored, gt, weight=torch.zeros(2, 4, 4))


def test_the_conventions_of_epsilon() -> None:
    restored, gt = torch.rand(2, 1, 3, 4, 4)
    assert MPRNetCharbonnierLoss(0.1)(restored, gt) == CharbonnierLoss(eps=0.1**2)(restored, gt)
    assert CharbonnierLoss(eps=0.25)(gt, gt) == 0.5


def test_luma_is_of_rgb() -> None:
    with pytest.raises(ValueError, match="only RGB"):
        PSNRLoss(to_y=True)(torch.rand(1, 1, 4, 4), torch.rand(1, 1, 4, 4))


def test_simdeblurs_sum_is_divided_by_the_batch_only() -> None:
    loss = deblurkit.build_loss({"type": "SimDeblurCharbonnierLoss"})
    restored, gt = torch.rand(2, 2, 3, 8, 8)
    once = loss(restored, gt).item()
    assert loss(restored.repeat(3, 1, 1, 1), gt.repeat(3, 1, 1, 1)).item() == pytest.approx(once, rel=1e-5)
    assert loss(restored.repeat(1, 1, 2, 1), gt.repeat(1, 1, 2, 1)).item() == pytest.approx(2 * once, rel=1e-5)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"type": "L1Loss", "reduction": "median"}, "reduction: should be 'mean' or 'sum', got 'median'"),
        ({"type": "L1Loss", "weigth": 1.0}, "weigth: unknown argument of L1Loss; did you mean 'weight'"),
        ({"type": "SimDeblurCharbonnierLoss", "eps": 1e-6}, "eps: unknown argument of SimDeblurCharbonnierLoss"),
        ({"type": "CharbonierLoss"}, "no 'CharbonierLoss' among the losses; did you mean 'CharbonnierLoss'"),
        ({"type": "CharbonnierLoss", "eps": 0.0}, "eps: should be above 0, got 0.0"),
        ({"type": "MPRNetCharbonnierLoss", "eps": -1e-3}, "eps: should be above 0, got -0.001"),
        ({"reduction": "mean"}, "has no `type`"),
    ],
)
def test_wrong_mappings_are_refused(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(deblurkit.DeblurkitError, match=message):
        deblurkit.build_loss(mapping)


def test_wrong_values_are_refused_without_options_too() -> None:
    with pytest.raises(ValueError, match="reduction: should be 'mean' or 'sum', got 'none'"):
        L1Loss(reduction="none")  # type: ignore[arg-type]
