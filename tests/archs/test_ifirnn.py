from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import deblurkit
from deblurkit.network import build_twin_on_meta


def _count(call, *inputs):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(*inputs)
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"), [("IFIRNN", 4_106_307, 33.56), ("IFIRNNC2H3", 1_635_683, 14.76)]
)
def test_published_size_and_cost(name, parameters, gmacs):
    """Upstream reads every frame anew in each of the four calls; here the second cell reads it once for three."""
    net = build_twin_on_meta(deblurkit.build_network({"type": name}))
    assert net.num_parameters == parameters
    x = net.example_input(256, 256, length=1)
    cost = _count(net.step, x, net.init_state(x))
    spared = 2 * _count(net.schedule()[-1].F_B, x[:, 0])
    assert (cost + spared) / 1e9 == pytest.approx(gmacs, abs=0.005)


def test_single_cell():
    net = deblurkit.build_network({"type": "IFIRNN", "dual_cell": False})
    assert net.num_parameters == 2_127_139
    assert not any(key.startswith("rnncells.1.") for key in net.state_dict())


def test_frames_are_read_once_per_cell():
    net = deblurkit.build_network({"type": "IFIRNN", "inner_channels": 4}).eval()
    calls = []
    for cell in net.rnncells:
        cell.F_B.register_forward_hook(lambda module, *_: calls.append(module))
    x = torch.rand(1, 1, 3, 8, 8)
    state = net.init_state(x)
    calls.clear()
    net.step(x, state)
    assert calls == [cell.F_B for cell in net.rnncells]


@pytest.mark.parametrize(("dual_cell", "intra_iters"), [(True, 0), (False, -1)])
def test_too_few_iterations_are_refused(dual_cell, intra_iters):
    with pytest.raises(deblurkit.DeblurkitError, match="intra_iters must be at least"):
        deblurkit.build_network({"type": "IFIRNN", "dual_cell": dual_cell, "intra_iters": intra_iters})
