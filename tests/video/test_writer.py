from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from deblurkit.errors import DeblurkitError, VideoError
from deblurkit.video.color import ColorTags
from deblurkit.video.hdr import StaticHDR
from deblurkit.video.reader import VideoReader
from deblurkit.video.writer import VideoWriter, mend_decode_times, result_suffix
from tests.support.videos import copied_packets, decoded, pictures, rotate, seconds, write_video


def copy(source: Path, target: Path, **settings: Any) -> VideoReader:
    """Every frame of a video into another one."""
    reader = VideoReader(source)
    with VideoWriter(target, reader, **settings) as writer:
        for pixels, timing in reader.stamped():
            writer.write(pixels, timing)
    return VideoReader(target)


VARIABLE = [0, 512, 700, 2100, 2200, 9000, 9512, 12000, 20000, 40000, 40512, 41024]


@pytest.mark.parametrize("times", [None, VARIABLE], ids=["constant", "variable"])
@pytest.mark.parametrize(
    ("name", "audio"), [("a.mp4", "aac"), ("a.mkv", "flac"), ("a.mov", "pcm_s16le"), ("a.mp4", None)]
)
def test_frames_times_and_sound_survive(tmp_path: Path, times: list[int] | None, name: str, audio: str | None) -> None:
    source = write_video(tmp_path / name, pictures(12), times=times, audio=audio)
    result = tmp_path / f"out{source.suffix}"
    assert copy(source, result).length == 12
    assert seconds(result) == seconds(source)
    assert copied_packets(result) == copied_packets(source)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, result.name])


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_pictures_that_begin_late_begin_as_late(tmp_path: Path, name: str) -> None:
    """MP4 says when a track begins on the clock of the film, which by default counts whole milliseconds."""
    base = Fraction(1, 1000) if name == "a.mkv" else Fraction(1, 12800)
    late = [int(Fraction(11, 64) / base) + index for index in (0, 600, 1200)]  # 171.9 ms
    source = write_video(tmp_path / name, pictures(3), times=late, time_base=base, audio="aac")
    for count in range(3):
        source, before = tmp_path / f"{count}{source.suffix}", source
        copy(before, source)
        assert seconds(source) == seconds(tmp_path / name)
        assert copied_packets(source) == copied_packets(tmp_path / name)


def test_flv_begins_on_time(tmp_path: Path) -> None:
    """It has no decode times before zero, which frames out of order would need."""
    source = write_video(tmp_path / "a.flv", pictures(20), time_base=Fraction(1, 1000), audio="aac")
    copy(source, tmp_path / "b.flv")
    assert seconds(tmp_path / "b.flv") == seconds(source)


def test_duration_of_frames_survives(tmp_path: Path) -> None:
    """The last frame of a slide show is shown as long as before."""
    source = write_video(tmp_path / "a.mkv", pictures(3), times=[0, 12800, 25600], audio=None)
    copy(source, tmp_path / "b.mkv")
    durations = [[timing.duration for _, timing in VideoReader(tmp_path / n).stamped()] for n in ("a.mkv", "b.mkv")]
    assert durations[0] == durations[1]


def test_subtitles_chapters_and_metadata_survive(tmp_path: Path) -> None:
    source = write_video(
        tmp_path / "a.mkv", pictures(30), audio="aac", subtitles=[(0, "hello"), (600, "world")],
        metadata={"title": "A day", "artist": "me"}, chapters=[(0, 500, "one"), (500, 1200, "two")],
    )  # fmt: skip
    copy(source, tmp_path / "b.mkv")
    assert copied_packets(tmp_path / "b.mkv") == copied_packets(source)
    assert len(copied_packets(source)) == 2
    with av.open(str(source)) as before, av.open(str(tmp_path / "b.mkv")) as after:
        assert {"title": "A day", "ARTIST": "me"}.items() <= after.metadata.items()
        for a, b in zip(before.chapters(), after.chapters(), strict=True):
            assert (a["start"], a["end"], a["metadata"]) == (b["start"], b["end"], b["metadata"])


