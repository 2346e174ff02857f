"""Kinds of input and output, through the command line."""

from __future__ import annotations

import io
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from deblurkit.image_io import encode_png, read_image, write_image
from deblurkit.video.reader import VideoReader
from tests.cli.conftest import Infer
from tests.support.pictures import make_png, make_tiff
from tests.support.videos import copied_packets, decoded, pictures, seconds, write_video

#: Hundredths of a second at which the frames of a GIF are shown.
GIF_TIMES = [0, 5, 13, 25, 30]


def write_gif(path: Path, frames: list[Any], times: list[int], loop: int = 0, last: int = 70) -> Path:
    """An animated GIF of pictures that have few colours; RGBA where they have four channels."""
    from deblurkit.video.palette import to_palette

    options = {"loop": str(loop), "final_delay": str(last)}
    with av.open(str(path), "w", container_options=options) as out:
        stream = out.add_stream("gif", rate=25)
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "pal8"
        stream.codec_context.time_base = Fraction(1, 100)
        for picture, time in zip(frames, times, strict=True):
            frame = to_palette(picture[..., :3], picture[..., 3] if picture.shape[2] == 4 else None)
            frame.pts, frame.time_base = time, Fraction(1, 100)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def drawings(count: int, channels: int = 3) -> list[Any]:
    """Pictures of few colours, the outer part transparent where there are four channels."""
    frames = []
    for index in range(count):
        frame = np.zeros((30, 40, channels), np.uint8)
        frame[5:25, 5 + index : 25 + index] = [200, 40 * index, 60, 255][:channels]
        frames.append(frame)
    return frames


