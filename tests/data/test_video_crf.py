"""Compression in memory: as many frames as before, the worse the higher the number, the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from deblurkit.data.video_crf import compress
from deblurkit.errors import DataError
from deblurkit.image_io import Pixels, cv2


def clip(height: int, width: int, count: int = 6) -> list[Pixels]:
    module = cv2()
    texture = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    whole = module.resize(texture, (width + 20, height + 20), interpolation=module.INTER_CUBIC)
    return [np.ascontiguousarray(whole[i : i + height, 2 * i : 2 * i + width]) for i in range(count)]


def psnr(one: Pixels, other: Pixels) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 48)])
def test_frames_come_out_in_order_and_at_their_size(size: tuple[int, int]) -> None:
    frames = clip(*size)
    made = list(compress(frames, 12))
    assert [frame.shape for frame in made] == [frame.shape for frame in frames]
    for frame, before in zip(made, frames, strict=True):
        assert frame.dtype == np.uint8
        assert psnr(frame, before) > 22  # colours are halved


def test_quality_and_repetition() -> None:
    frames = clip(64, 96)
    figures = [np.mean([psnr(a, b) for a, b in zip(compress(frames, crf), frames, strict=True)]) for crf in (8, 28, 44)]
    assert figures[0] > figures[1] + 3 > figures[2] + 6
    np.testing.assert_array_equal(list(compress(frames, 28)), list(compress(frames, 28)))


def test_edges() -> None:
    assert list(compress([], 20)) == []
    frame = clip(48, 48, 1)
    assert len(list(compress(frame, 20))) == 1
    deep = [picture.astype(np.uint16) * 257 for picture in frame]
    np.testing.assert_array_equal(list(compress(deep, 20)), list(compress(frame, 20)))
    for crf in (-1, 52):
        with pytest.raises(DataError, match="from 0 \\(best\\) to 51"):
            list(compress(frame, crf))
