from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import deblurkit
from deblurkit.archs.airnet_arch import AirNet
from deblurkit.network import count_macs
from deblurkit.ops.deform_conv_modules import DeformConv2d
from tests.support import parity


def small(**arguments: float) -> AirNet:
    torch.manual_seed(0)
    net = deblurkit.build_network({"type": "AirNet", **AirNet.check_args, **arguments})
    assert isinstance(net, AirNet)
    return net


def views(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    query, key = torch.rand(2, count, 3, 16, 16, generator=generator)
    return query, key


def test_published_size_and_cost() -> None:
    with torch.device("meta"):
        net = deblurkit.build_network({"type": "AirNet"})
    assert net.num_parameters == 8_930_313
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 7_610_377
    assert sum(p.numel() for name, p in net.named_parameters() if name.startswith("R.")) == 6_290_441
    encoder = net.get_submodule("E.E.encoder_q")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder.get_submodule("E")(torch.empty(1, 64, 256, 256, device="meta"))
    rest = counter.get_total_flops() / 2  # of the encoder; restoring needs its first block alone
    assert (count_macs(net, 256, 256) + rest) / 1e9 == pytest.approx(422.0, abs=0.06)


def test_a_training_step_is_the_references() -> None:
    """Losses, logits, queue, follower, statistics and two gradients after one step."""
    fixture = parity.load("AirNet__train")
    net = fixture.prepare(deblurkit.build_network({"type": "AirNet", **fixture.meta["kwargs"]}))
    query, key = (torch.from_numpy(parity.uniform(one["shape"], one["seed"])) for one in fixture.meta["inputs"])
    clean = torch.from_numpy(parity.uniform([5, 3, 24, 24], 13))
    restored, logits, labels = net(query, key)
    contrast, pixel = F.cross_entropy(logits, labels), F.l1_loss(restored, clean)
    total = pixel + 0.1 * contrast
    total.backward()
    encoder, follower = net.E.E.encoder_q, net.E.E.encoder_k
    found = [
        restored, logits, labels.float(), torch.stack([contrast, pixel, total]), net.E.E.queue[:, :8],
        follower.E_pre.backbone[0].weight, encoder.E_pre.backbone[1].running_mean,
        follower.E_pre.backbone[1].running_mean, net.R.head[0].weight.grad, encoder.mlp[2].weight.grad,
    ]  # fmt: skip
    assert len(found) == len(fixture.outputs)
    for value, expected in zip(found, fixture.outputs, strict=True):
        np.testing.assert_allclose(
            value.detach().numpy(), expected, rtol=fixture.meta["rtol"], atol=fixture.meta["atol"]
        )
    assert net.E.E.queue_ptr.tolist() == [5]
    assert all(parameter.grad is None for parameter in follower.parameters())


def test_evaluation_looks_at_one_picture() -> None:
    net = small().eval()
    query, key = views()
    before = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        assert torch.equal(net(query, key), net(query))
        assert torch.equal(net(query), net.run(query)["restored"])
        torch.testing.assert_close(net.run(query[:, None])["restored"][:, 0], net(query))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_restoring_in_training_leaves_the_contrast_alone() -> None:
    net = small().train()
    before = copy.deepcopy(net.state_dict())
    net.run(views()[0])
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("E.E.encoder_q.E_pre.") for name in changed)  # batch norms


def test_keys_replace_the_oldest_ones_and_are_negatives_from_the_next_step_on() -> None:
    net = small(batch_size=1, momentum=0.5).train()
    contrast = net.E.E
    query, key = views(128)
    first = contrast.queue.clone()
    torch.testing.assert_close(first.norm(dim=0), torch.ones(256))
    with torch.no_grad():
        logits = net.compare(query, key, restore=False)["logits"]
        q = copy.deepcopy(contrast.encoder_q)(query)[1]
        keys = contrast.queue[:, :128].T
        torch.testing.assert_close(logits[:, 0], (q * keys).sum(1) / 0.07)
        torch.testing.assert_close(logits[:, 1:], q @ first / 0.07)
        assert torch.equal(contrast.queue[:, 128:], first[:, 128:])
        assert contrast.queue_ptr.tolist() == [128]
        net.compare(query, key, restore=False)
        assert contrast.queue_ptr.tolist() == [0]
        assert torch.equal(contrast.queue[:, :128].T, keys)
        third = net.compare(query, key, restore=False)["logits"]
    assert third.shape == (128, 257)
    torch.testing.assert_close(contrast.queue.norm(dim=0), torch.ones(256))
    with pytest.raises(ValueError, match="that divide it, not 3"):
        net.compare(*views(3), restore=False)


def test_the_follower_takes_a_share_of_the_weights_but_no_statistics() -> None:
    net = small(momentum=0.75).train()
    contrast = net.E.E
    with torch.no_grad():
        for parameter in contrast.encoder_q.parameters():
            parameter += 1
        before = [p.clone() for p in contrast.encoder_k.parameters()]
        contrast.encoder_q.E_pre.backbone[1].running_mean += 9
        net.compare(*views(), restore=False)
    for old, q, k in zip(before, contrast.encoder_q.parameters(), contrast.encoder_k.parameters(), strict=True):
        torch.testing.assert_close(k, 0.75 * old + 0.25 * q)
    assert contrast.encoder_k.E_pre.backbone[1].running_mean.abs().max() < 5


def test_untrained_offsets_are_zero() -> None:
    """So that a guided convolution begins as half of a plain one."""
    module = next(m for m in small().modules() if isinstance(m, DeformConv2d))
    x = torch.rand(1, 8, 6, 7)
    torch.testing.assert_close(module(x, torch.rand_like(x)), F.conv2d(x, module.weight, padding=1) / 2)


def test_what_does_not_fit_is_explained() -> None:
    with pytest.raises(deblurkit.DeblurkitError, match="n_groups, n_blocks and n_feats start at 1"):
        small(n_groups=0)
    with pytest.raises(ValueError, match="compares two views"):
        small().train()(views()[0])


def test_dead_parameters_are_those_of_the_comparison() -> None:
    net = small()
    contrast: nn.Module = net.E.E.encoder_q
    names = {f"E.E.encoder_q.{name}" for name, _ in contrast.named_parameters() if not name.startswith("E_pre.")}
    assert set(net.dead_parameters) == names
