"""Blur kernels and operators of degradations against reference values, and what they must not do."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from deblurkit.data.degradation_kernels import KERNELS, bell_kernel, sinc_kernel
from deblurkit.data.degradation_ops import (
    Frame,
    as_frame,
    as_pixels,
    compress_jpeg,
    filter_frame,
    gaussian_noise,
    poisson_noise,
    unsharp_mask,
)
from deblurkit.data.degradations import UnsharpMasking
from deblurkit.data.diff_jpeg import diff_jpeg
from deblurkit.image_io import cv2
from tests.support.parity import FOLDER

CASES = [(kind, i) for kind in KERNELS for i in range({"iso": 4, "aniso": 3, "sinc": 4}.get(kind, 9))]


class Legacy:
    """numpy's legacy generator, from which the reference drew, with the methods of a `Generator`."""

    def __init__(self) -> None:
        self.poisson = np.random.RandomState(0).poisson
        self._state = np.random.RandomState(0)

    def standard_normal(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._state.standard_normal(shape).astype(dtype)


@pytest.fixture(scope="module")
def ops() -> dict[str, Any]:
    with np.load(FOLDER / "degrade_ops.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def picture() -> Frame:
    """The reference's input, `(72, 88, 3)`."""
    with np.load(FOLDER / "metric_psnr_ssim.npz") as file:
        return as_frame(file["gt"])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestKernels:
    """Closed forms."""

    @pytest.mark.parametrize(("kind", "case"), CASES)
    def test_reference_values(self, kind, case):
        with np.load(FOLDER / f"kernel_{kind}.npz") as file:
            meta, expected = json.loads(str(file["meta"])), file[f"kernel{case}"]
        facts = meta["cases"][case]
        if kind == "sinc":
            kernel = sinc_kernel(facts["kernel_size"], facts["cutoff"], facts["pad_to"])
        else:
            form = facts["sig_x"], facts.get("sig_y"), facts.get("theta", 0.0), facts.get("beta", 1.0)
            kernel = bell_kernel(kind, facts["kernel_size"], *form)
        np.testing.assert_allclose(kernel, expected, rtol=1e-10, atol=1e-13)
        assert kernel.sum() == pytest.approx(1)

    def test_all_cases_are_tested(self):
        for kind in KERNELS:
            with np.load(FOLDER / f"kernel_{kind}.npz") as file:
                assert len(json.loads(str(file["meta"]))["cases"]) == len([one for one in CASES if one[0] == kind])

    def test_sinc_rings_and_bells_do_not(self):
        assert sinc_kernel(21, 1.0).min() < 0
        assert bell_kernel("plateau_aniso", 21, 2, 1, 0.3, 2).min() > 0

    def test_sinc_is_a_low_pass(self):
        spectrum = np.abs(np.fft.fft2(sinc_kernel(61, math.pi / 2), (128, 128)))
        assert spectrum[0, :24] == pytest.approx(1, abs=0.1)
        assert spectrum[0, 44:64].max() < 0.1

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [(("sinc", 7, 1.0), "bell"), (("iso", 8, 1.0), "odd"), (("iso", 7, 0.0), "above 0")],
    )
    def test_what_has_no_value_is_refused(self, arguments, words):
        with pytest.raises(ValueError, match=words):
            bell_kernel(*arguments)
        with pytest.raises(ValueError, match="omega"):
            sinc_kernel(7, 4.0)


class TestOperators:
    """What is done to one frame."""

    def test_filtering_is_correlation_with_mirrored_borders(self, ops, picture):
        for i, frame in enumerate((picture, 255 - picture)):
            found = filter_frame(frame, ops["kernels"][i].astype(np.float64)) / 255
            np.testing.assert_allclose(found, ops["filter2d"][i].transpose(1, 2, 0), atol=2e-6)

    @pytest.mark.parametrize("kind", KERNELS)
    def test_separable_parts_add_up_to_the_kernel(self, picture, kind):
        for seed in range(6):
            draw = rng(seed)
            size = int(draw.choice([7, 13, 21]))
            if kind == "sinc":
                kernel = sinc_kernel(size, draw.uniform(0.7, 3))
            else:
                kernel = bell_kernel(kind, size, *draw.uniform(0.2, 3, 2), draw.uniform(-3, 3), draw.uniform(0.5, 2))
            expected = cv2().filter2D(picture, -1, kernel)
            np.testing.assert_allclose(filter_frame(picture, kernel), expected, atol=0.05)

    def test_unsharp_masking(self, ops, picture):
        np.testing.assert_allclose(unsharp_mask(picture), ops["unsharp_255"], atol=1e-3)
        np.testing.assert_allclose(unsharp_mask(picture) / 255, ops["usm_np"], atol=1e-5)
        np.testing.assert_array_equal(UnsharpMasking()([picture], rng())[0], unsharp_mask(picture))

    def test_gaussian_noise(self, ops, picture):
        for gray, name in ((False, "gaussian_noise_seed0"), (True, "gaussian_noise_gray_seed0")):
            found = gaussian_noise(picture.shape, 20.0, gray, Legacy())  # type: ignore[arg-type]
            np.testing.assert_allclose(found / 255, ops[name], atol=1e-6)

    def test_poisson_noise(self, ops, picture):
        for frame, gray, name in (
            (picture, False, "poisson_noise_seed0"),
            (picture[..., ::-1], True, "poisson_noise_gray_seed0"),
        ):
            flipped = picture if gray else frame  # the reference was given BGR: what it calls blue is blue
            found = poisson_noise(flipped, 1.5, gray, Legacy(), white=1.0)  # type: ignore[arg-type]
            np.testing.assert_allclose(found / 255, ops[name], atol=1e-6)

    def test_poisson_noise_has_the_signals_variance(self):
        ramp = np.repeat(np.arange(256, dtype=np.float32)[:, None, None], 3000, 1) * np.ones(3, np.float32)
        noise = poisson_noise(ramp, 2.0, False, rng())
        found = noise.reshape(256, -1).astype(np.float64)
        np.testing.assert_allclose(found.std(axis=1)[1:], 2 * np.sqrt(np.arange(1, 256) / 256), rtol=0.05)
        assert np.abs(found.mean(axis=1)).max() < 0.1
        assert not found[0].any()

    def test_poisson_noise_of_one_value(self):
        noise = poisson_noise(np.full((50, 50, 3), 9, np.float32), 1.0, False, rng())
        assert noise.std() == pytest.approx(3, rel=0.05)  # one value: a step is an event
        assert np.array_equal(noise, np.rint(noise))

    def test_jpeg(self, picture):
        errors = [float(np.abs(compress_jpeg(picture, q) - picture).mean()) for q in (95, 60, 20)]
        assert errors == sorted(errors)
        swapped = compress_jpeg(picture[..., ::-1], 50)[..., ::-1]
        np.testing.assert_array_equal(compress_jpeg(picture, 50, bgr2rgb=False), swapped)
        assert np.abs(swapped - compress_jpeg(picture, 50)).max() > 0
        gray = compress_jpeg(picture, 90, "grayscale")
        assert np.array_equal(gray[..., 0], gray[..., 2])
        luma = picture @ np.array([0.299, 0.587, 0.114])
        assert np.abs(gray[..., 1] - luma).mean() < 4

    def test_pixels_are_rounded_and_saturated(self):
        frame = np.array([[[-20.0, 0.6, 300.0]]], np.float32)
        assert as_pixels(frame).tolist() == [[[0, 1, 255]]]
        assert as_frame(np.array([[[0, 257, 65535]]], np.uint16)).tolist() == [[[0, 1, 255]]]


class TestDiffJPEG:
    """JPEG as a function of tensors."""

    def both(self, picture: Frame) -> torch.Tensor:
        frame = torch.from_numpy(picture / 255).permute(2, 0, 1)
        return torch.stack([frame, 1 - frame])

    @pytest.mark.parametrize(("differentiable", "name"), [(False, "diffjpeg"), (True, "diffjpeg_soft")])
    def test_reference_values(self, ops, picture, differentiable, name):
        found = diff_jpeg(self.both(picture), torch.tensor([30.0, 80.0]), differentiable)
        np.testing.assert_allclose(found, ops[name], atol=5e-6)

    def test_the_soft_form_has_a_gradient(self, picture):
        frames = self.both(picture).clamp(0.1, 0.9).requires_grad_()
        (soft,) = torch.autograd.grad(diff_jpeg(frames, 50.0, differentiable=True).square().sum(), frames)
        assert float(soft.abs().mean()) > 0.01
        (hard,) = torch.autograd.grad(diff_jpeg(frames, 50.0).square().sum(), frames)
        assert not hard.any()

    def test_what_is_refused(self):
        with pytest.raises(ValueError, match="quality"):
            diff_jpeg(torch.zeros(1, 3, 8, 8), 100.0)
        with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
            diff_jpeg(torch.zeros(3, 8, 8), 50.0)
