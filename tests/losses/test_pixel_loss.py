from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import deblurkit
from deblurkit.losses.base import Loss
from tests.support.parity import FOLDER, uniform

REFERENCE = json.loads((FOLDER / "loss_values.json").read_text())
CASES = {
    "l1_mean": {"type": "L1Loss"},
    "l1_sum": {"type": "L1Loss", "reduction": "sum"},
    "mse_mean": {"type": "MSELoss"},
    "charbonnier_basicsr_mean": {"type": "CharbonnierLoss"},
    "charbonnier_basicsr_sum": {"type": "CharbonnierLoss", "reduction": "sum"},
    "charbonnier_basicsr_eps1e-6": {"type": "CharbonnierLoss", "eps": 1e-6},
    "charbonnier_simdeblur": {"type": "SimDeblurCharbonnierLoss"},
    "psnr_loss": {"type": "PSNRLoss"},
    "psnr_loss_toY": {"type": "PSNRLoss", "to_y": True},
}
PIXEL_LOSSES = sorted({str(mapping["type"]) for mapping in CASES.values()})


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    shape, seed = REFERENCE["pred"]["shape"], REFERENCE["pred"]["seed"]
    restored = torch.from_numpy(uniform(shape, seed))
    assert REFERENCE["target"] == "0.6*pred + 0.4*make_input([2,3,32,40],102)"
    return restored, 0.6 * restored + 0.4 * torch.from_numpy(uniform(shape, 102))


@pytest.mark.parametrize("key", REFERENCE["values"])
def test_equals_upstream(key: str) -> None:
    loss = deblurkit.build_loss(CASES[key])
    found = loss(*pair())
    assert found.shape == ()
    assert found.item() == pytest.approx(REFERENCE["values"][key], rel=REFERENCE["rtol"], abs=REFERENCE["atol"])


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_every_loss_is_least_for_equal_pictures_and_has_a_gradient(name: str) -> None:
    loss = deblurkit.build_loss({"type": name})
    assert isinstance(loss, Loss)
    for shape in ((2, 3, 16, 16), (2, 4, 3, 16, 16)):
        gt = torch.rand(shape)
        restored = torch.rand(shape, requires_grad=True)
        value = loss(restored, gt)
        assert loss(gt, gt) < value
        value.backward()
        assert restored.grad is not None
        assert restored.grad.isfinite().all()
        assert restored.grad.any()


def test_clips_count_like_more_pixels() -> None:
    restored, gt = torch.rand(2, 2, 4, 3, 8, 8)
    wide = [value.transpose(1, 2).flatten(2, 3) for value in (restored, gt)]
    for mapping in CASES.values():
        if mapping != {"type": "PSNRLoss", "to_y": True}:
            loss = deblurkit.build_loss(mapping)
            assert loss(restored, gt).item() == pytest.approx(loss(*wide).item(), rel=1e-5)


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_other_shapes_are_refused_not_broadcast(name: str) -> None:
    with pytest.raises(ValueError, match=r"restored \(2, 3, 8, 8\), gt \(2, 1, 3, 8, 8\)"):
        deblurkit.build_loss({"type": name})(torch.rand(2, 3, 8, 8), torch.rand(2, 1, 3, 8, 8))


def test_weight_and_output_belong_to_the_trainer() -> None:
    loss = deblurkit.build_loss({"type": "L1Loss", "weight": 3.0, "output": "restored"})
    assert loss(*pair()).item() == pytest.approx(REFERENCE["values"]["l1_mean"], rel=1e-5)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"type": "L1Loss", "reduction": "median"}, "reduction: should be 'mean' or 'sum', got 'median'"),
        ({"type": "L1Loss", "weigth": 1.0}, "weigth: unknown argument of L1Loss; did you mean 'weight'"),
        ({"type": "SimDeblurCharbonnierLoss", "eps": 1e-6}, "eps: unknown argument of SimDeblurCharbonnierLoss"),
        ({"type": "CharbonierLoss"}, "no 'CharbonierLoss' among the losses; did you mean 'CharbonnierLoss'"),
        ({"reduction": "mean"}, "has no `type`"),
    ],
)
def test_wrong_mappings_are_refused(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(deblurkit.DeblurkitError, match=message):
        deblurkit.build_loss(mapping)
