from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import deblurkit
from deblurkit.archs.spynet_arch import SpyNet, WrappedSpyNet
from deblurkit.archs.video_blocks import by_frame
from deblurkit.ops.flow_warp import flow_warp
from tests.support import parity


def _filled(**arguments: Any) -> SpyNet:
    """With weights that give flows of some pixels."""
    net = SpyNet(**arguments).eval()
    net.load_state_dict(parity.fill(net.state_dict(), 1.0, ["mean", "std"]))
    return net


def test_published_size_and_cost() -> None:
    with torch.device("meta"):
        net = deblurkit.build_network({"type": "SpyNet"})
    assert sum(p.numel() for p in net.parameters()) == 1_440_300
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(*torch.zeros(2, 1, 3, 256, 256, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(21.0, abs=0.05)


@torch.no_grad()
def test_weights_that_add_nothing_give_no_flow() -> None:
    net = _filled()
    for level in net.basic_module:
        torch.nn.init.zeros_(level.basic_module[8].weight)  # type: ignore[union-attr, index]
        torch.nn.init.zeros_(level.basic_module[8].bias)  # type: ignore[union-attr, index]
    assert not net(torch.rand(1, 3, 40, 33), torch.rand(1, 3, 40, 33)).any()


@torch.no_grad()
def test_levels_add_up_in_pixels() -> None:
    """A correction of one pixel at the coarsest level is 32 pixels at the finest, scaled to the image's own size."""
    net = _filled()
    for number, level in enumerate(net.basic_module):
        torch.nn.init.zeros_(level.basic_module[8].weight)  # type: ignore[union-attr, index]
        level.basic_module[8].bias.copy_(torch.tensor([1.0, -0.5]) * (number == 0))  # type: ignore[union-attr, index]
    flow = net(torch.rand(1, 3, 64, 96), torch.rand(1, 3, 64, 96))
    torch.testing.assert_close(flow, torch.tensor([32.0, -16.0]).view(1, 2, 1, 1).expand_as(flow))
    flow = net(torch.rand(1, 3, 48, 72), torch.rand(1, 3, 48, 72))
    torch.testing.assert_close(flow, torch.tensor([24.0, -12.0]).view(1, 2, 1, 1).expand_as(flow))


@torch.no_grad()
def test_it_learns_where_the_second_image_is() -> None:
    """The flow leads from the first image to the second: warping the second by it gives the first."""
    torch.manual_seed(0)
    canvas = F.interpolate(torch.rand(2, 3, 10, 12), scale_factor=8, mode="bicubic")
    ref, supp = canvas[..., 8:72, 8:88], canvas[..., 9:73, 11:91]
    net = SpyNet()
    optimizer = torch.optim.Adam(net.parameters(), 1e-4)
    losses = []
    for _ in range(12):
        with torch.enable_grad():
            flow = net(ref, supp)
            loss = (flow - torch.tensor([-3.0, -1.0]).view(1, 2, 1, 1)).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]
    exact = torch.tensor([-3.0, -1.0]).view(1, 2, 1, 1).expand(2, 2, 64, 80)
    torch.testing.assert_close(flow_warp(supp, exact)[..., 4:-4, 4:-4], ref[..., 4:-4, 4:-4])


@pytest.mark.parametrize("size", [(1, 1), (31, 40), (45, 70)])
@torch.no_grad()
def test_any_size_and_several_levels(size: tuple[int, int]) -> None:
    ref, supp = torch.rand(2, 2, 3, *size)
    finest = _filled()(ref, supp)
    assert finest.shape == (2, 2, *size)
    assert finest.isfinite().all()
    if min(size) > 4:
        levels = _filled(return_levels=[3, 5, 4])(ref, supp)
        assert [tuple(one.shape[-2:]) for one in levels] == [(size[0] >> s, size[1] >> s) for s in range(3)]
        assert torch.equal(levels[0], finest)
    with pytest.raises(deblurkit.DeblurkitError, match="return_levels: some of 0 to 5"):
        deblurkit.build_network({"type": "SpyNet", "return_levels": [6]})


@pytest.mark.parametrize("gradients", [True, False])
def test_neighbours_share_their_pyramids(gradients: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net, frames = _filled(), torch.rand(2, 4, 3, 36, 40)
    monkeypatch.setitem(deblurkit.ops.backend.BUDGETS, "cpu", 1)  # without gradients, one pair at a time
    with torch.set_grad_enabled(gradients):
        to_next, to_last = net.between_neighbours(frames)
        assert net.between_neighbours(frames[:, :1]) == ([], [])
        for i in range(3):
            torch.testing.assert_close(to_next[i], net(frames[:, i], frames[:, i + 1]), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(to_last[i], net(frames[:, i + 1], frames[:, i]), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(to_last[i], net.between(frames[:, i + 1], frames[:, i]), rtol=1e-4, atol=1e-4)


def test_frames_go_in_parts_of_the_budget_only_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(deblurkit.ops.backend.BUDGETS, "cpu", 20)
    sizes: list[int] = []

    def call(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        sizes.append(len(a))
        return a + b

    maps = [[torch.rand(2, 3) for _ in range(5)] for _ in range(2)]
    expected = [a + b for a, b in zip(*maps, strict=True)]
    with torch.no_grad():
        assert all(map(torch.equal, by_frame(call, maps, 5), expected))
        assert sizes == [4, 4, 2]
        sizes.clear()
        by_frame(call, maps, 1000)
        assert sizes == [2] * 5
        sizes.clear()
    by_frame(call, maps, 1000)
    assert sizes == [10]


def test_weights_under_both_names_load(tmp_path: Path) -> None:
    donor = _filled()
    renamed = {}
    for key, value in donor.state_dict().items():
        parts = key.split(".")
        if key not in ("mean", "std"):
            parts[3:] = [str(int(parts[3]) // 2), "conv", parts[4]]
            renamed[".".join(parts)] = value
    torch.save({"params": donor.state_dict()}, tmp_path / "basicsr.pth")
    torch.save({"state_dict": renamed}, tmp_path / "mmagic.pth")
    x = torch.rand(2, 1, 3, 32, 32)
    for name in ("basicsr", "mmagic"):
        for cls in (SpyNet, WrappedSpyNet):
            net = cls(str(tmp_path / f"{name}.pth"))
            torch.testing.assert_close(net(*x), donor(*x))
    assert set(renamed) <= set(WrappedSpyNet().state_dict())
    with torch.device("meta"):  # nothing is read for counting
        SpyNet("missing.pth")

    torch.save({"basic_module.0.basic_module.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(deblurkit.DeblurkitError, match="holds no weights of SpyNet"):
        SpyNet(str(tmp_path / "other.pth"))
    with pytest.raises(deblurkit.DeblurkitError, match="no such file"):
        deblurkit.build_network({"type": "SpyNet", "load_path": "missing.pth"})