def test_sound_far_from_its_pictures_is_put_beside_them(tmp_path: Path) -> None:
    """Packets go into the file in the order of their times, not in runs."""
    source = write_video(tmp_path / "a.mkv", pictures(100), audio="aac")
    copy(source, tmp_path / "b.mkv")
    with av.open(str(tmp_path / "b.mkv")) as container:
        last = 0.0
        for packet in container.demux():
            if packet.dts is not None:
                now = float(packet.dts * packet.time_base)
                assert now > last - 0.5
                last = max(now, last)


@pytest.mark.parametrize("size", [(33, 48), (32, 47), (31, 45)])
def test_odd_sizes_are_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    source = write_video(tmp_path / "a.mkv", pictures(4, size), codec="ffv1", pixel_format="bgr0")
    result = copy(source, tmp_path / "b.mp4", crf=4)
    assert (result.height, result.width) == size
    for before, after in zip(VideoReader(source), result, strict=True):
        assert np.abs(before.astype(int) - after).mean() < 2


@pytest.mark.parametrize(
    ("pixel_format", "dtype", "codec", "suffix"),
    [
        ("yuv420p", np.uint8, None, ".mkv"),
        ("yuv420p", np.uint8, "libx264", ".mp4"),
        ("yuv420p", np.uint8, "libx265", ".mp4"),
        ("yuv420p", np.uint8, "vp9", ".mkv"),
        ("yuv420p10le", np.uint16, None, ".mkv"),
        ("bgr0", np.uint8, "ffv1", ".mkv"),
    ],
)
def test_lossless_keeps_every_bit(
    tmp_path: Path, pixel_format: str, dtype: Any, codec: str | None, suffix: str
) -> None:
    frames = pictures(5, (64, 96), dtype)
    source = write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixel_format=pixel_format)
    result = copy(source, tmp_path / f"b{suffix}", codec=codec, lossless=True)
    frames = list(VideoReader(source))
    assert frames[0].dtype == dtype
    for before, after in zip(frames, result, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("tags", [ColorTags(1, 1, 1, 1), ColorTags(5, 6, 6, 2), ColorTags(9, 14, 9, 1), ColorTags()])
def test_colour_tags_and_colours_survive(tmp_path: Path, tags: ColorTags) -> None:
    named = {"color_primaries": tags.primaries, "color_trc": tags.transfer, "colorspace": tags.matrix}
    frames = [np.full((32, 48, 3), colour, np.uint8) for colour in ((200, 40, 60), (30, 180, 90), (90, 90, 200))]
    source = write_video(tmp_path / "a.mp4", frames, tags={**named, "color_range": tags.range}, options={"qp": "1"})
    result = copy(source, tmp_path / "b.mp4", crf=1)
    assert result.tags == VideoReader(source).tags
    assert result.tags.matrix == tags.matrix
    for before, after in zip(VideoReader(source), result, strict=True):
        assert np.abs(before.astype(int) - after).max() <= 3


@pytest.mark.parametrize("codec", ["libx265", "libvpx-vp9", "libsvtav1", "prores_ks"])
@pytest.mark.parametrize("tags", [ColorTags(5, 6, 6, 2), ColorTags(9, 16, 9, 1)], ids=["full", "wide"])
def test_colours_survive_in_every_codec(tmp_path: Path, codec: str, tags: ColorTags) -> None:
    """ProRes is tagged by its frames and has no full range."""
    named = {"color_primaries": tags.primaries, "color_trc": tags.transfer, "colorspace": tags.matrix}
    frames = [np.full((64, 96, 3), colour, np.uint8) for colour in ((200, 40, 60), (30, 180, 90), (255, 255, 255))]
    source = write_video(tmp_path / "a.mp4", frames, tags={**named, "color_range": tags.range}, options={"qp": "1"})
    reader = VideoReader(source)
    assert reader.tags == tags
    result = copy(source, tmp_path / "b.mov" if codec == "prores_ks" else tmp_path / "b.mkv", codec=codec)
    assert result.tags == (replace(tags, range=1) if codec == "prores_ks" else tags)
    for before, after in zip(reader, result, strict=True):
        eight = after / (257 if after.dtype == np.uint16 else 1)
        assert np.abs(before.astype(float) - eight).max() <= 4


@pytest.mark.parametrize(("size", "codec"), [((64, 96), "hevc"), ((32, 48), "h264")])
def test_ten_bits_stay_ten_bits(tmp_path: Path, size: tuple[int, int], codec: str) -> None:
    """x265 corrupts the heap with tiny frames: those are H.264."""
    frames = pictures(4, size, np.uint16)
    source = write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixel_format="yuv420p10le")
    result = copy(source, tmp_path / "b.mp4", crf=2)
    assert (result.depth, result.dtype) == (10, np.uint16)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].codec_context.name == codec
    for before, after in zip(VideoReader(source), result, strict=True):
        assert np.abs(before.astype(int) - after).mean() < 400  # of 65535


