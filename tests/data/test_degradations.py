"""Degradations of clips: drift, random choices, and what is refused."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from deblurkit.data import degradation_video
from deblurkit.data.degradation_base import Clip, Drift, build_degradations, degrade, size_after
from deblurkit.data.degradation_kernels import KERNELS
from deblurkit.data.degradation_ops import as_pixels
from deblurkit.data.degradations import (
    DegradationsWithShuffle,
    RandomBlur,
    RandomJPEGCompression,
    RandomNoise,
    RandomResize,
    RandomVideoCompression,
    UnsharpMasking,
)
from deblurkit.errors import OptionsError
from deblurkit.image_io import cv2


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def clip(frames: int = 4, size: tuple[int, int] = (40, 48), seed: int = 0) -> Clip:
    """A smooth texture that moves by a pixel a frame, float32 in 0..255."""
    coarse = rng(seed).random((12, 12, 3), np.float32)
    large = cv2().resize(coarse, (size[1] + frames, size[0] + frames), interpolation=cv2().INTER_CUBIC)
    return [np.clip(large[t : t + size[0], t : t + size[1]] * 255, 0, 255) for t in range(frames)]


def blur(kind: str, **more: Any) -> RandomBlur:
    arguments: dict[str, Any] = {"kernel_size": [13], "sigma_x": (0.5, 3), "sigma_y": (0.5, 3), **more}
    return RandomBlur([kind], [1.0], **arguments)


class TestDrift:
    """From frame to frame."""

    def test_it_stays_in_its_range_and_within_its_step(self):
        drift = Drift((1.0, 2.0), 0.3)
        values = np.array(list(drift.walk(drift.draw(rng()), 500, rng(1))))
        assert values.min() == 1
        assert values.max() == 2
        moves = np.abs(np.diff(values))
        assert 0.25 < moves.max() <= 0.3

    def test_without_a_step_it_stands_and_draws_nothing(self):
        source = rng()
        assert list(Drift((1.0, 2.0)).walk(1.5, 3, source)) == [1.5] * 3
        assert source.random() == rng().random()

    @pytest.mark.parametrize("kind", KERNELS)
    def test_blur_drifts_by_its_steps(self, kind):
        steps = ["sigma_x", "sigma_y", "rotate_angle", "beta_gaussian", "beta_plateau", "omega"]
        still = [clip()[0]] * 3
        first, *others = blur(kind)(still, rng())
        assert all(np.array_equal(first, other) for other in others)
        moving = blur(kind, **{f"{name}_step": 0.2 for name in steps})(still, rng())
        assert np.array_equal(moving[0], first)
        assert all(np.abs(a - b).max() > 0 for a, b in pairwise(moving))

    def test_noise_and_quality_drift(self):
        still = [np.full((64, 64, 3), 128, np.float32)] * 30
        noisy = RandomNoise(["gaussian"], [1.0], (1, 30), gaussian_sigma_step=5)(still, rng())
        sigmas = [float((frame - 128).std()) for frame in noisy]
        assert max(sigmas) - min(sigmas) > 5
        textured = [clip()[0]] * 12
        same = RandomJPEGCompression((20, 90))(textured, rng())
        assert all(np.array_equal(same[0], frame) for frame in same)
        drifting = RandomJPEGCompression((20, 90), quality_step=20)(textured, rng())
        assert len({frame.tobytes() for frame in drifting}) > 5

    def test_sizes_drift(self):
        resize = RandomResize(["area"], [1.0], None, [0, 1, 0], (0.3, 1.2), resize_step=0.1, is_size_even=True)
        sizes = [frame.shape[:2] for frame in resize(clip(12, (60, 80)), rng())]
        assert len(set(sizes)) > 4
        assert all(side % 2 == 0 for size in sizes for side in size)
        assert all(0.3 * 60 - 2 <= height <= 1.2 * 60 for height, _ in sizes)


class TestRandomBlur:
    """Types, sizes, exponents."""

    def test_types_and_sizes_are_drawn_as_often_as_asked(self):
        degradation = RandomBlur(["iso", "sinc"], [0.75, 0.25], [3, 7], (1, 1), omega=(3, 3))
        pulse = np.zeros((9, 9, 3), np.float32)
        pulse[4, 4] = 1
        found = [degradation([pulse], rng(seed))[0][..., 0] for seed in range(400)]
        wide = sum(bool(np.abs(one[4, 1]) > 1e-7) for one in found)
        ringing = sum(bool(one.min() < -1e-6) for one in found)
        assert 160 < wide < 240
        assert 70 < ringing < 130

    def test_exponents_lie_on_both_sides_of_one(self):
        # a plateau with the exponent 1 at the distance sigma is half as high as in the middle, whatever the exponent;
        # at twice the distance it is 1 / (1 + 4^beta)
        pulse = np.zeros((15, 15, 3), np.float32)
        pulse[7, 7] = 1
        degradation = RandomBlur(["plateau_iso"], [1.0], [13], (1, 1), beta_plateau=(0.5, 4))
        betas = []
        for seed in range(200):
            row = degradation([pulse], rng(seed))[0][7, :, 0]
            betas.append(math.log(row[7] / row[9] - 1, 4))
        assert 70 < sum(beta < 1 for beta in betas) < 130
        assert min(betas) >= 0.499
        assert max(betas) == pytest.approx(4, abs=0.2)


class TestRandomResize:
    """Factors and sizes."""

    def test_modes(self):
        frames = clip(2, (50, 60))
        for mode, low, high in (([1, 0, 0], 50, 75), ([0, 1, 0], 15, 50), ([0, 0, 1], 50, 50)):
            degradation = RandomResize(["bilinear", "lanczos"], [0.5, 0.5], None, mode, (0.3, 1.5))
            heights = [degradation(frames, rng(seed))[0].shape[0] for seed in range(30)]
            assert low <= min(heights) <= max(heights) <= high
            assert (low == high) == (len(set(heights)) == 1)

    def test_target(self):
        to_size = RandomResize(["area"], [1.0], (16, 20))
        assert to_size(clip(2), rng())[1].shape == (16, 20, 3)
        assert size_after([to_size], "gt") == (16, 20)
        to_lq = RandomResize(["bicubic"], [1.0], "lq")
        assert to_lq(clip(2), rng(), (10, 12))[1].shape == (10, 12, 3)
        assert size_after([to_lq], "gt") == "lq"
        assert size_after([RandomResize(["area"], [1.0], "lq", prob=0.5)], "gt") is None
        with pytest.raises(OptionsError, match="nobody has said"):
            to_lq(clip(2), rng())

    def test_frames_are_not_lost_in_tiny_sizes(self):
        degradation = RandomResize(["area"], [1.0], None, [0, 1, 0], (0.01, 1), is_size_even=True)
        sizes = [degradation(clip(1, (9, 9)), rng(seed))[0].shape[0] for seed in range(40)]
        assert min(sizes) == 2


class TestRandomNoise:
    """Shared by the channels or not."""

    @pytest.mark.parametrize("kind", ["gaussian", "poisson"])
    def test_gray_noise_is_one_for_all_channels(self, kind):
        ranges: dict[str, Any] = {"gaussian_sigma": (10, 10), "poisson_scale": (3, 3)}
        frames = clip(2)
        for gray in (0.0, 1.0):
            degradation = RandomNoise([kind], [1.0], **ranges, **{f"{kind}_gray_noise_prob": gray})
            noise = degradation(frames, rng())[0] - frames[0]
            assert (np.abs(noise[..., 0] - noise[..., 1]).max() < 1e-4) == bool(gray)

    def test_nothing_is_clipped(self):
        white = [np.full((32, 32, 3), 255, np.float32)]
        assert RandomNoise(["gaussian"], [1.0], (20, 20))(white, rng())[0].max() > 270


class TestRandomVideoCompression:
    """Through an encoder in memory."""

    @pytest.mark.parametrize("codec", degradation_video.CODECS)
    def test_frames_come_back_in_number_and_size_and_worse_for_less_bits(self, codec):
        gray = [frame[..., :1].repeat(3, axis=-1) for frame in clip(12, (96, 128))]  # 4:2:0 costs it nothing
        frames = [frame + rng(t).normal(0, 4, (96, 128, 1)).astype(np.float32) for t, frame in enumerate(gray)]
        errors = []
        for bits in (2_000, 300_000):
            found = RandomVideoCompression([codec], [1.0], (bits, bits))(frames, rng())
            assert [frame.shape for frame in found] == [(96, 128, 3)] * 12
            assert all(frame.dtype == np.float32 for frame in found)
            errors.append(np.mean([np.abs(a - b).mean() for a, b in zip(found, frames, strict=True)]))
        assert errors[1] < 2.5
        assert errors[1] < 0.8 * errors[0]

    def test_every_frame_gets_the_size_of_the_first(self):
        mixed = [*clip(1, (33, 47)), *clip(1, (30, 50)), *clip(1, (2, 2))]
        found = RandomVideoCompression(["libx264"], [1.0], (50_000, 50_000))(mixed, rng())
        assert [frame.shape for frame in found] == [(33, 47, 3)] * 3

    def test_what_is_beyond_white_stays_white(self):
        bright = [np.full((32, 32, 3), 290, np.float32)] * 2
        found = RandomVideoCompression(["mpeg4"], [1.0], (50_000, 50_000))(bright, rng())
        assert min(frame.min() for frame in found) > 245

    @pytest.mark.parametrize("codec", degradation_video.CODECS)
    def test_it_is_the_same_every_time(self, codec):
        found = set()
        for number in range(25):
            memory = [rng(number).integers(0, 256, 90_000, np.uint8) for _ in range(6)]  # what was there before
            del memory
            for size in ((100, 60), (32, 32)):
                frames = RandomVideoCompression([codec], [1.0], (5_000, 6_000))(clip(6, size), rng(4))
                found.add(np.stack(frames).tobytes())
        assert len(found) == 2

    def test_a_missing_encoder_is_told_at_the_start(self, monkeypatch):
        known = av.Codec

        def lacking(name: str, mode: str) -> Any:
            if name == "libx264":
                raise ValueError(name)
            return known(name, mode)

        monkeypatch.setattr(degradation_video.av, "Codec", lacking)
        entry = {"type": "RandomVideoCompression", "codec": ["mpeg4", "libx264"], "codec_prob": [0.5, 0.5]}
        with pytest.raises(OptionsError, match=r"degradations\.0\.codec: .* has no encoder 'libx264'"):
            build_degradations([{**entry, "bitrate": [1e4, 1e5]}])

    @pytest.mark.slow
    def test_thousands_of_clips_leave_nothing_behind(self):
        import resource

        frames = [as_pixels(frame) for frame in clip(6, (64, 80))]

        def run(count: int) -> tuple[int, int]:
            for number in range(count):
                codec = degradation_video.CODECS[number % 3]
                height = 32 + number % 17 * 2
                cut = [np.ascontiguousarray(frame[:height]) for frame in frames]
                assert degradation_video.through_encoder(cut, codec, 20_000)[0].shape == cut[0].shape
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(list(Path("/proc/self/fd").iterdir()))

        before = run(300)
        after = run(3000)
        assert after[0] - before[0] < 20_000  # kilobytes
        assert after[1] == before[1]


class Mark(UnsharpMasking):
    """Writes a number into the next free pixel, so that the order can be read."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def degrade(self, clip: Clip, rng: np.random.Generator, lq_size: Any) -> Clip:
        marked = [frame.copy() for frame in clip]
        for frame in marked:
            row = frame[0, :, 0]
            row[int(np.argmin(row))] = self.number
        return marked


