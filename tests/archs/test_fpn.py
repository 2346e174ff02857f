"""Both generators of DeblurGAN-v2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import deblurkit
from deblurkit.archs.blocks import FPNGenerator, conv_of_doubled
from deblurkit.network import count_macs
from tests.support import parity

SMALL = {"type": "FPNMobileNet", "num_filters": 8, "num_filters_fpn": 16}


def _build(**arguments: Any) -> FPNGenerator:
    net = deblurkit.build_network({**SMALL, **arguments})
    assert isinstance(net, FPNGenerator)
    return net


@pytest.mark.parametrize(
    ("name", "parameters", "used", "giga_macs"),
    [("FPNMobileNet", 3_312_707, 2_106_627, 2.71), ("FPNInception", 60_929_291, 35_840_099, 17.5)],
)
def test_published_size_and_cost(name: str, parameters: int, used: int, giga_macs: float) -> None:
    with torch.device("meta"):
        net = deblurkit.build_network({"type": name})
    assert net.num_parameters == parameters
    assert sum(p.numel() for key, p in net.named_parameters() if key not in net.dead_parameters) == used
    assert count_macs(net, 256, 256) / 1e9 == pytest.approx(giga_macs, abs=0.03)


@pytest.mark.parametrize("name", ["FPNMobileNet", "FPNInception"])
def test_the_backbone_is_frozen_until_told(name: str) -> None:
    with torch.device("meta"):
        net = _build(type=name)
    backbone = net.fpn.get_submodule("features" if name == "FPNMobileNet" else "inception")
    assert not any(p.requires_grad for p in backbone.parameters())
    assert all(p.requires_grad for p in net.get_submodule("head1").parameters())
    net.unfreeze()
    assert all(p.requires_grad for p in net.parameters())


def test_layers_in_use_are_registered_twice() -> None:
    net = _build()
    keys = [key for key in net.state_dict() if key.startswith("fpn.enc")]
    assert len(keys) > 200
    state = net.state_dict()
    for key in ("fpn.enc0.0.0.weight", "fpn.enc3.0.conv.0.weight"):
        state[key] = torch.full_like(state[key], 7.0)
    net.load_state_dict(state)  # of two copies that differ, the later one counts
    assert (net.get_parameter("fpn.features.0.0.weight") == 7).all()
    assert (net.get_parameter("fpn.features.7.conv.0.weight") == 7).all()


@pytest.mark.parametrize("norm", ["instance", "batch"])
@torch.no_grad()
def test_own_statistics_are_those_of_training_on_one_image(norm: str) -> None:
    net = _build(norm_layer=norm, own_statistics=True).eval()
    assert (net.contract.halo, net.contract.min_size) == ("global", 64)
    learning = _build(norm_layer=norm).train()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    learning.load_state_dict(state)
    x = torch.rand(2, 3, 64, 96)
    found = net.run(x)["restored"]
    for one, expected in zip(x.split(1), found.split(1), strict=True):
        torch.testing.assert_close(learning.run(one)["restored"], expected, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def test_own_statistics_give_what_upstreams_inference_gives() -> None:
    fixture = parity.load("FPNMobileNet__train")
    net = deblurkit.build_network({"type": fixture.arch, **fixture.meta["kwargs"], "own_statistics": True})
    (found,) = fixture.call(fixture.prepare(net).eval())
    torch.testing.assert_close(found, torch.from_numpy(fixture.outputs[0]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_convolution_of_an_enlarged_image(bias: bool) -> None:
    conv = nn.Conv2d(5, 4, 3, padding=1, bias=bias).double()
    x = torch.rand(2, 5, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(conv_of_doubled(x, conv), conv(F.interpolate(x, scale_factor=2.0)))


def test_pretrained_backbones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    donor = _build()
    classifier = {
        f"features.{key}": value
        for key, value in donor.get_submodule("fpn.features").state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    torch.save({**classifier, "classifier.weight": torch.zeros(1000, 1280)}, tmp_path / "mobilenetv2.pth.tar")
    monkeypatch.chdir(tmp_path)
    for pretrained in (True, str(tmp_path / "mobilenetv2.pth.tar")):
        net = _build(pretrained=pretrained)
        for key, value in donor.get_submodule("fpn.features").state_dict().items():
            assert torch.equal(net.get_submodule("fpn.features").state_dict()[key], value)
        assert net.config["pretrained"] is False  # a checkpoint has the weights: the file is not needed again

    torch.save({"features.0.0.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(deblurkit.DeblurkitError, match="is not a backbone of FPNMobileNet"):
        _build(pretrained=str(tmp_path / "other.pth"))
    with pytest.raises(deblurkit.DeblurkitError, match="no such file"):
        _build(pretrained="missing.pth")


@pytest.mark.parametrize("name", ["FPNMobileNet", "FPNInception"])
def test_widths_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(deblurkit.DeblurkitError, match=r"\(16\) must be twice num_filters \(16\)"):
        deblurkit.build_network({"type": name, "num_filters": 16, "num_filters_fpn": 16})
