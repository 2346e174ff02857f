"""Frames between frames: exact numbers, true frames untouched, better than a mean where something moves."""

from __future__ import annotations

import numpy as np
import pytest

from deblurkit.data.frame_interpolation import InterpolatedSource
from deblurkit.errors import DataError
from deblurkit.image_io import Pixels, cv2
from deblurkit.video.source import SequenceSource


def source(frames: list[Pixels]) -> SequenceSource:
    return SequenceSource("clip", [lambda frame=frame: frame for frame in frames])


def moving(count: int, step: int = 4, dtype: type = np.uint8) -> list[Pixels]:
    """A texture that moves to the left, with a square before it that moves to the right."""
    module = cv2()
    rng = np.random.default_rng(0)
    small = rng.integers(20, 235, (24, 40, 3), dtype=np.uint8)
    texture = module.resize(small, (320, 96), interpolation=module.INTER_CUBIC)
    thing = module.resize(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8), (32, 32), interpolation=module.INTER_CUBIC)
    frames = []
    for i in range(count):
        frame = texture[:, step * i : step * i + 160].copy()
        frame[30:62, 20 + step * i : 52 + step * i] = thing
        frames.append(frame if dtype == np.uint8 else frame.astype(np.uint16) * 257)
    return frames


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_numbers_and_true_frames(times: int, dtype: type) -> None:
    frames = moving(3, dtype=dtype)
    made = InterpolatedSource(source(frames), times)
    found = list(made)
    assert made.length == len(found) == 2 * times + 1
    for frame, there in zip(frames, found[::times], strict=True):
        np.testing.assert_array_equal(frame, there)
    assert {frame.dtype for frame in found} == {np.dtype(dtype)}


def test_what_moves_is_found_between() -> None:
    frames = moving(9, step=2)
    made = list(InterpolatedSource(source(frames[::2]), 2))
    assert len(made) == len(frames)
    for i in range(1, 9, 2):
        missed = np.abs(made[i].astype(float) - frames[i])[:, 12:-12]
        of_mean = np.abs((frames[i - 1].astype(float) + frames[i + 1]) / 2 - frames[i])[:, 12:-12]
        assert missed.mean() < 0.35 * of_mean.mean()


def test_what_stands_still_stays() -> None:
    frame = moving(1)[0]
    for between in InterpolatedSource(source([frame, frame]), 4):
        np.testing.assert_allclose(between.astype(int), frame, atol=1)


def test_tiny_frames_and_short_sources() -> None:
    tiny = [np.full((3, 5, 3), value, np.uint8) for value in (10, 30)]
    assert [int(frame.mean()) for frame in InterpolatedSource(source(tiny), 2)] == [10, 20, 30]
    assert list(InterpolatedSource(source([]), 3)) == []
    assert len(list(InterpolatedSource(source(tiny[:1]), 3))) == 1


def test_mistakes() -> None:
    for times in (0, 65):
        with pytest.raises(DataError, match="64 times as many at most"):
            InterpolatedSource(source([]), times)
    frames = [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)]
    with pytest.raises(DataError, match="frame 1 has another size"):
        list(InterpolatedSource(source(frames), 2))