class TestDegradationsWithShuffle:
    """Order."""

    def orders(self, degradations: list[Any], **more: Any) -> set[tuple[int, ...]]:
        shuffled = DegradationsWithShuffle(degradations, **more)
        blank = [np.zeros((1, 3, 3), np.float32)]
        return {tuple(shuffled(blank, rng(seed))[0][0, :, 0].astype(int)) for seed in range(60)}

    def mark(self, number: int) -> dict[str, Any]:
        return {"type": "Mark", "number": number}

    def test_all_orders_occur(self):
        assert len(self.orders([self.mark(1), self.mark(2), self.mark(3)])) == 6

    def test_a_group_keeps_its_order(self):
        assert self.orders([self.mark(1), [self.mark(2), self.mark(3)]]) == {(1, 2, 3), (2, 3, 1)}

    def test_only_some_change_places(self):
        found = self.orders([self.mark(1), self.mark(2), self.mark(3)], shuffle_idx=[0, 2])
        assert found == {(1, 2, 3), (3, 2, 1)}

    def test_sizes_that_it_ends_with(self):
        to_lq = {"type": "RandomResize", "resize_opt": ["area"], "resize_prob": [1.0], "target_size": "lq"}
        fixed = {**to_lq, "target_size": [8, 8]}
        assert size_after([DegradationsWithShuffle([self.mark(1), [to_lq, self.mark(2)]])], "gt") == "lq"
        assert size_after([DegradationsWithShuffle([to_lq, fixed])], "gt") is None


