from __future__ import annotations

import pytest
import torch

import deblurkit
from deblurkit.network import count_macs


@pytest.mark.parametrize(("width", "parameters", "gmacs"), [(32, 257_284, 4.82), (64, 999_940, 17.59)])
def test_published_size_and_cost(width, parameters, gmacs):
    net = deblurkit.build_network({"type": "STRCNN", "inner_channels": width})
    assert net.num_parameters == parameters
    assert count_macs(net, 256, 256) / 1e9 == pytest.approx(gmacs, abs=0.005)


def test_blending_layer_is_always_there():
    with_layer, without = (
        deblurkit.build_network({"type": "STRCNN", "inner_channels": 8, "is_dtb": is_dtb}) for is_dtb in (True, False)
    )
    without.load_state_dict(with_layer.state_dict())
    x = torch.rand(1, 6, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(with_layer.eval()(x), without.eval()(x))


def test_evaluation_equals_the_layers_one_by_one():
    """In evaluation convolutions and norms are merged; frozen norms in training mode show the plain form."""
    torch.manual_seed(0)
    net = deblurkit.build_network({"type": "STRCNN", "inner_channels": 8}).double()
    x = torch.rand(2, 6, 3, 8, 12, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(3):
            net.train().run(x)  # moves the running statistics away from 0 and 1
        merged = net.eval().run(x)["restored"]
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.training = True
                module.forward = _frozen(module)
        torch.testing.assert_close(net.run(x)["restored"], merged)


def _frozen(norm):
    def forward(x):
        return torch.nn.functional.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
        )

    return forward


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inner_channels": 7}, "must be even"),
        ({"num_frames_encoded": 0}, "at least 1"),
        ({"encoder_blocks": -1}, "negative"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(deblurkit.DeblurkitError, match=message):
        deblurkit.build_network({"type": "STRCNN", **arguments})


def test_other_channels_are_refused():
    net = deblurkit.build_network({"type": "STRCNN", "inner_channels": 8})
    with pytest.raises(ValueError, match=r"windows \(B, 5, 3, H, W\), got \(1, 5, 1, 8, 8\)"):
        net.run(torch.rand(1, 5, 1, 8, 8))
