from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import deblurkit
from deblurkit.errors import CheckpointError, RegistryError
from deblurkit.losses.perceptual_loss import VGG19_LAYERS, PerceptualLoss, VGG19Features
from tests.support.losses import write_vgg19


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vgg19(tmp_path_factory.mktemp("vgg") / "vgg19.pth", last="conv2_2")


def test_layer_numbers_are_torchvisions() -> None:
    known = {"conv1_1": 0, "relu1_1": 1, "conv1_2": 2, "conv2_2": 7, "conv3_3": 14, "conv3_4": 16, "conv4_4": 25}
    known |= {"conv5_1": 28, "conv5_4": 34, "pool1": 4, "pool2": 9, "pool3": 18, "pool4": 27, "pool5": 36}
    assert {name: VGG19_LAYERS.index(name) for name in known} == known
    assert len(VGG19_LAYERS) == 37


def test_features_before_and_after_relu_and_pooling(vgg_file: Path) -> None:
    found = VGG19Features(("conv1_2", "relu1_2", "pool1", "conv2_1"), vgg_file)(torch.randn(2, 3, 9, 8))
    assert list(found) == ["conv1_2", "relu1_2", "pool1", "conv2_1"]
    assert found["conv1_2"].min() < 0
    assert torch.equal(found["relu1_2"], found["conv1_2"].relu())
    assert torch.equal(found["pool1"], F.max_pool2d(found["relu1_2"], 2))
    assert found["conv2_1"].shape == (2, 128, 4, 4)


def test_no_deeper_layers_are_loaded_than_asked_for(vgg_file: Path) -> None:
    assert [name for name, _ in VGG19Features(("conv1_1",), vgg_file).named_buffers()] == [
        "conv1_1_weight",
        "conv1_1_bias",
    ]
    PerceptualLoss({"image": 1.0}, vgg_weights="nowhere")  # needs no weights at all


def test_input_norms(vgg_file: Path) -> None:
    restored, gt = torch.rand(2, 2, 3, 8, 8)
    square = (restored - gt) ** 2

    def value(**arguments: Any) -> float:
        return PerceptualLoss({"image": 1.0}, criterion="l2", **arguments)(restored, gt).item()

    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    assert value(input_norm="none") == pytest.approx(square.mean().item(), rel=1e-5)
    assert value(input_norm="symmetric") == pytest.approx(4 * square.mean().item(), rel=1e-5)
    assert value(input_norm="imagenet") == pytest.approx((square / deviation**2).mean().item(), rel=1e-5)
    assert value(input_norm="none", range_norm=True) == pytest.approx(square.mean().item() / 4, rel=1e-5)


def test_style_does_not_see_where_things_are() -> None:
    gt = torch.rand(1, 3, 8, 8)
    moved = gt.roll((3, 2), (-2, -1))
    style = PerceptualLoss({"image": 1.0}, perceptual_weight=0.0, style_weight=1.0)
    assert style(moved, gt).item() == pytest.approx(0, abs=1e-6)
    assert PerceptualLoss({"image": 1.0})(moved, gt) > 0.1
    both = PerceptualLoss({"image": 1.0}, perceptual_weight=2.0, style_weight=3.0)
    other = torch.rand_like(gt)
    expected = 2 * PerceptualLoss({"image": 1.0})(other, gt) + 3 * style(other, gt)
    assert both(other, gt).item() == pytest.approx(expected.item(), rel=1e-5)


def test_weights_come_from_torchs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    mapping = {"type": "PerceptualLoss", "layer_weights": {"conv1_1": 1.0}}
    with pytest.raises(CheckpointError) as caught:
        deblurkit.build_loss(mapping)
    file = tmp_path / "checkpoints" / "vgg19-dcbb9e9d.pth"
    for part in (str(file), "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", "vgg_weights"):
        assert part in str(caught.value)
    file.parent.mkdir()
    write_vgg19(file, last="conv1_1")
    assert deblurkit.build_loss(mapping)(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)) > 0


def test_other_weights_are_refused(tmp_path: Path, vgg_file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"features\.10\.weight should be \(256, 128, 3, 3\), the file has none"):
        VGG19Features(("conv3_1",), vgg_file)
    torch.save({"features.0.weight": torch.zeros(64, 3, 5, 5), "features.0.bias": torch.zeros(64)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"the file has \(64, 3, 5, 5\)"):
        VGG19Features(("conv1_1",), tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(vgg_file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        VGG19Features(("conv1_1",), tmp_path / "b.pth")


def test_frames_have_three_channels() -> None:
    with pytest.raises(ValueError, match="takes RGB frames"):
        PerceptualLoss({"image": 1.0})(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer_weights": {}}, "name at least one layer"),
        ({"layer_weights": {"conv1_3": 1.0}}, "no layer 'conv1_3'"),
        ({"layer_weights": {"image": 1.0}, "criterion": "l3"}, "criterion"),
        ({"layer_weights": {"image": 1.0}, "input_norm": "zscore"}, "input_norm"),
        ({"layer_weights": {"image": 1.0}, "perceptual_weight": 0.0}, "one of them should be above 0"),
        ({}, "layer_weights: missing"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        deblurkit.build_loss({"type": "PerceptualLoss", **arguments})