PUBLISHED: list[Any] = [
    {
        "type": "RandomBlur", "kernel_size": [7, 21], "kernel_list": list(KERNELS), "sigma_x": [0.2, 3],
        "kernel_prob": [0.405, 0.225, 0.108, 0.027, 0.108, 0.027, 0.1], "sigma_y": [0.2, 3], "sigma_x_step": 0.02,
    },
    {
        "type": "RandomResize", "resize_mode_prob": [0.2, 0.7, 0.1], "resize_scale": [0.15, 1.5],
        "resize_opt": ["bilinear", "area", "bicubic"], "resize_prob": [0.3333, 0.3333, 0.3334], "resize_step": 0.015,
    },
    {
        "type": "RandomNoise", "noise_type": ["gaussian", "poisson"], "noise_prob": [0.5, 0.5], "prob": 0.9,
        "gaussian_sigma": [1, 30], "poisson_scale": [0.05, 3], "gaussian_gray_noise_prob": 0.4,
    },
    {"type": "RandomJPEGCompression", "quality": [30, 95], "quality_step": 3},
    {
        "type": "DegradationsWithShuffle",
        "degradations": [
            {"type": "RandomVideoCompression", "codec": ["libx264", "mpeg4"], "codec_prob": [0.5, 0.5],
             "bitrate": [1e4, 1e5]},
            [{"type": "RandomResize", "target_size": "lq", "resize_opt": ["area"], "resize_prob": [1]}],
        ],
    },
]  # fmt: skip