def test_rotated_video_comes_out_upright(tmp_path: Path) -> None:
    source = rotate(write_video(tmp_path / "a.mp4", pictures(3)), 90)
    result = copy(source, tmp_path / "b.mp4")
    assert (result.width, result.height) == (32, 48)
    assert decoded(tmp_path / "b.mp4")[0].rotation == 0


def test_broadcast_clocks_start_at_zero(tmp_path: Path) -> None:
    start = 90000 * 3600
    source = write_video(tmp_path / "a.ts", pictures(10), times=[start + 3600 * i for i in range(10)],
                         time_base=Fraction(1, 90000))  # fmt: skip
    copy(source, tmp_path / "b.mp4")
    assert seconds(tmp_path / "b.mp4") == pytest.approx([i / 25 for i in range(10)], abs=1e-6)


def test_two_frames_at_one_time_are_both_kept(tmp_path: Path) -> None:
    reader = VideoReader(write_video(tmp_path / "a.mp4", pictures(4)))
    frames = list(reader.stamped())
    with VideoWriter(tmp_path / "b.mp4", reader) as writer:
        for pixels, timing in [frames[0], frames[1], (frames[2][0], frames[1][1]), frames[3]]:
            writer.write(pixels, timing)
    assert VideoReader(tmp_path / "b.mp4").length == 4


def test_new_video_without_a_source(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "new.mp4", rate=30, crf=5) as writer:
        for picture in pictures(6):
            writer.write(picture)
    assert seconds(tmp_path / "new.mp4") == pytest.approx([i / 30 for i in range(6)])
    assert VideoReader(tmp_path / "new.mp4").tags == ColorTags(1, 1, 1, 1)


def test_the_container_is_the_sources_where_it_fits(tmp_path: Path) -> None:
    mp4 = VideoReader(write_video(tmp_path / "a.mp4", pictures(2), audio="aac"))
    webm = VideoReader(write_video(tmp_path / "a.webm", pictures(2), codec="libvpx", audio="libopus"))
    avi = VideoReader(write_video(tmp_path / "a.avi", pictures(2), codec="mpeg4", audio="pcm_s16le",
                                  time_base=Fraction(1, 25)))  # fmt: skip
    mkv = VideoReader(write_video(tmp_path / "a.mkv", pictures(30), subtitles=[(0, "hello")]))
    assert [result_suffix(r, None, False) for r in (mp4, webm, avi, mkv)] == [".mp4", ".webm", ".mkv", ".mkv"]
    assert [result_suffix(r, "libx264", False) for r in (mp4, webm)] == [".mp4", ".mp4"]
    assert [result_suffix(r, None, True) for r in (mp4, avi)] == [".mkv", ".mkv"]


def test_codecs_go_by_the_names_of_formats_too(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(3, (64, 96)))
    for name, codec in (("h264", "h264"), ("hevc", "hevc"), ("vp9", "vp9"), ("av1", "libdav1d"), ("prores", "prores")):
        suffix = ".mov" if name == "prores" else ".mp4"
        assert copy(source, tmp_path / f"{name}{suffix}", codec=name).length == 3
        with av.open(str(tmp_path / f"{name}{suffix}")) as container:
            assert container.streams.video[0].codec_context.name == codec


