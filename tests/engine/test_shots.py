"""Changes of shot are found, what looks like them is not, and nothing reaches across them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deblurkit.engine.restore import Restorer
from deblurkit.engine.shots import Sketch, difference, find_cuts, left_after_motion, mark_cuts, split_shots
from deblurkit.errors import DataError
from deblurkit.network import Network
from tests.support.networks import ConvWindow, CopyImage, NeighbourClip, RunningMean, SharedWindow
from tests.support.videos import pictures

Pixels = NDArray[Any]


def scene(seed: int, size: tuple[int, int] = (96, 480)) -> Pixels:
    """A picture like a photo: structure of all sizes, a colour of its own, darker towards one side."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((*size, 3))
    for level in (2, 4, 8, 16, 32):
        noise = rng.normal(size=(level, 3 * level, 3)).astype(np.float32)
        picture += cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC) / np.sqrt(level)
    tint, ramp = rng.uniform(60, 190, 3), np.linspace(-40, 40, size[0])[:, None, None]
    return np.clip(tint + 45 * picture + ramp, 0, 255).astype(np.uint8)


def shot(seed: int, count: int, speed: int = 2, start: int = 0) -> list[Pixels]:
    """A pan over a scene, with noise."""
    rng = np.random.default_rng(seed)
    picture = scene(seed)
    frames = [picture[:, start + speed * t : start + speed * t + 160] for t in range(count)]
    return [np.clip(frame + rng.normal(0, 4, frame.shape), 0, 255).astype(np.uint8) for frame in frames]


def test_every_cut_is_found_where_it_is() -> None:
    lengths = [10, 25, 7, 12, 5, 18, 4, 30]
    for first in range(0, 40, 8):
        frames = [f for i, n in enumerate(lengths) for f in shot(first + i, n)]
        assert find_cuts(iter(frames)) == list(np.cumsum(lengths)[:-1]), first


def test_sixteen_bits_and_small_frames_and_floats() -> None:
    frames = [*shot(0, 8), *shot(1, 8)]
    assert find_cuts([f.astype(np.uint16) * 257 for f in frames]) == [8]
    assert find_cuts([f.astype(np.float32) / 255 for f in frames]) == [8]
    assert find_cuts([cv2.resize(f, (20, 12), interpolation=cv2.INTER_AREA) for f in frames]) == [8]
    assert find_cuts([cv2.resize(f, (1600, 900)) for f in frames]) == [8]


