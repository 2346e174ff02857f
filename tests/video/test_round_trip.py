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


#: (codec, pixel format) of sources by container; a codec that occurs twice is drawn twice as often.
SOURCES = {
    ".mp4": [("libx264", "yuv420p"), ("libx264", "yuv444p"), ("mpeg4", "yuv420p"), ("libx264", "yuv420p10le"),
             ("libx264", "yuv422p"), ("libx265", "yuv420p10le"), ("libvpx-vp9", "yuv420p")],
    ".mov": [("libx264", "yuv420p"), ("mpeg4", "yuv420p"), ("prores_ks", "yuv422p10le"), ("png", "rgb24")],
    ".mkv": [("libx264", "yuv420p"), ("libx264", "yuv444p"), ("ffv1", "yuv420p10le"), ("ffv1", "yuv444p12le"),
             ("ffv1", "gbrp16le"), ("ffv1", "bgr0"), ("mpeg4", "yuv420p"), ("mjpeg", "yuvj420p")],
    ".webm": [("libvpx", "yuv420p"), ("libvpx-vp9", "yuv444p")],
    ".ts": [("libx264", "yuv420p"), ("mpeg2video", "yuv420p")],
    ".flv": [("libx264", "yuv420p")],
}  # fmt: skip

SOUNDS = {".mp4": ["aac", "mp2"], ".mov": ["aac", "pcm_s16le", "pcm_s24le"], ".mkv": ["aac", "flac", "libopus"],
          ".webm": ["libopus"], ".ts": ["mp2", "ac3"], ".flv": ["aac"]}  # fmt: skip


