from __future__ import annotations

import typing

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import deblurkit
from deblurkit.archs.estrnn_arch import Activation
from deblurkit.network import build_twin_on_meta
from deblurkit.testing import stir


def _fuse_layer_by_layer(fusion, maps):
    """The attention as the paper draws it."""
    reference, condensed = maps[fusion.reference], []
    for i, other in enumerate(maps):
        if i != fusion.reference:
            pair = torch.cat((reference, other), dim=1)
            weights = fusion.F_f(pair.mean((2, 3)))
            condensed.append(fusion.condense(fusion.F_p(pair) * weights[..., None, None]))
    return fusion.fusion(torch.cat((*condensed, reference), dim=1))


@pytest.mark.parametrize(("past", "future"), [(2, 2), (0, 1), (3, 1), (2, 0), (0, 0)])
def test_fusion_equals_its_layers_one_by_one(past, future):
    torch.manual_seed(0)
    net = deblurkit.build_network({"type": "ESTRNN", "n_features": 2, "past_frames": past, "future_frames": future})
    stir(net.double())
    maps = [torch.randn(2, 10, 3, 4, dtype=torch.float64) for _ in range(past + 1 + future)]
    torch.testing.assert_close(net.fusion(maps), _fuse_layer_by_layer(net.fusion, maps))


def test_published_size_and_cost():
    """The cost of the fusion is lower here; with the layers one by one it is the published one."""
    net = build_twin_on_meta(deblurkit.build_network({"type": "ESTRNN"}))
    assert net.num_parameters == 2_467_931
    x = net.example_input(256, 256, length=5)
    state = net.init_state(x)
    costs = {}
    for fuse in (net.fusion.forward, lambda maps: _fuse_layer_by_layer(net.fusion, maps)):
        net.fusion.forward = fuse
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net.step(x, state)
        costs[fuse] = counter.get_total_flops() / 2e9
    here, published = costs.values()
    assert published == pytest.approx(12.85, abs=0.005)
    assert here < 0.87 * published


@pytest.mark.parametrize("activation", typing.get_args(Activation))
def test_activations(activation):
    torch.manual_seed(0)
    net = deblurkit.build_network({"type": "ESTRNN", "n_features": 2, "n_blocks": 1, "activation": activation}).eval()
    assert net.run(torch.rand(2, 6, 3, 8, 12))["restored"].shape == (2, 2, 3, 8, 12)


@pytest.mark.parametrize(
    "arguments", [{"activation": "swish"}, {"n_blocks": 0}, {"n_features": 0}, {"past_frames": -1}]
)
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(deblurkit.DeblurkitError):
        deblurkit.build_network({"type": "ESTRNN", **arguments})
