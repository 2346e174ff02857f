from __future__ import annotations

from typing import Any

import pytest
import torch

import deblurkit
from deblurkit.network import Network, count_macs, count_shared_macs
from deblurkit.registry import ARCH_REGISTRY
from deblurkit.sharing import Shared, SharedStore
from deblurkit.testing import check_network, stir
from tests.support import parity

DEBLUR = {"hr_in": True, "with_predeblur": True}
LARGE = {"num_feat": 128, "num_reconstruct_block": 40}
SMALL = {"num_feat": 8, "deformable_groups": 2, "num_extract_block": 1, "num_reconstruct_block": 1}


@pytest.mark.parametrize(
    ("arguments", "parameters", "side", "macs"),
    [
        ({**LARGE, **DEBLUR}, 23_602_019, 256, 201.5),
        (DEBLUR, 4_042_851, 256, 47.6),
        (LARGE, 20_633_827, 64, 150.4),
        ({}, 3_300_131, 64, 34.6),
        ({"with_tsa": False}, 2_996_259, 64, None),
    ],
    ids=["L deblurring", "M deblurring", "L x4", "M x4", "M x4 without attention"],
)
def test_published_sizes_cost_less_than_as_published(
    arguments: dict[str, Any], parameters: int, side: int, macs: float | None
) -> None:
    """The first convolutions of the alignment see the target once for all neighbours; and windows share the rest."""
    with torch.device("meta"):
        net = deblurkit.build_network({"type": "EDVR", **arguments})
    assert net.num_parameters == parameters
    if macs is not None:
        c, size = net.config["num_feat"], side // 4 if net.config["hr_in"] else side
        spared = 4 * 9 * c * c * size * size * (1 + 1 + 1 / 4 + 1 / 16)
        assert (count_macs(net, side, side) + spared) / 1e9 == pytest.approx(macs, abs=0.06)
        # shared: 1.66 (M) and 1.60 (L) times fewer than upstream's window by window for deblurring
        assert count_shared_macs(net, side, side) / 1e9 < macs / (1.59 if net.config["hr_in"] else 1.29)


def test_public_checkpoints_fit() -> None:
    with torch.device("meta"):
        net = deblurkit.build_network({"type": "EDVR", **LARGE, **DEBLUR})
    assert parity.entries(net) == sorted(parity.keys_of("EDVR__L_deblur"))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"with_predeblur": True},
        {"with_tsa": False, "num_frame": 3},
        {**DEBLUR, "num_frame": 3, "center_frame_idx": 0},
    ],
)
def test_other_forms_keep_their_promises(arguments: dict[str, Any]) -> None:
    check_network("EDVR", {**SMALL, **arguments})


@pytest.mark.parametrize("form", [DEBLUR, {}])
@torch.no_grad()
def test_untrained_offsets_are_zero(form: dict[str, bool]) -> None:
    """A fresh network samples where it stands: frames that do not move need no alignment, whatever they are."""
    net: Any = ARCH_REGISTRY.get("EDVR")(**SMALL, **form)
    packs = [*net.pcd_align.dcn_pack.values(), net.pcd_align.cas_dcnpack]
    assert len(packs) == 4
    for pack in packs:
        assert not pack.conv_offset.weight.any()
        assert not pack.conv_offset.bias.any()


def _net(**arguments: Any) -> Network:
    net: Network = ARCH_REGISTRY.get("EDVR")(**{**SMALL, **DEBLUR, **arguments})
    stir(net.eval())
    return net


@pytest.mark.parametrize("positions", [(0, 1, 2, 3, 4), (0, 0, 0, 1, 2), (2, 1, 0, 1, 2), (4, 3, 0, 1, 2)])
@torch.no_grad()
def test_features_and_fusion_are_the_whole(positions: tuple[int, ...]) -> None:
    """Also at the ends of a sequence, where frames stand in several slots and are aligned once."""
    net = _net()
    frames = torch.rand(5, 2, 3, 32, 48)
    x = torch.stack([frames[position] for position in positions], dim=1)
    shared = Shared(positions)
    aligned: list[int] = []
    net.get_submodule("pcd_align").register_forward_hook(lambda module, inputs, output: aligned.append(output.shape[1]))
    found = net.fuse([net.features(frames[position]) for position in positions], shared)
    torch.testing.assert_close(found["restored"], net.run(x)["restored"], rtol=1e-5, atol=1e-5)
    assert aligned == [len(set(positions)), 5]


@torch.no_grad()
def test_a_frames_features_are_computed_once() -> None:
    net = _net()
    clip = torch.rand(1, 8, 3, 16, 16)
    seen: list[int] = []
    net.get_submodule("feature_extraction").register_forward_hook(
        lambda module, inputs, output: seen.append(len(output))
    )
    store = SharedStore()
    for start in range(4):
        store.forget_before(start)
        net.run_shared(clip[:, start : start + 5], store.window(range(start, start + 5)))
    assert seen == [1] * 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hr_in": True}, "hr_in needs with_predeblur"),
        ({"num_out_ch": 1}, "must be 3, not 3 and 1"),
        ({"num_in_ch": 6}, "must be 3, not 6 and 3"),
        ({"center_frame_idx": 5}, "not in a window of 5"),
    ],
)
def test_other_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(deblurkit.DeblurkitError, match=message):
        deblurkit.build_network({"type": "EDVR", **SMALL, **arguments})


def test_other_windows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"EDVR takes \(B, 5, 3, H, W\)"):
        _net()(torch.rand(1, 3, 3, 16, 16))
