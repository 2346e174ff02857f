from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deblurkit
from deblurkit.archs.blocks import image_norm
from deblurkit.network import count_macs
from tests.support import parity

SMALL = {"type": "DeblurGANGenerator", "ngf": 4, "n_blocks": 1}


def _keys(mapping: dict[str, Any]) -> set[str]:
    return set(deblurkit.build_network(mapping).state_dict())


def test_published_size_and_cost() -> None:
    with torch.device("meta"):
        net = deblurkit.build_network({"type": "DeblurGANGenerator", "n_blocks": 9, "learn_residual": True})
    assert net.num_parameters == 11_378_179
    assert count_macs(net, 256, 256) / 1e9 == pytest.approx(49.6, abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "second_conv"),
    [({}, 5), ({"use_dropout": True}, 6), ({"padding_type": "replicate"}, 5), ({"padding_type": "zero"}, 3)],
)
def test_dropout_and_padding_move_the_second_convolution(arguments: dict[str, Any], second_conv: int) -> None:
    assert f"model.10.conv_block.{second_conv}.weight" in _keys({**SMALL, **arguments})


def test_batch_norm_has_weights_and_its_convolutions_no_bias() -> None:
    keys = _keys({**SMALL, "norm_layer": "batch"})
    assert {"model.2.weight", "model.2.bias", "model.17.weight", "model.18.bias"} - keys == {"model.17.weight"}
    assert "model.1.bias" not in keys
    assert "model.1.bias" in _keys(SMALL)


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
@torch.no_grad()
def test_own_statistics_are_those_of_training_on_one_image(padding: str, norm: str) -> None:
    mapping = {**SMALL, "padding_type": padding, "norm_layer": norm, "learn_residual": True}
    net = deblurkit.build_network({**mapping, "own_statistics": True}).eval()
    assert net.contract.halo == "global"
    x = torch.rand(2, 3, 16, 24)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    found = net.run(x)["restored"]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    learning = deblurkit.build_network(mapping).train()
    learning.load_state_dict(before)
    for one, expected in zip(x.split(1), found.split(1), strict=True):
        torch.testing.assert_close(learning.run(one)["restored"], expected)


def test_own_statistics_give_what_upstreams_inference_gives() -> None:
    fixture = parity.load("DeblurGANGenerator__train")
    net = deblurkit.build_network({"type": fixture.arch, **fixture.meta["kwargs"], "own_statistics": True})
    (found,) = fixture.call(fixture.prepare(net).eval())
    torch.testing.assert_close(found, torch.from_numpy(fixture.outputs[0]), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_the_residual_is_added_and_clamped() -> None:
    net = deblurkit.build_network({**SMALL, "learn_residual": True}).eval()
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(net(x), (x + net.get_submodule("model")(x)).clamp(-1, 1))
    torch.testing.assert_close(net.run((x + 1) / 2)["restored"], (net(x) + 1) / 2)


def test_dropout_is_for_training() -> None:
    net = deblurkit.build_network({**SMALL, "use_dropout": True})
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(net.eval().run(x)["restored"], net.run(x)["restored"])
    assert not torch.equal(net.train().run(x)["restored"], net.run(x)["restored"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_blocks": -1}, "n_blocks must not be negative"),
        ({"padding_type": "mirror"}, "reflect"),
        ({"norm_layer": "none"}, "instance"),
        ({"output_nc": 1, "learn_residual": True}, "learn_residual adds"),
    ],
)
def test_other_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(deblurkit.DeblurkitError, match=message):
        deblurkit.build_network({**SMALL, **arguments})


def test_norm_layers_are_two() -> None:
    with pytest.raises(ValueError, match="'instance' or 'batch', not 'layer'"):
        image_norm("layer", 4)  # type: ignore[arg-type]


def _discriminator(**arguments: Any) -> nn.Module:
    return deblurkit.build_network({"type": "NLayerDiscriminator", **arguments})


def _scores(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net.eval()(x)


def test_discriminators_map_of_scores() -> None:
    x = torch.rand(1, 3, 64, 48)
    plain = _discriminator(ndf=4)
    scores = _scores(plain, x)
    assert scores.shape == (1, 1, 11, 9)
    ending = _discriminator(ndf=4, use_sigmoid=True)
    ending.load_state_dict(plain.state_dict())
    torch.testing.assert_close(_scores(ending, x), scores.sigmoid())
    assert "model.2.bias" not in _discriminator(ndf=4, norm_layer="batch").state_dict()
    with pytest.raises(deblurkit.DeblurkitError, match="n_layers must be at least 1, not 0"):
        _discriminator(n_layers=0)
