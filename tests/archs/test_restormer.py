from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import deblurkit
from deblurkit.archs.restormer_arch import _Attention, _BiasFreeNorm
from deblurkit.network import count_macs
from deblurkit.testing import check_network, stir

SMALL = {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}


@pytest.mark.parametrize(
    ("args", "parameters"),
    [
        ({}, 26_126_644),
        ({"LayerNorm_type": "BiasFree"}, 26_111_668),
        ({"inp_channels": 6, "dual_pixel_task": True}, 26_132_548),
    ],
)
def test_published_size(args: dict[str, object], parameters: int) -> None:
    with torch.device("meta"):
        assert deblurkit.build_network({"type": "Restormer", **args}).num_parameters == parameters


def test_published_cost_less_what_one_matrix_instead_of_two_saves() -> None:
    with torch.device("meta"):
        net = deblurkit.build_network({"type": "Restormer"})
    blocks = [(48, 1, 0, 4), (96, 2, 1, 12), (192, 4, 2, 12), (384, 8, 3, 8), (96, 1, 0, 8)]  # C, heads, level, count
    saved = sum(n * c * c // heads * ((256 * 256 >> 2 * level) - c) for c, heads, level, n in blocks)
    assert (count_macs(net, 256, 256) + saved) / 1e9 == pytest.approx(154.88, abs=0.005)


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_attention_is_that_of_the_paper(bias: bool) -> None:
    attention = _Attention(12, heads=3, bias=bias).double()
    stir(attention, 1.0)
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64)
    maps = attention.qkv_dwconv(attention.qkv(x)).reshape(2, 3, 3, 4, 35)
    query, key, value = maps.unbind(1)
    cosines = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(2, 3)
    mixed = (cosines * attention.temperature).softmax(-1) @ value
    torch.testing.assert_close(attention(x), attention.project_out(mixed.reshape(2, 12, 5, 7)))


def test_bias_free_norm_leaves_the_mean() -> None:
    norm = _BiasFreeNorm(6).double()
    stir(norm, 1.0)
    x = 3 + torch.randn(2, 6, 4, 5, dtype=torch.float64)
    deviation = (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), x / deviation * norm.weight.view(-1, 1, 1))


@pytest.mark.parametrize(
    "args", [{"inp_channels": 6, "dual_pixel_task": True}, {"LayerNorm_type": "BiasFree", "bias": True}]
)
def test_the_other_tasks_keep_their_promises(args: dict[str, object]) -> None:
    check_network(type(deblurkit.build_network({"type": "Restormer", **SMALL})), {**SMALL, **args})


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(deblurkit.DeblurkitError, match="must divide"):
        deblurkit.build_network({"type": "Restormer", **SMALL, "heads": [3, 1, 1, 1]})


def test_other_channels_than_the_image_are_refused_unless_dual_pixel() -> None:
    with pytest.raises(deblurkit.DeblurkitError, match="must be the same"):
        deblurkit.build_network({"type": "Restormer", **SMALL, "inp_channels": 6})