def test_settings_that_cannot_work_are_refused_before_the_work(tmp_path: Path) -> None:
    reader = VideoReader(write_video(tmp_path / "a.mkv", pictures(30), subtitles=[(0, "hello")]))
    deep = VideoReader(write_video(tmp_path / "deep.mkv", pictures(2, dtype=np.uint16), codec="ffv1",
                                   pixel_format="yuv420p10le"))  # fmt: skip
    cases: list[tuple[VideoReader, str, dict[str, Any], str]] = [
        (reader, "b.mp4", {}, "cannot hold srt; use .mkv"),
        (reader, "b.webm", {"codec": "h264"}, "cannot hold h264"),
        (reader, "b.avi", {}, ".avi files do not keep the times"),
        (reader, "b.txt", {}, ".txt is no video file"),
        (reader, "b", {}, "no video file"),
        (reader, "b.png", {}, "a .png file holds one picture"),
        (reader, "b.mkv", {"codec": "libx26"}, "did you mean 'libx26"),
        (reader, "b.mkv", {"crf": 99}, "takes 0 (best) to 51"),
        (reader, "b.mkv", {"crf": 20, "lossless": True}, "leave --crf out"),
        (reader, "b.mkv", {"codec": "prores_ks", "crf": 20}, "no such setting"),
        (deep, "b.mkv", {"codec": "libx264", "lossless": True}, "use --codec ffv1"),
    ]
    for source, name, settings, expected in cases:
        with pytest.raises(VideoError) as caught:
            VideoWriter(tmp_path / name, source, **settings)
        assert expected in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mkv", "deep.mkv"]


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_an_error_leaves_nothing_and_an_old_file_stays(tmp_path: Path, error: BaseException) -> None:
    reader = VideoReader(write_video(tmp_path / "a.mp4", pictures(10), audio="aac"))
    (tmp_path / "b.mp4").write_bytes(b"old")

    def fail_midway() -> None:
        with VideoWriter(tmp_path / "b.mp4", reader) as writer:
            for count, (pixels, timing) in enumerate(reader.stamped()):
                writer.write(pixels, timing)
                if count == 5:
                    raise error

    with pytest.raises(type(error)):
        fail_midway()
    assert (tmp_path / "b.mp4").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_frames_of_another_size_and_no_frames_are_errors(tmp_path: Path) -> None:
    def write(*frames: Any) -> None:
        with VideoWriter(tmp_path / "a.mp4") as writer:
            for frame in frames:
                writer.write(frame)

    with pytest.raises(VideoError, match="frame 1 has size"):
        write(pictures(1)[0], pictures(1, (64, 64))[0])
    with pytest.raises(VideoError, match="not one frame"):
        write()
    assert not list(tmp_path.iterdir())


def test_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk that is full."""
    source = write_video(tmp_path / "a.mp4", pictures(40, (128, 128)), audio="aac")
    script = f"""
import resource, signal
import numpy as np
from deblurkit.errors import DeblurkitError
from deblurkit.video.reader import VideoReader
from deblurkit.video.writer import VideoWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
reader = VideoReader({str(source)!r})
rng = np.random.default_rng(0)
try:
    with VideoWriter({str(tmp_path / "b.mp4")!r}, reader, crf=0) as writer:
        for pixels, timing in reader.stamped():
            writer.write(rng.integers(0, 256, pixels.shape, np.uint8), timing)
except DeblurkitError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout.strip() == f"{tmp_path / 'b.mp4'}: cannot be written: File too large", run.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeblurkitError, match="cannot be written"), VideoWriter(tmp_path / "file" / "b.mp4"):
        pass


def test_streams_that_stay_behind_are_named(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as out:
        for _ in range(2):
            video = out.add_stream("ffv1", rate=25)
            video.width, video.height, video.pix_fmt = 48, 32, "bgr0"
        for stream in out.streams:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pictures(1)[0], format="rgb24")))
            out.mux(stream.encode(None))
    assert VideoWriter(tmp_path / "b.gif", VideoReader(path)).left_out == ["video track 1"]
    assert VideoWriter(tmp_path / "b.mkv", VideoReader(path)).left_out == []