@pytest.mark.parametrize("speed", [4, 10, 20, 32])
def test_fast_pans_are_no_cuts(speed: int) -> None:
    for seed in range(8):
        count = min(320 // speed, 20)
        pan = shot(seed, count, speed)
        assert find_cuts([*[pan[0]] * 5, *pan, *[pan[-1]] * 5]) == []


@pytest.mark.parametrize("length", [1, 2])
def test_flashes_are_no_cuts(length: int) -> None:
    for seed in range(8):
        frames = shot(seed, 24)
        for t in range(10, 10 + length):
            frames[t] = np.clip(frames[t].astype(int) * 2 + 90, 0, 255).astype(np.uint8)
        for t in range(18, 18 + length):
            frames[t] = np.full_like(frames[t], 250)
        assert find_cuts(frames) == []


def test_changes_of_light_and_fades_are_no_cuts() -> None:
    for seed in range(8):
        frames = shot(seed, 24)
        dimmed = [frame if t < 12 else (frame * 0.4).astype(np.uint8) for t, frame in enumerate(frames)]
        faded = [(frame * max(1 - t / 20, 0)).astype(np.uint8) for t, frame in enumerate(frames)]
        assert find_cuts(dimmed) == find_cuts(faded) == []


def test_still_and_black_pictures_are_no_cuts() -> None:
    black = np.zeros((90, 160, 3), np.uint8)
    assert find_cuts([black] * 9) == find_cuts([scene(1)] * 9) == find_cuts([black]) == find_cuts([]) == []
    noise = [np.clip(f + np.random.default_rng(i).normal(0, 3, f.shape), 0, 255).astype(np.uint8)
             for i, f in enumerate([black] * 12)]  # fmt: skip
    assert find_cuts(noise) == []


def moving_crowd(count: int, start: int) -> list[Pixels]:
    """A still background before which patches of the same colours move, each its own way."""
    rng = np.random.default_rng(7)
    picture = scene(3)[:, :160]
    paths = [(rng.uniform(0, 70, 2), rng.uniform(-0.4, 0.4, 2), scene(50 + i)[20:56, 40:90]) for i in range(5)]
    frames = []
    for t in range(start, start + count):
        frame = picture.copy()
        for place, speed, patch in paths:
            tint = patch.mean((0, 1)) - picture.mean((0, 1))
            y, x = (np.abs((place + speed * t + 60) % 120 - 60)).astype(int)
            frame[y : y + 36, x : x + 50] = np.clip(patch - tint, 0, 255)
        frames.append(np.clip(frame + rng.normal(0, 2, frame.shape), 0, 255).astype(np.uint8))
    return frames


def test_cuts_within_a_scene_are_found_where_it_is_seen_to_jump() -> None:
    assert find_cuts(moving_crowd(24, 0)) == []
    for left_out in (60, 90, 120):
        frames = [*moving_crowd(12, 0), *moving_crowd(12, 12 + left_out)]
        assert find_cuts(frames) == [12]
        assert find_cuts([f.astype(np.uint16) * 257 for f in frames]) == [12]


def test_what_is_left_after_motion_is_small_for_one_scene_and_large_for_two() -> None:
    still, moved, dark = scene(0)[:, :160], scene(0)[:, 6:166], (scene(0)[:, :160] * 0.4).astype(np.uint8)
    same = [left_after_motion(Sketch(still), Sketch(np.ascontiguousarray(other))) for other in (still, moved, dark)]
    other = left_after_motion(Sketch(still), Sketch(np.ascontiguousarray(scene(1)[:, :160])))
    assert same[0] < 1e-3
    assert max(same) < 0.2 < other


def test_frames_pass_in_order_two_behind() -> None:
    frames = [*shot(0, 6), *shot(1, 6)]
    read = 0

    def source() -> Iterator[Pixels]:
        nonlocal read
        for frame in frames:
            read += 1
            yield frame

    for number, (frame, cut) in enumerate(mark_cuts(source())):
        assert frame is frames[number]
        assert cut == (number == 6)
        assert read == min(number + 3, 12)


def test_shots_can_be_left_early_and_cuts_can_be_given() -> None:
    frames = [*shot(0, 6), *shot(1, 6), *shot(2, 6)]
    assert [(first, len(list(part))) for first, part in split_shots(mark_cuts(frames))] == [(0, 6), (6, 6), (12, 6)]
    assert [(first, next(part) is frames[first]) for first, part in split_shots(mark_cuts(frames))] == [
        (0, True),
        (6, True),
        (12, True),
    ]
    assert [(first, len(list(part))) for first, part in split_shots(mark_cuts(frames, {0, 2, 3}))] == [
        (0, 2),
        (2, 1),
        (3, 15),
    ]


def test_the_difference_is_symmetric_and_zero_for_equal_frames() -> None:
    a, b = Sketch(scene(0)), Sketch(scene(1))
    assert difference(a, a) == pytest.approx(0, abs=1e-9)
    assert difference(a, b) == pytest.approx(difference(b, a))
    assert difference(a, b) > 0.1


@pytest.mark.parametrize(
    "make",
    [lambda: ConvWindow(5, 2), SharedWindow, lambda: RunningMean(1, 2), NeighbourClip],
    ids=["window", "shared", "stream", "clip"],
)
def test_nothing_reaches_across_a_cut(make: Any) -> None:
    torch.manual_seed(0)
    net: Network = make()
    parts = [shot(0, 9), shot(1, 4), shot(2, 12)]
    frames = [frame for part in parts for frame in part]
    settings: dict[str, Any] = {"device": "cpu", "clip_length": 6, "clip_overlap": 1}
    alone = [t for part in parts for _, t in Restorer(net, **settings).restore_tensors(part)]
    for shots in (True, [9, 13]):
        found = list(Restorer(net, **settings, shots=shots).restore_tensors(iter(frames)))
        assert [position for position, _ in found] == list(range(25))
        assert all(torch.equal(a, b) for a, (_, b) in zip(alone, found, strict=True))
    through = [t for _, t in Restorer(net, **settings).restore_tensors(frames)]
    assert (through[9] - alone[9]).abs().max() > 0.01
    for targets in ([3, 8, 9], [24], [12, 13]):
        some = dict(Restorer(net, **settings, shots=True).restore_tensors(iter(frames), targets))
        assert list(some) == targets
        assert all(torch.equal(some[position], alone[position]) for position in targets)
    with pytest.raises(DataError, match="frame 25 is to be restored, but there are only 25"):
        list(Restorer(net, **settings, shots=True).restore_tensors(frames, [25]))


def test_pictures_have_no_shots() -> None:
    frames = [pictures(1, size)[0] for size in ((16, 20), (8, 40), (16, 20))]
    out = list(Restorer(CopyImage(), device="cpu", shots=True).restore(frames))
    assert all(np.array_equal(a, b) for a, b in zip(frames, out, strict=True))