def facts(path: Path) -> tuple[list[int], int]:
    """Times of the packets in hundredths, and the duration of the last."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        return [round(packet.pts * packet.time_base * 100) for packet in packets], packets[-1].duration


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("loop", [0, 3, -1])
def test_a_gif_stays_what_it_is(tmp_path: Path, infer: Infer, channels: int, loop: int) -> None:
    source = write_gif(tmp_path / "a.gif", drawings(5, channels), GIF_TIMES, loop)
    code, said = infer(source)
    result = tmp_path / "a_deblurred.gif"
    assert code == 0, said
    assert facts(result) == facts(source)
    assert result.read_bytes().count(b"NETSCAPE2.0") == (loop >= 0)
    if loop >= 0:
        at = result.read_bytes().index(b"NETSCAPE2.0\x03\x01") + 13
        assert int.from_bytes(result.read_bytes()[at : at + 2], "little") == loop
    for before, after in zip(decoded(source), decoded(result), strict=True):
        np.testing.assert_array_equal(after.to_ndarray(format="rgba"), before.to_ndarray(format="rgba"))


def test_gifs_become_videos_and_videos_gifs(tmp_path: Path, infer: Infer) -> None:
    source = write_gif(tmp_path / "a.gif", drawings(5, 4), GIF_TIMES)
    code, said = infer(source, "-o", tmp_path / "a.mp4")
    assert code == 0
    assert "a.mp4: .mp4 files are written without transparency" in said
    assert seconds(tmp_path / "a.mp4") == pytest.approx([time / 100 for time in GIF_TIMES], abs=1e-6)
    film = write_video(tmp_path / "film.mp4", pictures(5), audio="aac")
    code, said = infer(film, "--codec", "gif", "-o", tmp_path / "film.gif")
    assert code == 0
    assert "not carried over: audio track 1" in said
    assert facts(tmp_path / "film.gif")[0] == [0, 4, 8, 12, 16]
    for before, after in zip(VideoReader(film), VideoReader(tmp_path / "film.gif"), strict=True):
        assert np.abs(before.astype(int) - after).mean() < 6  # 256 colours, dithered


def test_an_animated_png_keeps_all_its_frames(tmp_path: Path, infer: Infer) -> None:
    with av.open(str(tmp_path / "a.apng"), "w") as out:
        stream = out.add_stream("apng", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "rgb24"
        for picture in pictures(4):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    (tmp_path / "a.apng").rename(tmp_path / "a.png")
    code, said = infer(tmp_path / "a.png", "--lossless")
    assert code == 0, said
    np.testing.assert_array_equal(list(VideoReader(tmp_path / "a_deblurred.mkv")), pictures(4))


def test_transparent_grey_and_turned_pictures(tmp_path: Path, infer: Infer) -> None:
    rng = np.random.default_rng(0)
    made = {
        "alpha.png": rng.integers(0, 255, (20, 24, 4), np.uint8),
        "alpha16.png": rng.integers(0, 65535, (20, 24, 4), np.uint16),
        "grey.png": rng.integers(0, 255, (20, 24), np.uint8),
        "alpha.tif": rng.integers(0, 255, (20, 24, 4), np.uint8),
    }
    for name, image in made.items():
        cv2.imwrite(str(tmp_path / name), image)
    assert infer(*(tmp_path / name for name in made))[0] == 0
    for name, image in made.items():
        result = tmp_path / name.replace(".", "_deblurred.")
        if name == "alpha.tif":  # OpenCV multiplies its colours by alpha
            found = np.asarray(Image.open(result))[..., (2, 1, 0, 3)]
        else:
            found = cv2.imread(str(result), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found, image)
    code, said = infer(tmp_path / "alpha.png", "-o", tmp_path / "alpha.jpg")
    assert code == 0
    assert ".jpg files are written without transparency" in said


def test_grey_pictures_that_are_transparent(tmp_path: Path, infer: Infer) -> None:
    samples = np.random.default_rng(0).integers(0, 255, (20, 24, 2))
    key = int(samples[3, 4, 0])
    (tmp_path / "marked.png").write_bytes(make_png(samples[..., :1], 8, 0, (b"tRNS", bytes((0, key)))))
    (tmp_path / "plain.png").write_bytes(make_png(samples, 8, 4))
    (tmp_path / "strips.tif").write_bytes(make_tiff(samples, 8, 1, (2,)))
    code, said = infer(*(tmp_path / name for name in ("marked.png", "plain.png", "strips.tif")))
    assert (code, "warning" in said) == (0, False), said
    for name in ("marked_deblurred.png", "plain_deblurred.png", "strips_deblurred.tif"):
        with Image.open(tmp_path / name) as picture:
            assert picture.mode == "LA"
            grey, alpha = np.asarray(picture).transpose(2, 0, 1)
        np.testing.assert_array_equal(grey, samples[..., 0])
        hidden = np.where(samples[..., 0] == key, 0, 255)
        np.testing.assert_array_equal(alpha, hidden if name.startswith("marked") else samples[..., 1])


def test_lossless_pictures(tmp_path: Path, infer: Infer) -> None:
    write_image(tmp_path / "a.jpg", pictures(1)[0])
    write_image(tmp_path / "a.webp", pictures(1)[0])
    code, said = infer(tmp_path / "a.jpg", tmp_path / "a.webp", "--lossless")
    assert code == 0
    assert "a.jpg: the result is a .png file" in said
    for name, result in (("a.jpg", "a_deblurred.png"), ("a.webp", "a_deblurred.webp")):
        np.testing.assert_array_equal(read_image(tmp_path / result), read_image(tmp_path / name))


def test_the_frames_of_a_video(tmp_path: Path, infer: Infer) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(4), audio="aac")
    expected = list(VideoReader(source))
    for arguments, folder, ending in (
        (["-o", f"{tmp_path}/frames/"], "frames", "png"),
        (["--codec", "tiff"], "a_deblurred", "tif"),
        (["--codec", "png", "-o", tmp_path / "mine"], "mine", "png"),
    ):
        assert infer(source, *arguments)[0] == 0
        names = [f"{index:06d}.{ending}" for index in range(4)]
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == names
        for name, pixels in zip(names, expected, strict=True):
            np.testing.assert_array_equal(read_image(tmp_path / folder / name), pixels)
    code, said = infer(source, "-o", f"{tmp_path}/frames/")
    assert (code, "exists already; use --overwrite" in said) == (2, True)
    assert infer(source, "-o", f"{tmp_path}/frames/", "--overwrite")[0] == 0


def test_a_result_below_a_file(tmp_path: Path, infer: Infer) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(2))
    write_image(tmp_path / "a.png", pictures(1)[0])
    for name in ("a.png/out.mp4", "a.png/out.png", "a.png/frames/"):
        code, said = infer(source if name.endswith(("4", "/")) else tmp_path / "a.png", "-o", f"{tmp_path}/{name}")
        assert code == 2
        reason = f"{tmp_path / 'a.png'} is a file, not a folder; choose another place"
        assert f"error: {tmp_path / name}: cannot be written: {reason}" in " ".join(said.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "a.png"]


def test_a_folder_with_the_longest_name(tmp_path: Path, infer: Infer) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(2))
    frames = tmp_path / ("n" * 255)
    assert infer(source, "--codec", "png", "-o", frames)[0] == 0
    assert len(list(frames.iterdir())) == 2
    # the name of a page would be longer still
    code, said = infer(source, "--codec", "png", "-o", frames, "--overwrite", "--compare-slider")
    assert (code, "File name too long; give the result a name with -o" in said) == (2, True)


def test_a_folder_with_other_pictures_is_not_replaced(tmp_path: Path, infer: Infer) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(2))
    write_image(tmp_path / "holiday" / "beach.png", pictures(1)[0])
    assert infer(source, "-o", f"{tmp_path}/holiday/", "--overwrite")[0] == 0
    assert sorted(path.name for path in (tmp_path / "holiday").iterdir()) == ["a_deblurred.mp4", "beach.png"]


def test_ten_bit_frames_become_16_bit_pictures(tmp_path: Path, infer: Infer) -> None:
    source = write_video(tmp_path / "a.mkv", pictures(2, dtype=np.uint16), codec="ffv1", pixel_format="yuv420p10le")
    assert infer(source, "--codec", "png")[0] == 0
    for index, pixels in enumerate(VideoReader(source)):
        np.testing.assert_array_equal(read_image(tmp_path / "a_deblurred" / f"{index:06d}.png"), pixels)


def test_a_folder_becomes_a_video(tmp_path: Path, infer: Infer) -> None:
    for index, picture in enumerate(pictures(5)):
        write_image(tmp_path / "shot" / f"{index}.png", picture)
    assert infer(tmp_path / "shot", "-o", tmp_path / "a.mp4", "--fps", "30000/1001")[0] == 0
    assert seconds(tmp_path / "a.mp4") == pytest.approx([index * 1001 / 30000 for index in range(5)], abs=1e-4)
    assert infer(tmp_path / "shot", "--codec", "ffv1", "-o", tmp_path / "b.mkv")[0] == 0
    np.testing.assert_array_equal(list(VideoReader(tmp_path / "b.mkv")), pictures(5))


@pytest.mark.parametrize(("settings", "channels"), [([], 3), (["--codec", "ffv1"], 3)], ids=["default", "lossless"])
def test_side_by_side(tmp_path: Path, infer: Infer, settings: list[str], channels: int) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(6), audio="aac")
    assert infer(source, "--side-by-side", *settings)[0] == 0
    result = tmp_path / f"a_side_by_side{'.mkv' if settings else '.mp4'}"
    assert seconds(result) == pytest.approx(seconds(source), abs=6e-4)
    assert len(copied_packets(result)) == 1
    for before, both in zip(VideoReader(source), VideoReader(result), strict=True):
        assert both.shape == (32, 2 * 48 + 2, 3)
        for half in (both[:, :48], both[:, 50:]):
            assert np.abs(half.astype(int) - before).mean() < (0.01 if settings else 6)
        assert (both[:, 48:50] > 200).all()


def test_side_by_side_of_transparent_pictures(tmp_path: Path, infer: Infer) -> None:
    image = np.random.default_rng(0).integers(0, 255, (20, 24, 4), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    assert infer(tmp_path / "a.png", "--side-by-side")[0] == 0
    both = cv2.imread(str(tmp_path / "a_side_by_side.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(both, np.hstack([image, np.full((20, 2, 4), 255, np.uint8), image]))


class Standard:
    """Stands for standard input or output: a pipe."""

    def __init__(self, content: bytes = b"") -> None:
        self.buffer = io.BytesIO(content)

    def isatty(self) -> bool:
        return False


def piped(monkeypatch: pytest.MonkeyPatch, content: bytes) -> SimpleNamespace:
    streams = SimpleNamespace(stdin=Standard(content), stdout=Standard())
    monkeypatch.setattr(sys, "stdin", streams.stdin)
    monkeypatch.setattr(sys, "stdout", streams.stdout)
    return streams


def test_pipes(tmp_path: Path, infer: Infer, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(6), audio="aac")
    streams = piped(monkeypatch, source.read_bytes())
    code, said = infer("-", "-o", "-", "--lossless")
    assert code == 0, said
    (tmp_path / "b.mkv").write_bytes(streams.stdout.buffer.getvalue())
    np.testing.assert_array_equal(list(VideoReader(tmp_path / "b.mkv")), list(VideoReader(source)))
    assert [[c for _, c in track] for track in copied_packets(tmp_path / "b.mkv")] == [
        [c for _, c in track] for track in copied_packets(source)
    ]
    piped(monkeypatch, source.read_bytes())
    assert infer("-", "-o", tmp_path / "c.mp4")[0] == 0
    assert seconds(tmp_path / "c.mp4") == seconds(source)
    streams = piped(monkeypatch, encode_png(pictures(1)[0]))
    assert infer("-", "-o", "-")[0] == 0
    assert streams.stdout.buffer.getvalue() == encode_png(pictures(1)[0])
    streams = piped(monkeypatch, b"")
    assert infer(source, "-o", "-")[0] == 0
    assert streams.stdout.buffer.getvalue()[:4] == b"\x1a\x45\xdf\xa3"


def test_pipes_that_hold_nothing_useful(tmp_path: Path, infer: Infer, monkeypatch: pytest.MonkeyPatch) -> None:
    for content, arguments, expected in (
        (b"", ["-o", tmp_path / "b.mp4"], "error: -: is empty"),
        (b"dear diary", ["-o", tmp_path / "b.mp4"], "error: -: is not a video"),
        (encode_png(pictures(1)[0]), [], "error: -: the result of a pipe needs a name"),
    ):
        piped(monkeypatch, content)
        code, said = infer("-", *arguments)
        assert code == 2
        assert said.startswith(expected), said
    assert not list(tmp_path.iterdir())


def test_covers_chapters_and_further_tracks_travel(tmp_path: Path, infer: Infer) -> None:
    source = tmp_path / "a.mp4"
    cover = cv2.imencode(".jpg", pictures(1)[0])[1].tobytes()
    with av.open(str(source), "w") as out:
        out.set_chapters(
            [{"id": 0, "start": 0, "end": 100, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}}]
        )
        streams = [out.add_stream("libx264", rate=25), out.add_stream("mpeg4", rate=25)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        art = out.add_mux_stream("mjpeg", width=48, height=32)
        art.disposition = av.stream.Disposition.attached_pic.value
        for picture in pictures(5):
            for stream in streams:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream in streams:
            out.mux(stream.encode(None))
        packet = av.Packet(cover)
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = art, 0, 0, True
        out.mux(packet)
    for name, result in (("a.mp4", tmp_path / "b.mp4"), ("a.mp4", tmp_path / "b.mkv"), ("b.mkv", tmp_path / "c.mkv")):
        code, said = infer(tmp_path / name, "-o", result)
        assert (code, "not carried over" in said) == (0, False), said
        with av.open(str(result)) as container:
            assert [c["metadata"]["title"] for c in container.chapters()] == ["one"]
            kinds = {
                s.codec_context.name: bool(s.disposition & av.stream.Disposition.attached_pic)
                for s in container.streams.video
            }
            assert kinds == {"h264": False, "mpeg4": False, "mjpeg": True}
            [index] = [s.index for s in container.streams.video if s.codec_context.name == "mjpeg"]
            found = [bytes(packet) for packet in container.demux(container.streams[index]) if packet.size]
            assert found == [cover]


def test_fonts_travel(tmp_path: Path, infer: Infer) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        out.add_attachment("font.ttf", "application/x-truetype-font", b"letters")
        for picture in pictures(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    assert infer(tmp_path / "a.mkv")[0] == 0
    with av.open(str(tmp_path / "a_deblurred.mkv")) as container:
        [font] = container.streams.attachments
        assert (font.name, font.data) == ("font.ttf", b"letters")
    code, said = infer(tmp_path / "a.mkv", "-o", tmp_path / "b.mp4")
    assert (code, "not carried over: attachment track 1" in said) == (0, True)


def test_transparency_that_is_not_read_is_named(tmp_path: Path, infer: Infer) -> None:
    with av.open(str(tmp_path / "a.mov"), "w") as out:
        stream = out.add_stream("prores_ks", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuva444p10le"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(pictures(1)[0], format="rgb24")))
        out.mux(stream.encode(None))
    code, said = infer(tmp_path / "a.mov")
    assert (code, "a.mov: not carried over: transparency" in said) == (0, True), said


def test_interlaced_video_is_named(tmp_path: Path, infer: Infer) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(3), options={"x264-params": "tff=1", "preset": "ultrafast"})
    code, said = infer(source)
    assert code == 0
    assert said.count("warning:") == 1
    assert "a.mp4: is interlaced" in said


def test_frames_before_the_first_key_frame_of_an_open_gop_are_kept(tmp_path: Path, infer: Infer) -> None:
    """Cut at a key frame whose B-frames refer to what was cut off: every frame that can be decoded is restored."""
    options = {"x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:b-adapt=0:scenecut=0"}
    whole = write_video(tmp_path / "whole.mkv", pictures(32, (64, 64)), options=options)
    cut = tmp_path / "cut.mkv"
    with av.open(str(whole)) as before, av.open(str(cut), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        keys = 0
        for packet in before.demux(video=0):
            keys += packet.is_keyframe
            if packet.size and keys > 1:
                packet.stream = stream
                after.mux(packet)
    expected = len(list(VideoReader(cut)))
    assert expected >= 24 - 3
    assert infer(cut)[0] == 0
    assert len(decoded(tmp_path / "cut_deblurred.mkv")) == expected
    assert infer(whole)[0] == 0
    assert len(decoded(tmp_path / "whole_deblurred.mkv")) == 32


@pytest.mark.parametrize(
    ("name", "codec", "audio", "expected", "stored"),
    [
        ("a.avi", "mpeg4", "pcm_s16le", ".mkv", "h264"),  # MP4 wants to know where its two channels play
        ("b.avi", "mpeg4", "mp2", ".mp4", "h264"),
        ("a.wmv", "wmv2", None, ".mp4", "h264"),
        ("a.mpg", "mpeg2video", "mp2", ".mp4", "h264"),
        ("a.webm", "libvpx", "libopus", ".webm", "vp9"),
        ("a.ts", "libx264", "aac", ".ts", "h264"),
        ("a.flv", "libx264", "aac", ".flv", "h264"),
    ],
)
def test_other_containers(
    tmp_path: Path, infer: Infer, name: str, codec: str, audio: str | None, expected: str, stored: str
) -> None:
    """Those that cannot give every frame back at its time become another one, which holds the sound as it is."""
    source = write_video(tmp_path / name, pictures(10), codec=codec, audio=audio, time_base=Fraction(1, 25))
    code, said = infer(source)
    assert code == 0, said
    result = tmp_path / f"{source.stem}_deblurred{expected}"
    assert (f"the result is a {expected} file" in said) == (not name.endswith(expected))
    with av.open(str(result)) as container:
        assert container.streams.video[0].codec_context.name == stored
    before, after = seconds(source), seconds(result)  # clocks of broadcasts start anywhere
    assert [time - after[0] for time in after] == pytest.approx([time - before[0] for time in before], abs=2e-3)
    for old, new in zip(copied_packets(source), copied_packets(result), strict=True):
        assert [content for _, content in new] == [content for _, content in old]
        assert new[0][0] - after[0] == pytest.approx(old[0][0] - before[0], abs=2e-3)  # sound and picture together
