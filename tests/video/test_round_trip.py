"""Random small videos through `infer` with a network that copies: everything that came in comes out."""

from __future__ import annotations

import random
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from deblurkit.engine.infer import Encoding, infer
from deblurkit.engine.restore import Restorer
from deblurkit.video.reader import VideoReader
from tests.support.networks import CopyImage, CopyWindow
from tests.support.videos import copied_packets, pictures, rotate, write_video


@dataclass(frozen=True)
class Case:
    """A random video, as the arguments of `write_video`."""

    suffix: str
    frames: int
    size: tuple[int, int]
    settings: dict[str, Any]
    turned: int
    dtype: Any


def draw(seed: int) -> Case:
    rng = random.Random(seed)
    suffix = rng.choice([".mp4", ".mp4", ".mov", ".mkv", ".mkv", ".webm"])
    frames = rng.choice([1, 2, 3, rng.randint(4, 40)])
    deep = suffix == ".mkv" and rng.random() < 0.3
    codec = {".webm": "libvpx"}.get(suffix) or ("ffv1" if deep else rng.choice(["libx264", "libx264", "mpeg4"]))
    chroma = "yuv420p10le" if deep else rng.choice(["yuv420p", "yuv444p"]) if codec == "libx264" else "yuv420p"
    even = 2 if codec == "libx264" and chroma == "yuv420p" else 1
    size = tuple(rng.randint(16, 70) // even * even for _ in range(2))
    base = rng.choice([Fraction(1, 12800), Fraction(1, 90000), Fraction(1, 30000)])
    if suffix in (".mkv", ".webm"):
        base = Fraction(1, 1000)
    step = max(round(1 / (rng.choice([25, 30, 24, 60]) * base)), 1)
    times = [index * step for index in range(frames)]
    if rng.random() < 0.5:  # variable frame rate
        times = [sum(gaps) for gaps in (times[:1],)] + np.cumsum(
            [rng.choice([step, step, 2 * step, rng.randint(step // 2 + 1, 7 * step)]) for _ in range(frames - 1)]
        ).tolist()  # fmt: skip
    if codec == "mpeg4":  # its clock has 16 bits
        base, times = Fraction(1, 25), [round(time * base * 25) for time in times]
        times = [max(time, index) for index, time in enumerate(np.maximum.accumulate(times).tolist())]
        times = [time + index for index, time in enumerate(times)]
    sounds = {".mp4": ["aac"], ".mov": ["aac", "pcm_s16le"], ".mkv": ["aac", "flac"], ".webm": ["libopus"]}
    settings: dict[str, Any] = {"codec": codec, "pixel_format": chroma, "times": times, "time_base": base}
    settings["audio"] = rng.choice([None, *sounds[suffix]])
    if suffix == ".mkv" and rng.random() < 0.5:
        settings["subtitles"] = [(0, "first"), (200, "second")]
    if rng.random() < 0.3:
        settings["chapters"] = [(0, 100, "one"), (100, 400, "two")]
    if rng.random() < 0.5:
        settings["metadata"] = {"title": f"video {seed}"}
    turned = rng.choice([0, 90, 180, 270]) if suffix in (".mp4", ".mov") else 0
    return Case(suffix, frames, (size[0], size[1]), settings, turned, np.uint16 if deep else np.uint8)


def streams(path: Path) -> list[tuple[str, str]]:
    """Type and format of every stream but the first video; chapters of a MOV count as chapters."""
    with av.open(str(path)) as container:
        others = [s for s in container.streams if s is not container.streams.video[0] and s.type != "data"]
        return [(stream.type, stream.codec_context.codec.canonical_name) for stream in others]


def check(tmp_path: Path, seed: int) -> None:
    case = draw(seed)
    source = write_video(tmp_path / f"a{case.suffix}", pictures(case.frames, case.size, case.dtype), **case.settings)
    if case.turned:
        rotate(source, case.turned)
    before = VideoReader(source)
    frames = list(before.stamped())
    assert len(frames) == case.frames
    network = CopyImage() if seed % 2 else CopyWindow()
    for lossless in (True, False):
        [result] = infer(Restorer(network, device="cpu"), [str(source)], encoding=Encoding(lossless=lossless))
        after = VideoReader(result)
        restored = list(after.stamped())
        assert after.length == len(restored) == case.frames
        tick = max(before.time_base, after.time_base)
        for (_, timing), (_, again) in zip(frames, restored, strict=True):
            late = abs(again.pts * after.time_base - timing.pts * before.time_base)
            assert late <= (0 if before.time_base == after.time_base else tick / 2)
        if lossless:
            np.testing.assert_array_equal([pixels for pixels, _ in restored], [pixels for pixels, _ in frames])
        assert (after.width, after.height, after.depth > 8) == (before.width, before.height, before.depth > 8)
        assert streams(result) == streams(source)
        for old, new in zip(copied_packets(source), copied_packets(result), strict=True):
            assert [content for _, content in new] == [content for _, content in old]
            assert np.abs(np.array([time for time, _ in new]) - [time for time, _ in old]).max() < 0.0021
        with av.open(str(source)) as a, av.open(str(result)) as b:
            assert [c["metadata"] for c in b.chapters()] == [c["metadata"] for c in a.chapters()]
            assert b.metadata.get("title") == a.metadata.get("title")
        result.unlink()


@pytest.mark.parametrize("seed", range(25))
def test_everything_that_came_in_comes_out(tmp_path: Path, seed: int) -> None:
    check(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25, 400))
def test_everything_that_came_in_comes_out_of_many(tmp_path: Path, seed: int) -> None:
    check(tmp_path, seed)
