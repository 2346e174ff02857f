from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import nn

import deblurkit
from deblurkit.build import build_discriminator


def _unet(**arguments: Any) -> nn.Module:
    return build_discriminator({"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4, **arguments})


def _torchs_own(net: nn.Module) -> nn.Module:
    """The same weights under torch's spectral norm."""
    plain = nn.Module()
    for name, module in net.named_children():
        conv = module
        if hasattr(module, "weight_orig"):
            outputs, inputs, kernel, _ = module.weight_orig.shape
            conv = nn.Conv2d(inputs, outputs, kernel, module.stride, padding=1, bias=False)
            conv = torch.nn.utils.spectral_norm(conv)
        plain.add_module(name, copy.deepcopy(conv))
    plain.load_state_dict(net.state_dict())
    return plain


def test_published_size() -> None:
    with torch.device("meta"):
        net = build_discriminator({"type": "UNetDiscriminatorSN", "num_in_ch": 3})
    assert sum(p.numel() for p in net.parameters()) == 4_376_897


@pytest.mark.parametrize("training", [True, False])
def test_spectral_norm_is_torchs(training: bool) -> None:
    """Weights load in both directions; the estimate, its steps and the gradient agree."""
    net = _unet().train(training)
    for key, value in net.state_dict().items():
        if key.endswith(("_u", "_v")):
            value.copy_(torch.nn.functional.normalize(torch.rand_like(value), dim=0))  # a poor estimate
    other = _torchs_own(net).train(training)
    for _ in range(3):  # the estimate moves with every call in training
        x = torch.rand(2, 8, 8, 8)
        found, expected = net.get_submodule("conv2")(x), other.get_submodule("conv2")(x)
        torch.testing.assert_close(found, expected)
    gradients = [
        torch.autograd.grad(y.square().sum(), one.get_submodule("conv2").weight_orig)[0]
        for one, y in ((net, found), (other, expected))
    ]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(net.state_dict()["conv2.weight_v"], other.state_dict()["conv2.weight_v"])


def test_sharp_and_restored_are_judged_before_one_backward_pass() -> None:
    net = _unet().train()
    weight = net.state_dict()["conv1.weight_orig"].flatten(1)
    u, v = net.state_dict()["conv1.weight_u"], net.state_dict()["conv1.weight_v"]
    assert torch.dot(u, weight @ v) > 0.95 * torch.linalg.matrix_norm(weight, 2)
    before = u.clone()
    scores = net(torch.rand(1, 3, 16, 24)).mean() - net(torch.rand(1, 3, 16, 24)).mean()
    scores.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters() if p.ndim > 1)
    assert not torch.equal(net.state_dict()["conv1.weight_u"], before)
    copy.deepcopy(net)  # torch's own cannot be copied after a pass in training


def test_evaluation_changes_nothing() -> None:
    net = _unet().eval()
    before = copy.deepcopy(net.state_dict())
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(net(x), net(x))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_skip_connections_can_be_left_out() -> None:
    net, plain = _unet().eval(), _unet(skip_connection=False).eval()
    plain.load_state_dict(net.state_dict())
    x = torch.rand(1, 3, 16, 24)
    assert net(x).shape == plain(x).shape == (1, 1, 16, 24)
    assert not torch.allclose(net(x), plain(x))


def test_bf16_is_close_to_fp32() -> None:
    net = _unet().eval()
    x = torch.rand(1, 3, 32, 32)
    expected = net(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = net(x)
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(("size", "stages"), [(128, 5), (256, 6)])
def test_vgg_style_has_a_stage_more_for_larger_images(size: int, stages: int) -> None:
    net = build_discriminator({"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 4, "input_size": size})
    keys = net.state_dict()
    assert f"bn{stages - 1}_1.weight" in keys
    assert f"conv{stages}_0.weight" not in keys
    assert {"conv0_0.bias", "bn1_0.weight"} <= set(keys)
    assert not {"bn0_0.weight", "conv0_1.bias", "conv1_0.bias"} & set(keys)
    scores = net(torch.rand(2, 3, size, size))
    assert scores.shape == (2, 1)
    scores.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_other_sizes_are_refused() -> None:
    vgg = functools.partial(deblurkit.build_network, {"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 4})
    with pytest.raises(deblurkit.DeblurkitError, match="images of 128x128"):
        vgg()(torch.rand(1, 3, 64, 64))
    with pytest.raises(deblurkit.DeblurkitError, match="input_size: should be 128 or 256, got 64"):
        deblurkit.build_network({"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 4, "input_size": 64})
    with pytest.raises(deblurkit.DeblurkitError, match="multiples of 8"):
        _unet()(torch.rand(1, 3, 12, 16))
