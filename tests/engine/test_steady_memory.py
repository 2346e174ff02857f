"""Tensors take no more room for a long video than for a short one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from deblurkit.engine.memory import PeakMemory
from deblurkit.engine.restore import Restorer
from tests.support.networks import ConvWindow, CopyImage, NeighbourClip, RunningMean, SharedWindow
from tests.support.videos import pictures


@pytest.mark.parametrize("tile", [0, 16])
@pytest.mark.parametrize(
    "make",
    [CopyImage, ConvWindow, SharedWindow, lambda: RunningMean(1, 1), lambda: NeighbourClip(reach=2)],
    ids=["image", "window", "shared", "stream", "clip"],
)
def test_tensors_of_long_videos(make: Any, tile: int) -> None:
    def frames(count: int) -> Iterator[Any]:
        for _ in range(count):
            yield frame.copy()

    frame = pictures(1, (24, 40))[0]
    peaks = []
    for count in (20, 60, 59):
        restorer = Restorer(make(), device="cpu", tile=tile, clip_length=9, clip_overlap=2)
        with PeakMemory() as tracker:
            for _, restored in restorer.restore_tensors(frames(count)):
                assert restored.untyped_storage().nbytes() <= 2 * restored.nbytes  # (padding); not its segment's
                del restored
        peaks.append(tracker.peak)
    assert max(peaks) <= 1.05 * min(peaks)  # the last segment may give more frames than those before it
