from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from deblurkit.metrics import PROTOCOLS
from deblurkit.metrics.psnr_ssim_metric import SSIM
from deblurkit.metrics.volume_ssim_metric import VolumeSSIM
from tests.support.parity import FOLDER


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    with np.load(FOLDER / "metric_psnr_ssim.npz") as file:
        return {**file, "meta": json.loads(str(file["meta"]))}


@pytest.mark.parametrize(("luma", "key"), [(False, "ssim_nafnet_3d"), (True, "ssim_nafnet_y_replicate")])
def test_equals_nafnet(reference: dict[str, Any], luma: bool, key: str) -> None:
    found = VolumeSSIM(test_y_channel=luma)(reference["pred_uint8_round"], reference["gt"])
    assert found == pytest.approx(reference["meta"]["values"][key], abs=2e-6)  # upstream filters in float32


def test_is_close_to_matlab(reference: dict[str, Any]) -> None:
    found = VolumeSSIM()(reference["pred_uint8_round"], reference["gt"])
    assert found == pytest.approx(reference["meta"]["values"]["ssim_matlab_rgb"], abs=5e-6)


def test_the_protocol_has_this_figure(reference: dict[str, Any]) -> None:
    metrics = PROTOCOLS.get("nafnet-rgb/1").build()
    pair = reference["pred_uint8_round"], reference["gt"]
    assert metrics["ssim"](*pair) == VolumeSSIM()(*pair)
    assert metrics["psnr"](*pair) == pytest.approx(reference["meta"]["values"]["psnr_nafnet_uint8"], abs=1e-9)


def test_equal_pictures_and_the_order_of_colours(reference: dict[str, Any]) -> None:
    pred, gt = reference["pred_uint8_round"], reference["gt"]
    assert VolumeSSIM()(gt, gt) == pytest.approx(1.0, abs=1e-12)
    assert VolumeSSIM()(pred[..., ::-1], gt[..., ::-1]) == pytest.approx(VolumeSSIM()(pred, gt), abs=1e-12)


def test_strips_do_not_show() -> None:
    """A picture of two strips, against one in which every row is a strip's inner one."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 100, 20, 3), dtype=np.uint8)
    tall = VolumeSSIM()(a, b)
    sideways = VolumeSSIM()(a.transpose(1, 0, 2), b.transpose(1, 0, 2))  # 20 rows: one strip
    assert tall == pytest.approx(sideways, abs=1e-12)


def test_a_grey_picture_has_a_flat_window() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 256, (2, 40, 40, 1), dtype=np.uint8)
    grey = VolumeSSIM()(a, b)
    assert grey == pytest.approx(VolumeSSIM()(a.repeat(3, 2), b.repeat(3, 2)), abs=1e-12)
    assert grey != pytest.approx(SSIM()(a, b), abs=1e-6)