def test_a_whole_list_is_a_function_of_the_generator() -> None:
    degradations = build_degradations(PUBLISHED)
    frames = clip(4, (64, 64))
    kept = [frame.copy() for frame in frames]
    made = [np.stack(degrade(frames, degradations, rng(seed), (16, 16))) for seed in (*range(8), *range(8))]
    for first, again in zip(made[:8], made[8:], strict=True):
        np.testing.assert_array_equal(first, again)
    assert len({one.tobytes() for one in made}) == 8
    assert all(one.shape == (4, 16, 16, 3) and np.isfinite(one).all() for one in made)
    for frame, before in zip(frames, kept, strict=True):
        np.testing.assert_array_equal(frame, before)


def test_a_probability_leaves_clips_alone() -> None:
    noise = RandomNoise(["gaussian"], [1.0], (10, 10), prob=0.25)
    frames = clip(1, (4, 4))
    changed = sum(noise(frames, rng(seed)) is not frames for seed in range(400))
    assert 70 < changed < 130
    assert all(RandomNoise(["gaussian"], [1.0], (10, 10), prob=0.0)(frames, rng(seed)) is frames for seed in range(9))


BLUR = {"type": "RandomBlur", "kernel_list": ["iso"], "kernel_prob": [1.0], "kernel_size": [7], "sigma_x": [1, 2]}
SIZE = {"type": "RandomResize", "resize_opt": ["area"], "resize_prob": [1.0]}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({**BLUR, "sigma_x_stp": 1}, r"0\.sigma_x_stp: unknown argument of RandomBlur; did you mean 'sigma_x_step'"),
        ({**BLUR, "type": "RandmBlur"}, r"0\.type: there is no degradation 'RandmBlur'; did you mean 'RandomBlur'"),
        ({**BLUR, "kernel_list": ["anso"]}, r"0\.kernel_list: 'anso' is unknown; did you mean 'aniso'"),
        ({**BLUR, "kernel_prob": [0.5]}, r"0\.kernel_prob: should be 1 probabilities that sum to 1"),
        ({**BLUR, "kernel_size": [8]}, r"0\.kernel_size: should be odd"),
        ({**BLUR, "sigma_x": [3, 1]}, r"0\.sigma_x: should be a range \[low, high\]"),
        ({**BLUR, "sigma_x": [0, 1]}, r"0\.sigma_x: should be a range"),
        ({**BLUR, "kernel_list": ["aniso"]}, r"0\.sigma_y: missing: aniso kernels need it"),
        ({**BLUR, "omega": [1, 4]}, r"0\.omega: should be a range .* to 3\.1416"),
        ({**BLUR, "omega_step": -1}, r"0\.omega_step: a step is 0 or more"),
        ({**BLUR, "prob": 1.5}, r"0\.prob: a probability is from 0 to 1"),
        ({**BLUR, "prob": "often"}, r"0\.prob: should be a number"),
        ({"type": "RandomBlur", "params": {}, "keys": ["lq"]}, r"0\.params: parameters stand beside `type`"),
        (SIZE, r"0\.target_size: missing"),
        ({**SIZE, "target_size": [8, 8], "resize_scale": [1, 2]}, r"0\.target_size: replaces"),
        ({**SIZE, "resize_mode_prob": [1, 0, 0], "resize_scale": [0.1, 0.5]}, r"0\.resize_scale: going up"),
        ({"type": "RandomNoise", "noise_type": ["gausian"], "noise_prob": [1]}, r"did you mean 'gaussian'"),
        ({"type": "RandomNoise", "noise_type": ["poisson"], "noise_prob": [1]}, r"0\.poisson_scale: missing"),
        ({"type": "RandomJPEGCompression", "quality": [30, 195]}, r"0\.quality: should be a range .* to 100"),
        ({"type": "RandomVideoCompression", "codec": ["libx265"], "codec_prob": [1], "bitrate": [1, 2]}, r"0\.codec: "),
        ({"type": "UnsharpMasking", "kernel_size": 50}, r"0\.kernel_size: should be odd"),
        (
            {"type": "DegradationsWithShuffle", "degradations": [[BLUR, {**BLUR, "sigmax": 1}]]},
            r"degradations\.0\.degradations\.0\.1\.sigmax: unknown argument of RandomBlur",
        ),
        ({"type": "DegradationsWithShuffle", "degradations": [BLUR], "shuffle_idx": [1]}, r"0\.shuffle_idx: should be"),
        ("RandomBlur", r"degradations\.0: should be a mapping with a `type`"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_key(entry: Any, words: str) -> None:
    with pytest.raises(OptionsError, match=words) as caught:
        build_degradations([entry])
    assert "\n" not in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(OptionsError) as caught:
        build_degradations([{**BLUR, "sigma_x": [3, 1]}, BLUR, {**SIZE, "resize_pro": [1]}])
    first, second = str(caught.value).splitlines()
    assert first.startswith("degradations.0.sigma_x: ")
    assert second.startswith("degradations.2.resize_pro: ")
