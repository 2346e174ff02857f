from __future__ import annotations

import functools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import deblurkit
from deblurkit.archs import stfan_arch
from deblurkit.network import build_twin_on_meta
from deblurkit.ops.fac import predicted_filter_conv
from deblurkit.testing import stir


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = deblurkit.build_network({"type": "STFAN"}).eval()
    stir(net)
    return net


def test_published_size_and_cost(net):
    assert net.num_parameters == 5_372_547
    twin = build_twin_on_meta(net)
    x = twin.example_input(256, 256, length=1)
    state = twin.init_state(x)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin.step(x, state)
    assert counter.get_total_flops() / 2e9 == pytest.approx(35.31, abs=0.005)
    assert net.contract.extra_macs_per_pixel * 256**2 == 2 * 128 * 25 * 64**2


def test_what_is_fed_back(net):
    """Limited to [0, 1] as in the official code, as it is for weights that SimDeblur trained."""
    bright = deblurkit.build_network({"type": "STFAN", "clamp_feedback": False}).eval()
    bright.load_state_dict(net.state_dict())
    x = torch.full((1, 1, 3, 8, 8), 1.5)
    with torch.no_grad():
        for one, largest in ((net, 1.0), (bright, None)):
            outputs, state = one.step(x, one.init_state(x))
            assert outputs["restored"].max() > 1
            assert state["restored"].max() == (largest or outputs["restored"].max())


def test_training_carries_no_gradient_over_frames(net):
    x = torch.rand(1, 2, 3, 8, 8, requires_grad=True)
    for training in (True, False):
        restored = net.train(training).run(x)["restored"]
        (gradient,) = torch.autograd.grad(restored[0, 1].sum(), x)
        assert gradient[0, 0].any()  # the previous frame itself is an input of the second step
        _, state = net.step(x[:, :1], net.init_state(x))
        assert state["features"].requires_grad != training
        assert state["restored"].requires_grad != training
    net.eval()


def test_kernels_in_bands_do_not_change_the_result(net, monkeypatch):
    x = torch.rand(1, 2, 3, 24, 16)

    def result_and_gradients():
        net.zero_grad()
        restored = net.run(x)["restored"]
        restored.square().mean().backward()
        return restored.detach(), [parameter.grad.clone() for parameter in net.parameters()]

    expected, gradients = result_and_gradients()
    calls = []
    net.kconv4.register_forward_hook(lambda *_: calls.append(1))
    monkeypatch.setattr(stfan_arch, "predicted_filter_conv", functools.partial(predicted_filter_conv, budget=1))
    found, others = result_and_gradients()
    assert len(calls) == 2 * 6  # frames, rows at a quarter of the size
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(others, gradients, rtol=1e-3, atol=1e-5)
