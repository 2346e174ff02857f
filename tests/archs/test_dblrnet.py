from __future__ import annotations

import pytest
import torch

import deblurkit
from deblurkit.archs.dblrnet_arch import DBLRNetD
from deblurkit.network import count_macs
from deblurkit.registry import ARCH_REGISTRY


def test_published_size_and_cost():
    net = deblurkit.build_network({"type": "DBLRNet"})
    assert net.num_parameters == 1_885_411
    assert count_macs(net, 256, 256) / 1e9 == pytest.approx(123.32, abs=0.005)


def test_stacked_convolutions_equal_the_3d_ones():
    torch.manual_seed(0)
    net = deblurkit.build_network({"type": "DBLRNet", "inner_channels": 8}).double()
    x = torch.rand(2, 5, 3, 9, 13, dtype=torch.float64)
    torch.testing.assert_close(net._merge(x), net.L_in(x.transpose(1, 2)).squeeze(2))


def test_odd_sizes():
    net = deblurkit.build_network({"type": "DBLRNet", "inner_channels": 8}).eval()
    assert net.run(torch.rand(2, 5, 3, 37, 45))["restored"].shape == (2, 3, 37, 45)


def test_other_windows_are_refused():
    with pytest.raises(deblurkit.DeblurkitError, match="must be 5, not 3"):
        deblurkit.build_network({"type": "DBLRNet", "num_frames": 3})
    net = deblurkit.build_network({"type": "DBLRNet", "inner_channels": 8})
    with pytest.raises(ValueError, match=r"takes \(B, 5, 3, H, W\), got"):
        net.run(torch.rand(1, 3, 3, 8, 8))


def test_discriminator():
    assert ARCH_REGISTRY.get("DBLRNetD") is DBLRNetD
    torch.manual_seed(0)
    net = DBLRNetD()
    scores = net(torch.rand(2, 3, 16, 37))
    assert scores.shape == (2, 2)
    scores.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())
    single = net.eval()(torch.ones(1, 3, 16, 16))
    pair = net(torch.cat((torch.ones(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))))
    torch.testing.assert_close(pair[:1], single, rtol=1e-4, atol=1e-5)


def test_discriminator_of_one_score_and_wrong_inputs():
    with torch.device("meta"):
        net = DBLRNetD(in_channels=1, num_logits=1)
        assert net(torch.rand(3, 1, 64, 64)).shape == (3, 1)
        for shape in ((3, 1, 15, 64), (3, 3, 64, 64)):
            with pytest.raises(ValueError, match=r"takes \(B, 1, H, W\)"):
                net(torch.rand(shape))
