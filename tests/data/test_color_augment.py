"""Random colours: the formulas, and what they leave alone."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deblurkit.data.color_augment import ColorAugment, change_colors
from deblurkit.data.request import SampleRequest
from deblurkit.data.video_dataset import VideoDataset
from deblurkit.errors import DataError
from tests.support.trees import make_tree


def picture(dtype: Any = np.uint8) -> Any:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (2, 5, 6, 3), dtype=dtype)


def by_hand(frame: Any, name: str, value: float) -> Any:
    """torchvision's formulas, pixel by pixel, on values in [0, 1]."""
    grey = frame @ np.array([0.299, 0.587, 0.114])
    if name == "brightness":
        return frame * value
    if name == "contrast":
        return frame * value + grey.mean() * (1 - value)
    if name == "saturation":
        return frame * value + grey[..., None] * (1 - value)
    if name == "gamma":
        return frame**value
    found = np.empty_like(frame)
    for place in np.ndindex(frame.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*frame[place])
        h, s = ((h + value) % 1, s) if name == "hue" else (h, min(s * value, 1))
        found[place] = colorsys.hsv_to_rgb(h, s, v)
    return found


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("name", "value"),
    [("brightness", 1.3), ("contrast", 0.6), ("saturation", 1.4), ("hsv_saturation", 0.5), ("hsv_saturation", 1.5),
     ("hue", 0.1), ("hue", -0.3), ("gamma", 0.7)],
)  # fmt: skip
def test_formulas(name: str, value: float, dtype: Any) -> None:
    frames, top = picture(dtype), np.iinfo(dtype).max
    found = change_colors(frames, {name: value})
    assert found.dtype == dtype
    for before, after in zip(frames, found, strict=True):
        expected = np.clip(by_hand(before.astype(np.float64) / top, name, value), 0, 1) * top
        assert np.abs(after - expected).max() <= (0.51 if dtype == np.uint8 else 1.5)


def test_one_change_after_the_other() -> None:
    frames = picture()
    changes = {"brightness": 1.2, "gamma": 0.8}
    both = change_colors(frames, changes).astype(int)
    expected = np.clip(frames / 255 * 1.2, 0, 1) ** 0.8 * 255
    assert np.abs(both - expected).max() <= 0.51
    assert change_colors(frames, {}) is frames


def test_draws_depend_on_seed_epoch_and_position_alone() -> None:
    augment = ColorAugment({"hue": (-0.1, 0.1), "gamma": (0.5, 2.0), "prob": 0.5})
    requests = [SampleRequest(index=7, epoch=e, position=p) for e in range(4) for p in range(50)]
    drawn = [augment.draw(request, 3) for request in requests]
    assert drawn == [augment.draw(SampleRequest(1, r.epoch, r.position, 64), 3) for r in requests]
    changed = [one for one in drawn if one]
    assert 60 < len(changed) < 140
    assert len({one["hue"] for one in changed}) == len(changed)
    assert all(-0.1 <= one["hue"] <= 0.1 and 0.5 <= one["gamma"] <= 2 for one in changed)
    assert [augment.draw(request, 4) for request in requests] != drawn
    alone = ColorAugment({"gamma": (0.5, 2.0)})  # what one draws does not depend on which others there are
    assert all(alone.draw(r, 3)["gamma"] == one["gamma"] for r, one in zip(requests, drawn, strict=True) if one)


def test_both_sides_change_alike_and_nothing_else_does(tmp_path: Path) -> None:
    make_tree(tmp_path, splits=("train",), sequences=1, frames=5, size=(24, 32), seed=1)
    settings: Any = {"dataroot": tmp_path, "split": "train", "layout": "paired", "num_frame": 3, "sampling": "n_n",
                     "augment": {"hflip": 0.5, "transpose": 0.5, "noise": 1.0}}  # fmt: skip
    plain = VideoDataset(**{**settings, "augment": {"hflip": 0.5, "transpose": 0.5}})
    coloured = VideoDataset(
        **{**settings, "augment": {"hflip": 0.5, "transpose": 0.5}}, color={"brightness": (0.5, 0.5)}
    )
    for position in range(4):
        request = SampleRequest(index=1, position=position, crop_size=16)
        a, b = plain[request], coloured[request]
        for side in ("lq", "gt"):
            np.testing.assert_array_equal(
                b[side].numpy(), np.rint(a[side].numpy().astype(np.float32) / 255 * 0.5 * 255)
            )
    noisy = VideoDataset(**settings, noise_sigma=(0.0, 2.0), noise_law="half_normal")
    clean = VideoDataset(**{**settings, "augment": {"hflip": 0.5, "transpose": 0.5}})
    deviations = []
    for position in range(60):
        request = SampleRequest(index=1, position=position, crop_size=16)
        difference = noisy[request]["lq"].float() - clean[request]["lq"].float()
        deviations.append(float(difference.std()))
    # half-normal: mean 2 * sqrt(2 / pi) = 1.6; a uniform law would have 1.0, and nothing above 2
    assert 1.2 < np.mean(deviations) < 2.1
    assert max(deviations) > 2.5


@pytest.mark.parametrize(
    "ranges",
    [{"prob": 1.5}, {"gamma": (2.0, 1.0)}, {"gamma": (0.0, 1.0)}, {"hue": (0.0, 0.6)}, {"contrast": (-1.0, 1.0)}],
)
def test_ranges_that_make_no_sense_are_refused(ranges: Any) -> None:
    with pytest.raises(DataError, match="color: "):
        ColorAugment(ranges)
