"""Restormer's data sets: two views of a dual-pixel sensor, and noise that is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from deblurkit.build import build_dataset
from deblurkit.contract import FrameContract
from deblurkit.data.prefetcher import to_device
from deblurkit.data.request import SampleRequest
from deblurkit.engine.evaluate import evaluate
from deblurkit.engine.launch import Place
from deblurkit.errors import DataError
from deblurkit.image_io import write_image
from deblurkit.metrics import PROTOCOLS
from deblurkit.network import Network

CPU = Place(torch.device("cpu"))


def write(folder: Path, count: int, dtype: Any, size: tuple[int, int] = (20, 24), seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    frames = [rng.integers(0, np.iinfo(dtype).max, (*size, 3), dtype=dtype) for _ in range(count)]
    for i, frame in enumerate(frames):
        write_image(folder / f"{i:03d}.png", frame)
    return frames


class Sharp(Network):
    """Says which picture it sees: the right view, or all of a noisy picture."""

    def __init__(self, channels: int) -> None:
        super().__init__(FrameContract(kind="image", channels=channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, -3:]


@pytest.fixture
def views(tmp_path: Path) -> dict[str, Any]:
    return {side: write(tmp_path / side, 3, np.uint16, seed=i) for i, side in enumerate(("left", "right", "gt"))}


def dual(tmp_path: Path, **more: Any) -> Any:
    roots = {side: str(tmp_path / side) for side in ("left", "right", "gt")}
    return build_dataset({"type": "DualPixelDataset", "dataroot": {**roots, **more.pop("roots", {})}, **more}, seed=3)


def test_a_dual_pixel_sample_has_both_views(tmp_path: Path, views: dict[str, Any]) -> None:
    data = dual(tmp_path)
    assert len(data) == 3
    sample = data[1]
    assert sample["key"] == "001"
    assert (sample["lq"].shape, sample["lq"].dtype) == ((1, 20, 24, 6), torch.uint16)
    np.testing.assert_array_equal(sample["lq"].numpy()[0], np.concatenate([views["left"][1], views["right"][1]], -1))
    np.testing.assert_array_equal(sample["gt"].numpy()[0], views["gt"][1])


def test_views_are_cropped_and_turned_alike(tmp_path: Path, views: dict[str, Any]) -> None:
    for side in ("left", "right"):  # three times the same picture: what is done to one must be done to all
        for i, frame in enumerate(views["gt"]):
            write_image(tmp_path / side / f"{i:03d}.png", frame)
    data = dual(tmp_path, augment={"hflip": 0.5, "vflip": 0.5, "transpose": 0.5})
    shapes = set()
    for position in range(16):
        sample = data[SampleRequest(index=0, position=position, crop_size=8)]
        for half in (sample["lq"][..., :3], sample["lq"][..., 3:]):
            assert torch.equal(half, sample["gt"])
        shapes.add(sample["gt"].numpy().tobytes())
    assert len(shapes) > 8
    batch = to_device({"lq": data[SampleRequest(0, crop_size=8)]["lq"][None]}, torch.device("cpu"))
    assert batch["lq"].shape == (1, 1, 6, 8, 8)
    assert batch["lq"].dtype == torch.float32
    assert batch["lq"].max() <= 1


def test_dual_pixels_are_evaluated(tmp_path: Path, views: dict[str, Any]) -> None:
    for i, frame in enumerate(views["right"]):
        write_image(tmp_path / "gt" / f"{i:03d}.png", frame)
    found = evaluate(Sharp(6), dual(tmp_path), PROTOCOLS.get("nafnet-rgb/1"), CPU, "x", tmp_path / "out", examples=1)
    assert found.average["psnr"] == np.inf
    assert found.average["ssim"] == pytest.approx(1)
    assert found.average_input == {}
    assert next(iter(found.examples.values())).shape == (20, 72, 3)
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3


def test_views_that_do_not_fit_together(tmp_path: Path, views: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="rgb_shuffle is for pictures of three channels"):
        dual(tmp_path, augment={"rgb_shuffle": 1.0})
    write(tmp_path / "right", 3, np.uint16, size=(20, 26))
    with pytest.raises(DataError, match=r"left.000.png and .*right.000.png have different sizes"):
        dual(tmp_path)[0]
    write(tmp_path / "small", 2, np.uint16)
    with pytest.raises(DataError, match=r"no partner|different names"):
        dual(tmp_path, roots={"right": str(tmp_path / "small")})


def noisy(tmp_path: Path, **more: Any) -> Any:
    mapping = {"type": "GaussianNoiseDataset", "dataroot": str(tmp_path / "clean"), "sigma": [25.0], **more}
    return build_dataset(mapping, seed=3)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [({"sigma": [25.0]}, {25}), ({"sigma": [5.0, 50.0]}, {5, 50}), ({"sigma": [0.0, 50.0], "draw": "range"}, None)],
)
def test_noise_of_training(tmp_path: Path, settings: dict[str, Any], wanted: set[int] | None) -> None:
    clean = write(tmp_path / "clean", 1, np.uint8, size=(64, 64))
    data = noisy(tmp_path, **settings)
    found = []
    for position in range(20):
        sample = data[SampleRequest(index=0, position=position)]
        assert (sample["lq"].shape, sample["lq"].dtype) == ((1, 3, 64, 64), torch.float32)
        np.testing.assert_array_equal(sample["gt"].numpy()[0], clean[0])
        found.append(float((sample["lq"] - sample["gt"].movedim(-1, -3) / 255).std()) * 255)
        again = data[SampleRequest(index=0, position=position)]
        assert torch.equal(again["lq"], sample["lq"])
    if wanted:
        assert {min(wanted, key=lambda one: abs(one - value)) for value in found} == wanted
        assert all(min(abs(value - one) / one for one in wanted) < 0.05 for value in found)
    else:
        assert max(found) - min(found) > 25
        assert max(found) < 51
    assert sample["lq"].min() < 0  # neither clipped nor rounded


@pytest.mark.parametrize("channels", [3, 1])
def test_noise_of_an_evaluation_is_upstreams(tmp_path: Path, channels: int) -> None:
    clean = write(tmp_path / "clean", 2, np.uint8)
    data = noisy(tmp_path, channels=channels)
    for clip, frame in zip(data.clips(merge=True), clean, strict=True):
        expected = frame if channels == 3 else cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None]
        np.random.seed(seed=0)  # as Dataset_GaussianDenoising does it for each picture
        upstream = expected.astype(np.float32) / 255 + np.random.normal(0, 25 / 255.0, expected.shape)
        (seen,) = list(clip.source)
        np.testing.assert_allclose(seen, upstream, atol=1e-6)
        np.testing.assert_array_equal(clip.read_gt[0](), expected)
    found = evaluate(Sharp(channels), data, PROTOCOLS.get("basicsr-rgb/1"), CPU, "x", tmp_path / "out", examples=1)
    assert found.average["psnr"] == pytest.approx(found.average_input["psnr"])
    assert 19 < found.average["psnr"] < 22  # 20 log10(255 / 25) = 20.2, and a little more for what was clipped
    assert next(iter(found.examples.values())).shape == (20, 72, 3)
    sample = data[0]
    assert sample["gt"].shape[-1] == sample["lq"].shape[1] == channels


def test_sigmas_that_do_not_fit(tmp_path: Path) -> None:
    write(tmp_path / "clean", 1, np.uint8)
    for settings in ({"sigma": []}, {"sigma": [-1.0]}, {"sigma": [1.0], "draw": "range"}):
        with pytest.raises(DataError, match="sigma: with draw"):
            noisy(tmp_path, **settings)
    with pytest.raises(DataError, match="an evaluation needs one number"):
        noisy(tmp_path, sigma=[1.0, 2.0]).clips(merge=True)
