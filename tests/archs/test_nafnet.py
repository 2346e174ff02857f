from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

import deblurkit
from deblurkit.archs.nafnet_arch import _LocalPool
from deblurkit.network import count_macs
from deblurkit.testing import stir

GOPRO = {"enc_blk_nums": [1, 1, 1, 28], "dec_blk_nums": [1, 1, 1, 1]}
SIDD = {"middle_blk_num": 12, "enc_blk_nums": [2, 2, 4, 8], "dec_blk_nums": [2, 2, 2, 2]}
SMALL = {"width": 8, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}


@pytest.mark.parametrize(
    ("kind", "width", "blocks", "parameters", "giga_macs"),
    [
        ("NAFNet", 32, GOPRO, 17_111_907, 15.96),
        ("NAFNet", 64, GOPRO, 67_888_835, 63.05),
        ("NAFNet", 32, SIDD, 29_159_715, 16.05),
        ("NAFNet", 64, SIDD, 115_982_915, 63.24),
        ("NAFNetLocal", 64, GOPRO, 67_888_835, 63.05),
        ("Baseline", 32, GOPRO, 17_023_875, 15.82),
        ("Baseline", 64, GOPRO, 67_712_771, 62.78),
        ("BaselineLocal", 64, GOPRO, 67_712_771, 62.78),
    ],
)
def test_published_size_and_cost(
    kind: str, width: int, blocks: dict[str, Any], parameters: int, giga_macs: float
) -> None:
    with torch.device("meta"):
        net = deblurkit.build_network({"type": kind, "width": width, **blocks})
    assert net.num_parameters == parameters
    assert count_macs(net, 256, 256) / 1e9 == pytest.approx(giga_macs, abs=0.0051)


@pytest.mark.parametrize("kind", ["NAFNet", "NAFNetLocal", "Baseline", "BaselineLocal"])
@torch.no_grad()
def test_any_size_is_completed_with_zeros(kind: str) -> None:
    net = deblurkit.build_network({"type": kind, **SMALL}).eval()
    stir(net, 1.0)
    x = torch.rand(2, 3, 13, 22)
    padded = net.run(F.pad(x, (0, 2, 0, 3)))["restored"]
    torch.testing.assert_close(net.run(x)["restored"], padded[..., :13, :22])


def test_starts_as_a_shallow_network_that_learns() -> None:
    net = deblurkit.build_network({"type": "NAFNet", **SMALL})
    net.run(torch.rand(1, 3, 8, 8))["restored"].square().mean().backward()
    reached = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"encoders.0.0.beta", "encoders.0.0.gamma"} <= reached  # the scales, from which the blocks wake up


@pytest.mark.parametrize(("plain", "local"), [("NAFNet", "NAFNetLocal"), ("Baseline", "BaselineLocal")])
@torch.no_grad()
def test_local_is_plain_up_to_one_and_a_half_crops_and_differs_above(plain: str, local: str) -> None:
    args = {**SMALL, "enc_blk_nums": [1, 2]}
    net = deblurkit.build_network({"type": plain, **args}).eval()
    stir(net, 1.0)
    for fast in (False, True):
        twin = deblurkit.build_network({"type": local, **args, "train_size": [1, 3, 16, 32], "fast_imp": fast}).eval()
        twin.load_state_dict(net.state_dict())
        for (height, width), same in (((24, 48), True), ((24, 52), False), ((28, 48), False)):
            x = torch.rand(1, 3, height, width)
            assert torch.allclose(net.run(x)["restored"], twin.run(x)["restored"], atol=1e-6) is same


def test_windows_follow_the_levels() -> None:
    net = deblurkit.build_network({"type": "NAFNetLocal", "width": 4, **GOPRO, "enc_blk_nums": [1, 1, 1, 2]})
    levels = [*net.encoders, net.middle_blks, *net.decoders]
    assert [stage[0].sca[0].window[0] for stage in levels] == [384, 192, 96, 48, 24, 48, 96, 192, 384]


@pytest.mark.parametrize("window", [(3, 4), (6, 20), (20, 5), (1, 1), (8, 2)])
def test_local_pool_is_the_mean_over_windows_and_repeats_the_border(window: tuple[int, int]) -> None:
    x = torch.rand(2, 3, 8, 11)
    pool = _LocalPool(window)
    height, width = min(window[0], 8), min(window[1], 11)
    mean = F.avg_pool2d(x, (height, width), stride=1)
    rows, columns = 8 - mean.shape[2], 11 - mean.shape[3]
    expected = F.pad(mean, (columns // 2, (columns + 1) // 2, rows // 2, (rows + 1) // 2), mode="replicate")
    torch.testing.assert_close(pool.spread(pool(x), (8, 11)), expected)


@torch.no_grad()
def test_fast_pool_takes_maps_of_one_pixel() -> None:
    net = deblurkit.build_network({"type": "NAFNetLocal", **SMALL, "train_size": [1, 3, 8, 8], "fast_imp": True})
    for size in [(1, 1), (4, 40), (40, 4), (1, 100), (5, 20)]:
        assert net.run(torch.rand(1, 3, *size))["restored"].isfinite().all()


def test_uneven_stages_are_refused() -> None:
    with pytest.raises(deblurkit.DeblurkitError, match="same length"):
        deblurkit.build_network({"type": "NAFNet", "enc_blk_nums": [1, 1], "dec_blk_nums": [1]})


def test_impossible_crops_are_refused() -> None:
    with pytest.raises(deblurkit.DeblurkitError, match="training crops"):
        deblurkit.build_network({"type": "BaselineLocal", **SMALL, "train_size": [1, 3, 0, 256]})