def draw(seed: int) -> Case:
    rng = random.Random(seed)
    suffix = rng.choice([".mp4", ".mp4", ".mov", ".mkv", ".mkv", ".webm", ".ts", ".flv"])
    codec, chroma = rng.choice(SOURCES[suffix])
    frames = rng.choice([1, 2, 3, rng.randint(4, 40)])
    if (
        suffix == ".ts" or codec == "libx265"
    ):  # libav does not know so short a .ts; x265's own decode times of few are wrong
        frames = rng.randint(8, 40)
    deep = chroma.endswith("le")
    even = 2 if codec in ("libx264", "libx265", "prores_ks") and "444" not in chroma else 1
    least = 64 if codec == "libx265" else 16
    size = tuple(rng.randint(least, least + 54) // even * even for _ in range(2))
    base = rng.choice([Fraction(1, 12800), Fraction(1, 90000), Fraction(1, 30000)])
    if suffix in (".mkv", ".webm", ".flv"):
        base = Fraction(1, 1000)
    if suffix == ".ts":
        base = Fraction(1, 90000)
    step = max(round(1 / (rng.choice([25, 30, 24, 60]) * base)), 1)
    times = [index * step for index in range(frames)]
    if rng.random() < 0.5:  # variable frame rate
        times = [sum(gaps) for gaps in (times[:1],)] + np.cumsum(
            [rng.choice([step, step, 2 * step, rng.randint(step // 2 + 1, 7 * step)]) for _ in range(frames - 1)]
        ).tolist()  # fmt: skip
    if suffix in (".mp4", ".mov", ".mkv") and rng.random() < 0.25:  # the picture begins later than the sound
        late = rng.randint(1, 4 * step)
        times = [time + late for time in times]
    if codec in ("mpeg4", "mpeg2video"):  # its clock has 16 bits
        base, times = Fraction(1, 25), [round(time * base * 25) for time in times]
        times = [max(time, index) for index, time in enumerate(np.maximum.accumulate(times).tolist())]
        times = [time + index for index, time in enumerate(times)]
    settings: dict[str, Any] = {"codec": codec, "pixel_format": chroma, "times": times, "time_base": base}
    settings["audio"] = rng.choice([None, *SOUNDS[suffix]])
    if settings["audio"] and suffix != ".flv" and rng.random() < 0.4:
        settings["more_audio"], settings["language"] = [rng.choice(SOUNDS[suffix])], ["deu", "eng"]
    if rng.random() < 0.3 and codec in ("libx264", "libx265"):
        primaries, transfer, matrix = rng.choice([(1, 1, 1), (5, 6, 6), (9, 14, 9)])
        settings["tags"] = {"color_primaries": primaries, "color_trc": transfer, "colorspace": matrix,
                            "color_range": rng.choice([1, 2])}  # fmt: skip
    if suffix == ".mkv" and rng.random() < 0.5:
        settings["subtitles"] = [(0, "first"), (200, "second")]
    if rng.random() < 0.3:
        settings["chapters"] = [(0, 100, "one"), (100, 400, "two")]
    if rng.random() < 0.5:
        settings["metadata"] = {"title": f"video {seed}"}
    turned = rng.choice([0, 90, 180, 270]) if suffix in (".mp4", ".mov") else 0
    return Case(suffix, frames, (size[0], size[1]), settings, turned, np.uint16 if deep else np.uint8)


def languages(path: Path) -> list[str | None]:
    with av.open(str(path)) as container:
        return [stream.metadata.get("language", "und") for stream in container.streams.audio]


def streams(path: Path) -> list[tuple[str, str]]:
    """Type and format of every stream but the first video; chapters of a MOV count as chapters."""
    with av.open(str(path)) as container:
        others = [s for s in container.streams if s is not container.streams.video[0] and s.type != "data"]
        names = [(stream.type, stream.codec_context.codec.canonical_name) for stream in others]
        return [(kind, {"mp2": "mp3"}.get(name, name)) for kind, name in names]  # MP4 has one number for both


def check(tmp_path: Path, seed: int) -> None:
    case = draw(seed)
    source = write_video(tmp_path / f"a{case.suffix}", pictures(case.frames, case.size, case.dtype), **case.settings)
    if case.turned:
        rotate(source, case.turned)
    before = VideoReader(source)
    frames = list(before.stamped())
    assert len(frames) == case.frames
    # broadcast clocks start anywhere: sound and pictures are compared with the first picture
    starts = case.suffix == ".ts"
    origin = frames[0][1].pts * before.time_base if starts else Fraction(0)
    network = CopyImage() if seed % 2 else CopyWindow()
    for lossless in (True, False):
        [result] = infer(Restorer(network, device="cpu"), [str(source)], encoding=Encoding(lossless=lossless))
        after = VideoReader(result)
        restored = list(after.stamped())
        assert after.length == len(restored) == case.frames
        tick = max(before.time_base, after.time_base)
        start = restored[0][1].pts * after.time_base if starts else Fraction(0)
        for (_, timing), (_, again) in zip(frames, restored, strict=True):
            late = abs(again.pts * after.time_base - start - (timing.pts * before.time_base - origin))
            assert late <= (0 if before.time_base == after.time_base else tick if starts else tick / 2)
        if lossless:
            np.testing.assert_array_equal([pixels for pixels, _ in restored], [pixels for pixels, _ in frames])
        assert (after.width, after.height, after.depth > 8) == (before.width, before.height, before.depth > 8)
        assert streams(result) == streams(source)
        for old, new in zip(copied_packets(source), copied_packets(result), strict=True):
            assert [content for _, content in new] == [content for _, content in old]
            moved = np.array([time for time, _ in new]) - [time for time, _ in old]
            assert np.abs(moved - float(start - origin)).max() < 0.0021
        assert languages(result) == languages(source)
        with av.open(str(source)) as a, av.open(str(result)) as b:
            assert [c["metadata"] for c in b.chapters()] == [c["metadata"] for c in a.chapters()]
            for key in ("title", "service_name"):
                assert b.metadata.get(key) == a.metadata.get(key) or case.suffix == ".ts"
        result.unlink()


@pytest.mark.parametrize("seed", range(25))
def test_everything_that_came_in_comes_out(tmp_path: Path, seed: int) -> None:
    check(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25, 400))
def test_everything_that_came_in_comes_out_of_many(tmp_path: Path, seed: int) -> None:
    check(tmp_path, seed)
