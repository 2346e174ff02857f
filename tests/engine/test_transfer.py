"""Frames that are sent to the device by the thread that decodes: the results are those of frames that are not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deblurkit.engine.pipeline import restore_into
from deblurkit.engine.pixels import to_pixels
from deblurkit.engine.restore import Restorer
from deblurkit.engine.runner import Runner
from deblurkit.image_io import Pixels
from deblurkit.network import Network
from tests.support.networks import ConvWindow, CopyImage, NeighbourClip, RunningMean, SharedWindow
from tests.support.videos import pictures

SMALL_SEGMENTS = {"clip_length": 5, "clip_overlap": 2}


class Clip:
    """Frames, and what becomes of them."""

    def __init__(self, frames: list[Pixels]) -> None:
        self.frames = frames
        self.written: list[Pixels] = []

    def stamped(self) -> Iterator[tuple[Pixels, int]]:
        for number, frame in enumerate(self.frames):
            yield frame, number

    def write(self, pixels: Pixels, stamp: int) -> None:
        assert stamp == len(self.written)
        self.written.append(pixels)


def through_pipeline(restorer: Restorer, frames: list[Pixels]) -> list[Pixels]:
    clip = Clip(frames)
    assert restore_into(restorer, clip, clip) == len(frames)
    return clip.written


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that brought frames to the device."""
    names: list[str] = []
    upload = Runner.upload

    def watched(self: Runner, pixels: Pixels) -> Tensor:
        names.append(threading.current_thread().name)
        return upload(self, pixels)

    monkeypatch.setattr(Runner, "upload", watched)
    return names


@pytest.mark.parametrize("shots", [False, True])
@pytest.mark.parametrize(
    "make",
    [CopyImage, ConvWindow, SharedWindow, lambda: RunningMean(1, 1), NeighbourClip],
    ids=["image", "window", "shared", "stream", "clip"],
)
def test_the_pipeline_gives_what_the_restorer_gives(make: Any, shots: bool, uploads: list[str]) -> None:
    torch.manual_seed(0)
    net: Network = make()
    restorer = Restorer(net, "cpu", shots=shots, **(SMALL_SEGMENTS if net.contract.kind == "clip" else {}))
    frames = [*pictures(14, (21, 34)), *(255 - frame for frame in pictures(9, (21, 34)))]
    expected = [to_pixels(tensor, np.uint8) for _, tensor in restorer.restore_tensors(iter(frames))]
    uploads.clear()
    found = through_pipeline(restorer, frames)
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
    assert uploads.count("decode") >= 20
    assert len(uploads) == len(frames)  # each frame once


def test_pictures_of_several_sizes(uploads: list[str]) -> None:
    frames = [pictures(1, size)[0] for size in [(20, 30), (20, 30), (8, 9), (20, 30), (8, 9), (8, 9)]]
    found = through_pipeline(Restorer(CopyImage(), "cpu"), frames)
    assert all(np.array_equal(a, b) for a, b in zip(frames, found, strict=True))


def test_no_room_for_a_frame_that_is_sent_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that restores tries it again."""
    upload, refused = Runner.upload, 0

    def scarce(self: Runner, pixels: Pixels) -> Tensor:
        nonlocal refused
        if threading.current_thread().name == "decode":
            refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return upload(self, pixels)

    monkeypatch.setattr(Runner, "upload", scarce)
    frames = pictures(20, (21, 34))
    found = through_pipeline(Restorer(CopyImage(), "cpu"), frames)
    assert all(np.array_equal(a, b) for a, b in zip(frames, found, strict=True))
    assert refused > 0


def test_other_errors_on_the_way_to_the_device_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    upload = Runner.upload

    def broken(self: Runner, pixels: Pixels) -> Tensor:
        if threading.current_thread().name == "decode":
            raise RuntimeError("the device is gone")
        return upload(self, pixels)

    monkeypatch.setattr(Runner, "upload", broken)
    with pytest.raises(RuntimeError, match="the device is gone"):
        through_pipeline(Restorer(CopyImage(), "cpu"), pictures(20, (21, 34)))


@pytest.mark.parametrize("at", [1, 6])
def test_frames_that_were_sent_whole_before_tiles_were_needed(at: int) -> None:
    torch.manual_seed(0)
    frames = pictures(12, (70, 300))

    class Scarce(ConvWindow):
        calls = 0

        def run(self, x: Tensor) -> dict[str, Tensor]:
            self.calls += not x.is_meta
            if self.calls >= at and x.shape[-1] == 300 and not x.is_meta:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().run(x)

    net = Scarce()
    net.calls = -(10**9)
    expected = [tensor for _, tensor in Restorer(net, "cpu").restore_tensors(iter(frames))]
    net.calls = 0
    found = through_pipeline(Restorer(net, "cpu", tile="auto"), frames)
    for tensor, pixels in zip(expected, found, strict=True):
        assert np.abs(to_pixels(tensor, np.uint8).astype(int) - pixels).max() <= 1


def test_the_next_segment_is_decoded_while_one_is_restored() -> None:
    """And the results of one are taken from the network while the next is restored."""
    read, last = 0, 40

    class Waits(NeighbourClip):
        calls = 0

        def run(self, x: Tensor) -> dict[str, Tensor]:
            # a segment of 12 frames gives 8 new ones; 3 more may wait
            enough = min(12 + 8 * self.calls + 8, last)
            deadline = time.monotonic() + 20
            while read < enough and time.monotonic() < deadline:
                time.sleep(0.01)
            assert read >= enough
            Waits.calls += 1
            return super().run(x)

    class Counted(Clip):
        def stamped(self) -> Iterator[tuple[Pixels, int]]:
            nonlocal read
            for item in super().stamped():
                read += 1
                yield item

        def write(self, pixels: Pixels, stamp: int) -> None:
            if stamp == 0:  # all of the first segment is given away while this waits for the second one to begin
                deadline = time.monotonic() + 20
                while Waits.calls < 2 and time.monotonic() < deadline:
                    time.sleep(0.01)
                assert Waits.calls >= 2
            super().write(pixels, stamp)

    clip = Counted(pictures(last, (21, 34)))
    assert restore_into(Restorer(Waits(), "cpu", clip_length=12, clip_overlap=2), clip, clip) == last
    assert Waits.calls == 5
