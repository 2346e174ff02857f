from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deblurkit.errors import VideoError
from deblurkit.video.color import FULL, LIMITED, ColorTags, FromRGB, ToRGB, frame_tags, planar_format
from deblurkit.video.reader import VideoReader
from deblurkit.video.source import FrameSource
from tests.support.videos import pictures, rotate, write_video

KR_KB = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def test_every_frame_with_its_time(tmp_path: Path) -> None:
    times = [0, 400, 1500, 1501, 9000, 20000, 20512]
    path = write_video(tmp_path / "vfr.mp4", pictures(7), times=times)
    reader = VideoReader(path)
    assert isinstance(reader, FrameSource)
    assert (reader.name, reader.length, reader.width, reader.height, reader.dtype) == ("vfr.mp4", 7, 48, 32, np.uint8)
    stamped = list(reader.stamped())
    assert [timing.pts * reader.time_base for _, timing in stamped] == [Fraction(t, 12800) for t in times]
    assert len(list(reader)) == 7  # every iteration starts anew


@pytest.mark.parametrize(("name", "audio"), [("a.mkv", "aac"), ("a.mp4", None), ("a.ts", "aac"), ("a.avi", None)])
def test_length_is_the_number_of_frames(tmp_path: Path, name: str, audio: str | None) -> None:
    path = write_video(tmp_path / name, pictures(13), audio=audio, codec="mpeg4" if name.endswith("avi") else "libx264",
                       time_base=Fraction(1, 25))  # fmt: skip
    reader = VideoReader(path)
    assert reader.length == len(list(reader)) == 13