def test_what_pictures_lose_is_named(tmp_path: Path) -> None:
    frames = pictures(2, (64, 96), np.uint16)
    reader = VideoReader(write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixel_format="yuv420p10le"))
    reader.hdr = StaticHDR(light=(1000, 400))

    def lost(name: str, codec: str | None = None) -> list[str]:
        return VideoWriter(tmp_path / name, reader, codec=codec).left_out

    assert lost("b.mp4") == lost("b.mkv", "libsvtav1") == []
    bits = "2 of 10 bits (libvpx-vp9 stores 8)"
    assert lost("b.webm", "vp9") == [bits, "HDR10's brightness of the display (libvpx-vp9 does not store it)"]
    reader.hdr = StaticHDR()
    assert lost("b.gif") == ["2 of 10 bits (gif stores 8)"]
    assert lost("b.mkv", "libx264") == []


def test_webm_that_is_transparent_is_named(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.webm"), "w") as out:
        stream = out.add_stream("libvpx-vp9", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 48, 4), np.uint8), format="rgba")))
        out.mux(stream.encode(None))
    assert VideoWriter(tmp_path / "b.webm", VideoReader(tmp_path / "a.webm")).left_out == ["transparency"]


@pytest.mark.parametrize("seed", range(6))
def test_gif_frames_of_few_colours_are_exact(tmp_path: Path, seed: int) -> None:
    """Each frame has a palette of its own; rows must not be taken for transparent by the palette of the first."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(6):
        flat = np.full((40, 56, 3), rng.integers(8, 248, 3))
        noisy = flat + rng.integers(-1, 2, (40, 56, 1)) * rng.integers(0, 3, 3)
        blocks = rng.integers(0, 256, (5, 7, 3)).repeat(8, 0).repeat(8, 1)
        frames.append([flat, noisy, blocks, pictures(3, (40, 56))[2]][rng.integers(4)].astype(np.uint8))
    with VideoWriter(tmp_path / "a.gif") as writer:
        for frame in frames:
            writer.write(frame)
    for before, after in zip(frames, VideoReader(tmp_path / "a.gif"), strict=True):
        if len(np.unique(before.reshape(-1, 3), axis=0)) <= 255:
            np.testing.assert_array_equal(after, before)
        else:
            assert np.abs(after.astype(int) - before).mean() < 6


def test_decode_times_of_short_videos_follow_from_those_they_are_shown_at() -> None:
    for shown, expected in (
        ([0], [0]),
        ([0, 512], [0, 512]),
        ([0, 30, 10], [-20, -10, 10]),
        ([0, 900, 300, 100], [-800, -700, -500, 100]),
    ):
        packets = [av.Packet(b"x") for _ in shown]
        for packet, pts in zip(packets, shown, strict=True):
            packet.pts, packet.dts = pts, -244813135929  # as x265 leaves it
        mend_decode_times(packets)
        decode = [packet.dts for packet in packets]
        assert decode == sorted(set(decode))
        assert all(dts <= pts for dts, pts in zip(decode, shown, strict=True))
        assert decode == expected


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts"])
def test_short_hevc_videos_again_and_again_in_one_process(tmp_path: Path, suffix: str) -> None:
    """x265 leaves the decode times of one or two frames to chance, the more so the more the process has done."""
    rng = np.random.default_rng(0)
    readers = [
        VideoReader(write_video(tmp_path / f"{count}.mkv", pictures(count, (64, 64), np.uint16), codec="ffv1",
                                pixel_format="yuv420p10le"))
        for count in (1, 2, 3)
    ]  # fmt: skip
    for round_ in range(15):
        for reader in readers:
            with VideoWriter(tmp_path / f"out{suffix}", reader) as writer:
                for pixels, timing in reader.stamped():
                    writer.write(pixels, timing)
            assert writer.codec == "hevc"
            assert seconds(tmp_path / f"out{suffix}") == pytest.approx(seconds(reader.path), abs=1e-3), round_
            _ = [rng.bytes(int(rng.integers(100, 300_000))) for _ in range(5)]  # stirs the heap
