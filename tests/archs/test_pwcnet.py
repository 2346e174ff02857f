from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from deblurkit.archs.bimnet_arch import BIMNet
from deblurkit.archs.pwcnet_arch import PWCNet


@pytest.mark.parametrize(
    ("cls", "parameters", "gmacs"), [(PWCNet, 9_374_274, 12.0), (BIMNet, 5_381_969, 21.4)], ids=["PWCNet", "BIMNet"]
)
def test_published_size_and_cost(cls, parameters: int, gmacs: float) -> None:
    """Cost as the sheets count it: without cost volumes (matrix products here) and warps."""
    with torch.device("meta"):
        net = cls()
        images = torch.empty(1, 3, 256, 256)
    assert sum(p.numel() for p in net.parameters()) == parameters
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(images, images)
    counts = counter.get_flop_counts()["Global"]
    convolutions = sum(count for operator, count in counts.items() if "convolution" in str(operator))
    assert convolutions / 2e9 == pytest.approx(gmacs, abs=0.06)


@pytest.mark.parametrize("cls", [PWCNet, BIMNet])
@torch.no_grad()
def test_pyramids_of_frames_give_what_the_pair_gives(cls) -> None:
    torch.manual_seed(0)
    net = cls(n_feat=4).eval()
    a, b = torch.rand(2, 1, 3, 64, 128)
    if cls is PWCNet:
        found = net.match(net.pyramid(a), net.pyramid(b))
        assert found.shape == (1, 2, 16, 32)
    else:
        found = net.match(net.pyramid(a), net.pyramid(b))
        assert found.shape == (1, 2, 32, 64)
    assert torch.equal(found, net(a, b))


@torch.no_grad()
def test_flow_of_any_size_is_in_its_own_pixels() -> None:
    """Images are enlarged to multiples of 64, the flow is brought back, and its vectors with it."""
    torch.manual_seed(0)
    net = PWCNet(n_feat=2).eval()
    a, b = torch.rand(2, 2, 3, 50, 96)
    large = [F.interpolate(image, (64, 128), mode="bilinear", align_corners=False) for image in (a, b)]
    expected = 20 * F.interpolate(net(*large), (50, 96), mode="bilinear", align_corners=False)
    expected = expected * torch.tensor([96 / 128, 50 / 64]).view(2, 1, 1)
    torch.testing.assert_close(net.flow(a, b), expected)


@pytest.mark.parametrize("cls", [PWCNet, BIMNet])
def test_gradient_reaches_every_parameter(cls) -> None:
    torch.manual_seed(0)
    net = cls(n_feat=2 if cls is PWCNet else 4)
    net(torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)).square().mean().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert dead == []


@pytest.mark.parametrize("cls", [PWCNet, BIMNet])
def test_too_narrow_ones_are_refused(cls) -> None:
    with pytest.raises(ValueError, match="n_feat starts at 1, not 0"):
        cls(n_feat=0)


@torch.no_grad()
def test_bimnets_kernels_smooth_and_do_not_amplify() -> None:
    """Weights of a pixel's neighbourhood sum to one before the learned scales: a constant flow passes them."""
    net = BIMNet(n_feat=4).eval()
    smoother = net.moduleRegularization[4]  # 3x3 at 1/32
    for scale in (smoother.moduleScaleX, smoother.moduleScaleY):
        scale.weight.fill_(1.0)
        scale.bias.zero_()
    flow = torch.tensor([0.3, -0.7]).view(1, 2, 1, 1).expand(1, 2, 6, 7)
    images = tuple(torch.rand(2, 1, 3, 6, 7))
    smooth = smoother(images, torch.rand(1, 24, 6, 7), flow)
    torch.testing.assert_close(smooth[..., 1:-1, 1:-1], flow[..., 1:-1, 1:-1])
