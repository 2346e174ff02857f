from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from deblurkit.errors import DataError, RegistryError
from deblurkit.metrics import PROTOCOLS
from deblurkit.metrics.psnr_ssim_metric import PSNR, SSIM, luma
from tests.support.parity import FOLDER


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    with np.load(FOLDER / "metric_psnr_ssim.npz") as file:
        return {**file, "meta": json.loads(str(file["meta"]))}


@pytest.mark.parametrize("test_y_channel", [False, True])
@pytest.mark.parametrize("crop_border", [0, 4])
@pytest.mark.parametrize("metric", [PSNR, SSIM])
def test_equals_basicsr(reference: dict[str, Any], metric: type, crop_border: int, test_y_channel: bool) -> None:
    key = f"{metric.__name__.lower()}_basicsr{'_y' * test_y_channel}{f'_crop{crop_border}' * (crop_border > 0)}"
    found = metric(crop_border, test_y_channel)(reference["pred_uint8_round"], reference["gt"])
    # the luma is rounded to float32 upstream; everything else is the same to the last digits
    assert found == pytest.approx(reference["meta"]["values"][key], abs=2e-6 if test_y_channel else 1e-12)


def test_luma_equals_basicsr(reference: dict[str, Any]) -> None:
    np.testing.assert_allclose(luma(reference["rgb"], 255.0), reference["y_channel_float255"][..., 0], atol=2e-5)


def test_the_protocol_gives_basicsrs_rgb_figures(reference: dict[str, Any]) -> None:
    protocol = PROTOCOLS.get("basicsr-rgb/1")
    metrics = protocol.build()
    assert list(metrics) == ["psnr", "ssim"]
    assert [(metric.better, metric.unit) for metric in metrics.values()] == [("higher", "dB"), ("higher", "")]
    for name, metric in metrics.items():
        found = metric(reference["pred_uint8_round"], reference["gt"])
        assert found == pytest.approx(reference["meta"]["values"][f"{name}_basicsr"], abs=1e-12)
    record = protocol.record()
    assert json.loads(json.dumps(record)) == record
    assert all(record.values()) or record["border"] == 0
    assert "half to even" in record["quantisation"]


def test_unknown_protocol_names_the_nearest() -> None:
    with pytest.raises(RegistryError, match="no 'basicsr-rbg/1' among the protocols; did you mean 'basicsr-rgb/1'"):
        PROTOCOLS.get("basicsr-rbg/1")


def test_equal_pictures(reference: dict[str, Any]) -> None:
    gt = reference["gt"]
    assert PSNR()(gt, gt.copy()) == math.inf
    assert SSIM()(gt, gt.copy()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("metric", [PSNR(), SSIM(), PSNR(2, True), SSIM(2, True)])
def test_sixteen_bits_are_measured_against_their_own_white(reference: dict[str, Any], metric: Any) -> None:
    restored, gt = reference["pred_uint8_round"], reference["gt"]
    wide = metric(restored.astype(np.uint16) * 257, gt.astype(np.uint16) * 257)
    assert wide == pytest.approx(metric(restored, gt), abs=1e-9)


def test_floats_are_taken_as_0_to_255(reference: dict[str, Any]) -> None:
    restored, gt = reference["pred_uint8_round"], reference["gt"]
    assert PSNR()(restored.astype(np.float32), gt.astype(np.float32)) == pytest.approx(PSNR()(restored, gt))


def test_unsigned_differences_do_not_wrap_around() -> None:
    black, white = (np.full((16, 16, 3), value, np.uint8) for value in (0, 255))
    assert PSNR()(black, white) == PSNR()(white, black) == pytest.approx(0.0)


def test_ssim_of_sizes_around_its_strips() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 150, 40, 3), dtype=np.uint8)
    whole = SSIM()(a, b)
    # the map of 140 rows as the mean of the maps of its two halves
    halves = [SSIM()(a[:80], b[:80]), SSIM()(a[70:], b[70:])]
    assert whole == pytest.approx(np.mean(halves), abs=1e-12)
    assert -1 <= SSIM()(a[:11, :11], b[:11, :11]) <= 1


@pytest.mark.parametrize("metric", [PSNR(), SSIM()])
def test_pictures_that_do_not_fit_are_refused(metric: Any) -> None:
    with pytest.raises(DataError, match=r"restored \(20, 30, 3\), sharp \(20, 31, 3\)"):
        metric(np.zeros((20, 30, 3), np.uint8), np.zeros((20, 31, 3), np.uint8))
    with pytest.raises(DataError, match="restored uint8, sharp uint16"):
        metric(np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30, 3), np.uint16))


def test_pictures_that_are_too_small_are_refused() -> None:
    small = np.zeros((10, 30, 3), np.uint8)
    with pytest.raises(DataError, match="at least 11x11 pixels, there are 10x30"):
        SSIM()(small, small)
    with pytest.raises(DataError, match="a border of 5 pixels leaves nothing"):
        PSNR(crop_border=5)(small, small)
    with pytest.raises(DataError, match="needs three channels"):
        PSNR(test_y_channel=True)(small[..., :1], small[..., :1])
    with pytest.raises(ValueError, match="must not be negative"):
        PSNR(crop_border=-1)
