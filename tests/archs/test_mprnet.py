from __future__ import annotations

import pytest
import torch
from torch import nn

import deblurkit
from deblurkit.archs.mprnet_arch import _enlarge, _join, _split, _Up
from deblurkit.network import count_macs

SMALL = {"n_feat": 8, "scale_unetfeats": 4, "scale_orsnetfeats": 4, "num_cab": 1}


def test_published_size_and_cost_less_what_projecting_before_enlarging_saves() -> None:
    with torch.device("meta"):
        net = deblurkit.build_network({"type": "MPRNet"})
    assert net.num_parameters == 20_127_073
    n, u, wide = 96, 48, 128
    lower, upper = (n + 2 * u) * (n + u), (n + u) * n  # a step up from the third level, from the second
    decoders = 2 * 0.75 * (lower / 4 + upper)
    second = 2 * 0.75 * (upper + n * wide)
    third = 2 * (0.75 * lower / 4 + 0.9375 * (upper + n * wide))
    saved = (decoders + second + third) * 256 * 256
    assert (count_macs(net, 256, 256) + saved) / 1e9 == pytest.approx(759.4, abs=0.05)


def test_stages_are_returned_by_name_and_for_clips() -> None:
    net = deblurkit.build_network({"type": "MPRNet", **SMALL}).eval()
    x = torch.rand(2, 3, 3, 16, 24)
    with torch.no_grad():
        stages = net(x[0])
        outputs = net.run(x)
    for name, stage in zip(("restored", "stage2", "stage1"), stages, strict=True):
        assert outputs[name].shape == x.shape
        torch.testing.assert_close(outputs[name][0], stage)


def test_all_blocks_share_one_slope() -> None:
    net = deblurkit.build_network({"type": "MPRNet"})
    slopes = {module for module in net.modules() if isinstance(module, nn.PReLU)}
    assert len(slopes) == 1
    assert sum(key.endswith("body.1.weight") and value.shape == (1,) for key, value in net.state_dict().items()) == 55


@torch.no_grad()
def test_a_quarter_sees_nothing_of_the_others_in_the_first_encoder() -> None:
    net = deblurkit.build_network({"type": "MPRNet", **SMALL}).eval()
    x = torch.rand(2, 3, 16, 24)
    quarters = _split(_split(x, 2), 3)
    together = net.stage1_encoder(net.shallow_feat1(quarters))
    for i, (image, rows, columns) in enumerate((b, r, c) for b in (0, 1) for r in (0, 8) for c in (0, 12)):
        quarter = x[image : image + 1, :, rows : rows + 8, columns : columns + 12]
        alone = net.stage1_encoder(net.shallow_feat1(quarter))
        for level, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(level[i : i + 1], expected)


def test_joining_undoes_splitting() -> None:
    x = torch.rand(2, 3, 8, 12)
    for dim in (2, 3):
        assert torch.equal(_join(_split(x, dim), dim), x)
        assert torch.equal(_split(x, dim)[:2], torch.stack([half[0] for half in x.chunk(2, dim)]))


@torch.no_grad()
def test_projecting_before_enlarging_is_exact() -> None:
    up = _Up(4, 3).double()
    x, skip = torch.rand(2, 7, 5, 6).double(), torch.rand(2, 4, 10, 12).double()
    torch.testing.assert_close(up(x, skip), up.project(_enlarge(x)) + skip)


@pytest.mark.parametrize("args", [{"in_c": 1}, {"out_c": 6}, {"kernel_size": 4}])
def test_impossible_arguments_are_refused(args: dict[str, int]) -> None:
    with pytest.raises(deblurkit.DeblurkitError, match=r"must be (3|odd)"):
        deblurkit.build_network({"type": "MPRNet", **SMALL, **args})


def test_other_sizes_are_refused() -> None:
    net = deblurkit.build_network({"type": "MPRNet", **SMALL})
    with pytest.raises(ValueError, match="multiples of 8"):
        net.run(torch.rand(1, 3, 12, 16))
