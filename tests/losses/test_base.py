"""What holds for every loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import deblurkit
from deblurkit.losses.base import Loss
from deblurkit.registry import LOSS_REGISTRY
from tests.support.losses import gradients, write_vgg19

VGG = {"type": "PerceptualLoss", "layer_weights": {"image": 0.5, "conv1_2": 1.0}, "style_weight": 1.0}
COMPARING: dict[str, dict[str, Any]] = {
    name: {"type": name}
    for name in (
        *("L1Loss", "MSELoss", "CharbonnierLoss", "KAIRCharbonnierLoss", "MPRNetCharbonnierLoss"),
        *("ColorCharbonnierLoss", "SimDeblurCharbonnierLoss", "PSNRLoss", "FFTLoss", "OneSidedFFTLoss"),
        *("FFTModulusLoss", "EdgeLoss", "GradientL1Loss", "HEMLoss", "LDLLoss"),
    )
} | {f"Perceptual {criterion}": {**VGG, "criterion": criterion} for criterion in ("l1", "l2", "l2_sum", "fro")}
OUTPUT_ONLY = {name: {"type": name} for name in ("WeightedTVLoss", "KAIRTVLoss")}
ALL = COMPARING | OUTPUT_ONLY


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vgg19(tmp_path_factory.mktemp("vgg") / "vgg19.pth", last="conv1_2")


def build(name: str, vgg_file: Path) -> Loss:
    mapping = ALL[name]
    loss = deblurkit.build_loss({**mapping, "vgg_weights": str(vgg_file)} if "layer_weights" in mapping else mapping)
    assert isinstance(loss, Loss)
    return loss


def evaluate(loss: Loss, restored: Tensor, gt: Tensor) -> Tensor:
    return loss(restored, gt, **{name: gt.roll(1, -1) for name in loss.needs})


def test_none_is_forgotten_here() -> None:
    elsewhere = {"GANLoss", "RelativisticGANLoss", "GradientPenalty", "R1Penalty", "ContrastiveLoss"}
    own = {n for n in LOSS_REGISTRY.names() if LOSS_REGISTRY.get(n).__module__.startswith("deblurkit.losses.")}
    assert {mapping["type"] for mapping in ALL.values()} | elsewhere == own


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_finite_also_for_equal_and_for_plain_frames(name: str, vgg_file: Path) -> None:
    loss = build(name, vgg_file)
    gt = torch.rand(2, 3, 15, 16)
    for restored, target in ((torch.rand_like(gt), gt), (gt.clone(), gt), (torch.zeros_like(gt), torch.zeros_like(gt))):
        gradients([restored], evaluate(loss, restored.requires_grad_(), target))


@pytest.mark.parametrize("name", COMPARING)
def test_least_for_equal_frames_and_pulling_towards_them(name: str, vgg_file: Path) -> None:
    loss = build(name, vgg_file)
    gt = torch.rand(2, 3, 16, 16)
    restored = torch.rand_like(gt).requires_grad_()
    value = evaluate(loss, restored, gt)
    (gradient,) = gradients([restored], value)
    assert gradient.any()
    assert evaluate(loss, gt, gt) < value
    step = 0.01 / gradient.norm()
    torch.manual_seed(1)
    before = evaluate(loss, restored, gt)
    torch.manual_seed(1)  # the same random pixels
    assert evaluate(loss, restored.detach() - step * gradient, gt) < before


@pytest.mark.parametrize("name", ALL)
def test_clips_are_like_batches_of_frames(name: str, vgg_file: Path) -> None:
    if name in ("HEMLoss", "WeightedTVLoss") or ALL[name].get("type") == "SimDeblurCharbonnierLoss":
        pytest.skip("random, or divided otherwise: see their own tests")
    loss = build(name, vgg_file)
    restored, gt = torch.rand(2, 2, 3, 3, 16, 16)
    if name == "PSNRLoss":
        assert evaluate(loss, restored, gt) == pytest.approx(evaluate(loss, restored.flatten(2, 3), gt.flatten(2, 3)))
    else:
        frames = evaluate(loss, restored.flatten(0, 1), gt.flatten(0, 1))
        assert evaluate(loss, restored, gt).item() == pytest.approx(frames.item(), rel=1e-5)


@pytest.mark.parametrize("name", COMPARING)
def test_other_shapes_are_refused_not_broadcast(name: str, vgg_file: Path) -> None:
    with pytest.raises(ValueError, match=r"restored \(2, 3, 8, 8\), gt \(2, 1, 3, 8, 8\)"):
        evaluate(build(name, vgg_file), torch.rand(2, 3, 8, 8), torch.rand(2, 1, 3, 8, 8))


@pytest.mark.parametrize("name", ALL)
def test_full_precision_under_autocast(name: str, vgg_file: Path) -> None:
    loss = build(name, vgg_file)
    restored, gt = torch.rand(2, 1, 3, 16, 16).bfloat16()
    torch.manual_seed(1)
    exact = evaluate(loss, restored.float(), gt.float())
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = evaluate(loss, restored, gt)
        assert (restored @ gt).dtype == torch.bfloat16  # and autocast goes on after the loss
    assert found.dtype == torch.float32
    assert found.item() == exact.item()


@pytest.mark.parametrize("name", ALL)
def test_nothing_of_the_losses_is_saved(name: str, vgg_file: Path) -> None:
    loss = build(name, vgg_file)
    assert not loss.state_dict()
    assert not list(loss.parameters())
