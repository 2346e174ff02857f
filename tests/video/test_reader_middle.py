"""Reading a video from its middle: the frames, times and numbers are those of reading from the beginning."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from deblurkit.errors import VideoError
from deblurkit.video.index import Entry
from deblurkit.video.reader import VideoReader
from tests.support.videos import pictures, write_video

OPEN_GOP = {"preset": "fast", "x264-params": "keyint=12:bframes=3:b-pyramid=normal:ref=4:open-gop=1"}
CRA = {"preset": "fast", "x265-params": "keyint=12:min-keyint=12:bframes=3:open-gop=1:log-level=none"}
ALT_REF = {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "cpu-used": "5"}
IRREGULAR = [i * 700 + (523 * i * i) % 600 for i in range(40)]

VIDEOS: dict[str, dict[str, Any]] = {
    "closed.mp4": {"options": {"preset": "fast", "g": "12", "bf": "3"}},
    "open.mp4": {"options": OPEN_GOP},
    "open.mkv": {"options": OPEN_GOP},
    "open.ts": {"options": OPEN_GOP},
    "open.flv": {"options": OPEN_GOP},
    "cra.mp4": {"codec": "libx265", "options": CRA},
    "cra.mkv": {"codec": "libx265", "options": CRA},
    "variable.mp4": {"options": OPEN_GOP, "times": IRREGULAR},
    "variable.mkv": {"options": OPEN_GOP, "times": IRREGULAR},
    "refresh.mp4": {"options": {"preset": "fast", "x264-params": "keyint=12:bframes=0:intra-refresh=1"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}, "time_base": Fraction(1, 25)},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}, "time_base": Fraction(1, 25)},
    "wmv.asf": {"codec": "wmv2", "options": {"g": "12"}, "time_base": Fraction(1, 25)},
    "altref.webm": {"codec": "libvpx-vp9", "options": ALT_REF},
    "lossless.mkv": {"codec": "ffv1", "pixel_format": "bgr0"},
    "gif.gif": {"codec": "gif", "pixel_format": "rgb8", "time_base": Fraction(1, 25)},
}  # fmt: skip


class Watched(VideoReader):
    """Remembers where decoding began, and how many frames were decoded."""

    def _decode(self, container: Any, entry: Entry | None = None) -> Any:
        self.began = [*getattr(self, "began", []), 0 if entry is None else entry.position]
        self.decoded = 0
        for frame in super()._decode(container, entry):
            self.decoded += 1
            yield frame


def assert_as_from_the_beginning(path: Path, starts: range) -> list[list[int]]:
    """Where decoding began for each start; twice where it began anew at the beginning."""
    whole = list(VideoReader(path).stamped())
    reader = Watched(path)
    began = []
    for start in starts:
        reader.began = []
        found = list(reader.stamped(start))
        assert len(found) == max(len(whole) - start, 0), start
        for (pixels, timing), (expected, expected_timing) in zip(found, whole[start:], strict=True):
            np.testing.assert_array_equal(pixels, expected)
            assert timing == expected_timing
        began.append(reader.began)
    return began


def make(folder: Path, name: str) -> Path:
    settings = dict(VIDEOS[name])
    return write_video(folder / name, pictures(40, (48, 64), seed=3), **settings)


@pytest.mark.parametrize("name", VIDEOS)
def test_every_start_gives_what_the_beginning_gives(name: str, tmp_path: Path) -> None:
    began = assert_as_from_the_beginning(make(tmp_path, name), range(42))
    if name in ("gif.gif", "wmv.asf"):  # painted over the frame before; durations depend on where reading begins
        assert set(map(tuple, began)) == {(0,)}
    elif name == "refresh.mp4":  # the picture is whole some frames after the place where decoding can begin
        assert any(place[0] > 0 for place in began)
    else:
        assert sum(len(place) == 1 and place[0] > 0 for place in began) >= 16
        assert all(place[0] <= start for start, place in enumerate(began))
        assert began[40:] == [[0], [0]]  # there are 40 frames


@pytest.mark.slow
def test_any_encoding_of_any_length(tmp_path: Path) -> None:
    rng = random.Random(0)
    for number in range(60):
        name = rng.choice(
            [name for name in VIDEOS if name.split(".")[0] in ("closed", "open", "cra", "mpeg4", "altref")]
        )
        settings = dict(VIDEOS[name])
        count, key, between = rng.randint(1, 60), rng.randint(2, 25), rng.randint(0, 4)
        options = dict(settings["options"])
        for kind in ("x264-params", "x265-params"):
            if kind in options:
                options[kind] = f"keyint={key}:min-keyint=1:bframes={between}:open-gop={rng.randint(0, 1)}:log-level=0"
        if "g" in options:
            options["g"] = str(key)
        settings["options"] = options
        if name.endswith((".mp4", ".mkv", ".webm")) and rng.random() < 0.5:
            step = 0
            settings["times"] = [step := step + rng.randint(300, 1500) for _ in range(count)]
            settings.pop("time_base", None)
        path = tmp_path / f"{number}_{name}"
        write_video(path, pictures(count, (48, 64), seed=number), **settings)
        assert_as_from_the_beginning(path, range(0, count + 2, rng.randint(1, 3)))


def with_edit(path: Path, skip: int) -> Path:
    """Let the video track of an MP4 begin `skip` units later, as a recording whose beginning was cut off does."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 8
    assert int.from_bytes(data[at : at + 4], "big") == 1
    start = int.from_bytes(data[at + 8 : at + 12], "big")
    data[at + 8 : at + 12] = (start + skip).to_bytes(4, "big")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("frames", [1, 5, 13, 17])
def test_edits(frames: int, tmp_path: Path) -> None:
    path = with_edit(make(tmp_path, "open.mp4"), frames * 512)
    assert len(list(VideoReader(path))) < 40
    began = assert_as_from_the_beginning(path, range(40))
    assert any(place[0] > 0 for place in began)


def test_no_more_is_decoded_than_needed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", pictures(300, (32, 32)), options={"g": "20", "preset": "fast"})
    reader = Watched(path)
    next(iter(reader.stamped(270)))
    assert reader.decoded <= 20 + 4
    reader.enters = False
    next(iter(reader.stamped(270)))
    assert reader.decoded == 271


def test_a_wrong_index_is_not_followed(tmp_path: Path) -> None:
    """Where frames on the way are not those of the index, decoding begins at the beginning."""
    path = make(tmp_path, "closed.mp4")
    reader = Watched(path)
    next(iter(reader.stamped(30)))
    assert reader._index is not None
    reader._index.times = reader._index.times + 1
    reader.began = []
    found = list(reader.stamped(30))
    assert len(reader.began) == 2
    assert reader.began[-1] == 0
    np.testing.assert_array_equal(found[0][0], list(VideoReader(path))[30])


def test_damage_is_named_where_it_is(tmp_path: Path) -> None:
    path = make(tmp_path, "closed.mp4")
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        keys = [packet for packet in packets if packet.is_keyframe]
    at = keys[-1]
    data = bytearray(path.read_bytes())
    assert at.pos is not None
    data[at.pos : at.pos + at.size] = bytes(at.size)
    path.write_bytes(data)
    messages = []
    for start in (0, 39):
        with pytest.raises(VideoError, match="is damaged after frame") as caught:
            list(VideoReader(path).stamped(start))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