def test_more_than_8_bits_become_uint16(tmp_path: Path) -> None:
    path = write_video(tmp_path / "deep.mkv", pictures(3, dtype=np.uint16), codec="ffv1", pixel_format="yuv444p10le")
    reader = VideoReader(path)
    frame = next(iter(reader))
    assert reader.dtype == frame.dtype == np.uint16
    assert reader.depth == 10
    assert np.abs(frame.astype(int) - pictures(1, dtype=np.uint16)[0]).mean() < 200  # of 65535


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_honoured(tmp_path: Path, degrees: int) -> None:
    path = write_video(tmp_path / "phone.mp4", pictures(3))
    plain = next(iter(VideoReader(path)))
    reader = VideoReader(rotate(path, degrees))
    upright = next(iter(reader))
    assert upright.shape[:2] == (reader.height, reader.width)
    np.testing.assert_array_equal(upright, np.rot90(plain, -degrees // 90))


@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("scope", [LIMITED, FULL])
@pytest.mark.parametrize("depth", [8, 10])
def test_yuv_to_rgb_is_exact_to_rounding(matrix: int, scope: int, depth: int) -> None:
    rng = np.random.default_rng(depth)
    rgb = rng.random((16, 24, 3))
    kr, kb = KR_KB[matrix]
    luma = rgb @ np.array([kr, 1 - kr - kb, kb])
    blue, red = (rgb[..., 2] - luma) / (2 - 2 * kb), (rgb[..., 0] - luma) / (2 - 2 * kr)
    step, most = 2 ** (depth - 8), 2**depth - 1
    if scope == FULL:
        codes = [luma * most, blue * most + 128 * step, red * most + 128 * step]
    else:
        codes = [luma * 219 * step + 16 * step, *(c * 224 * step + 128 * step for c in (blue, red))]
    frame = av.VideoFrame(24, 16, planar_format("yuv444p", depth))
    dtype = np.uint8 if depth == 8 else np.uint16
    for plane, values in zip(frame.planes, codes, strict=True):
        rows = np.frombuffer(memoryview(plane), dtype).reshape(16, -1)
        rows[:, :24] = np.clip(np.rint(values), 0, most)
    frame.colorspace, frame.color_range = matrix, scope
    pixels = ToRGB()(frame)
    white = np.iinfo(pixels.dtype).max
    span = 219 if scope == LIMITED else 255
    # half a step of the stored luma and chroma, seen through the matrix
    assert np.abs(pixels / white - rgb).max() < 1.6 / (span * step) + 1 / white


def test_untagged_video_is_bt601_when_small_and_bt709_when_hd() -> None:
    from deblurkit.video.color import used_matrix

    assert [used_matrix(ColorTags(), *size) for size in ((640, 480), (1280, 720), (720, 1280), (720, 576))] == [
        6,
        1,
        1,
        6,
    ]
    assert used_matrix(ColorTags(matrix=9), 640, 480) == 9


def test_what_is_no_video_gets_one_line(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", pictures(20), audio="aac")
    data = whole.read_bytes()
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as out:
        stream = out.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    cases = {
        "text.mp4": (b"hello\n" * 50, "is not a video"),
        "playlist.mp4": (b"#EXTM3U\n#EXTINF:5,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "is not a video"),
        "empty.mp4": (b"", "is empty"),
        "cut.mp4": (data[: len(data) // 2], "cut off"),
        "cut.mkv": (write_video(tmp_path / "w.mkv", pictures(20)).read_bytes()[:-900], "cut off"),
        "sound.mp4": (sound.read_bytes(), "no video stream, only audio"),
    }
    for name, (content, expected) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(VideoError) as caught:
            VideoReader(path)
        message = str(caught.value)
        assert str(path) in message
        assert expected in message
        assert "\n" not in message
    for path, expected in ((tmp_path / "none.mp4", "does not exist"), (tmp_path, "folder")):
        with pytest.raises(VideoError, match=expected):
            VideoReader(path)


def test_damage_further_on_is_an_error_not_a_shorter_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "d.mp4", pictures(30, (64, 64)), codec="mjpeg", pixel_format="yuvj420p")
    with av.open(str(path)) as container:
        middle = container.streams.video[0].index_entries[15]
        place, size = middle.pos, middle.size
    data = bytearray(path.read_bytes())
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    frames = []
    with pytest.raises(VideoError, match=r"d.mp4: is damaged after frame \d+"):
        frames.extend(VideoReader(path))
    assert len(frames) <= 15


@pytest.mark.parametrize(
    ("codec", "pixel_format", "name"), [("libx264", "yuv420p", "a.mp4"), ("ffv1", "yuv422p", "a.mkv")]
)
def test_chroma_is_where_it_was_after_the_way_to_rgb_and_back(
    tmp_path: Path, codec: str, pixel_format: str, name: str
) -> None:
    """PyAV alone moves it by half a pixel: it reads H.264 as left-sited and writes centred samples."""
    x = np.linspace(0, 1, 96)[None, :, None] * np.ones((64, 1, 1))
    ramp = np.rint(np.concatenate([60 + 120 * x, 180 - 100 * x, 90 + 60 * x], -1)).astype(np.uint8)
    path = write_video(tmp_path / name, [ramp] * 2, codec=codec, pixel_format=pixel_format)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    to_rgb, from_rgb = ToRGB(codec), FromRGB(pixel_format, frame_tags(frame))
    once = from_rgb(to_rgb(frame))
    for before, after in zip(frame.planes, once.planes, strict=True):
        old, new = (
            np.frombuffer(memoryview(p), np.uint8).reshape(p.height, -1)[:, 2 : p.width - 2] for p in (before, after)
        )
        assert abs((new.astype(int) - old).mean()) < 0.1


def test_video_of_an_unknown_format_gets_one_line(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mkv", pictures(3), codec="ffv1", pixel_format="bgr0").read_bytes()
    assert data.count(b"V_FFV1") == 1
    (tmp_path / "b.mkv").write_bytes(data.replace(b"V_FFV1", b"V_ODD1"))
    with pytest.raises(VideoError, match=r"b.mkv: its video is of a format that this build of PyAV does not know"):
        VideoReader(tmp_path / "b.mkv")
