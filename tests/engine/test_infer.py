from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deblurkit.cli import main
from deblurkit.engine.infer import Encoding, expand, infer
from deblurkit.engine.pipeline import restore_into
from deblurkit.engine.restore import Restorer
from deblurkit.errors import DataError, DeblurkitError
from deblurkit.image_io import read_image, write_image
from deblurkit.video.reader import VideoReader
from tests.support.networks import CopyImage, CopyWindow
from tests.support.videos import copied_packets, decoded, pictures, seconds, write_video

Infer = Callable[..., tuple[int, str]]


@pytest.fixture
def run(weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Infer]:
    """`deblurkit infer` in this process: exit code and what it said."""
    before = signal.getsignal(signal.SIGTERM)

    def command(*arguments: Any, weights: Path | None = weights) -> tuple[int, str]:
        options = ["--weights", str(weights)] if weights else []
        monkeypatch.setattr(sys, "argv", ["deblurkit", "infer", *map(str, arguments), "--device", "cpu", *options])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    yield command
    signal.signal(signal.SIGTERM, before)


def restorer(net: Any = None) -> Restorer:
    return Restorer(net or CopyWindow(), device="cpu")


def test_a_video_with_sound(tmp_path: Path, run: Infer) -> None:
    source = write_video(tmp_path / "clip.mp4", pictures(12), audio="aac")
    code, said = run(source, "--crf", 4)
    result = tmp_path / "clip_deblurred.mp4"
    assert code == 0
    assert "clip.mp4: 12 frames in" in said
    assert str(result) in said
    assert seconds(result) == seconds(source)
    assert copied_packets(result) == copied_packets(source)
    for before, after in zip(VideoReader(source), VideoReader(result), strict=True):
        assert np.abs(before.astype(int) - after).mean() < 3


def test_pictures_keep_their_kind(tmp_path: Path, run: Infer) -> None:
    deep, plain = pictures(1, dtype=np.uint16)[0], pictures(1)[0]
    write_image(tmp_path / "deep.png", deep)
    write_image(tmp_path / "plain.tif", plain)
    code, said = run(tmp_path / "deep.png", tmp_path / "plain.tif")
    assert code == 0
    assert "give their folder" in said  # DBN is a video network
    np.testing.assert_array_equal(read_image(tmp_path / "deep_deblurred.png"), deep)
    np.testing.assert_array_equal(read_image(tmp_path / "plain_deblurred.tif"), plain)


def test_a_folder_of_frames_gives_a_folder(tmp_path: Path, run: Infer) -> None:
    frames = pictures(7)
    for index, frame in enumerate(frames):
        write_image(tmp_path / "shot" / f"{index}.png", frame)
    assert run(tmp_path / "shot")[0] == 0
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(read_image(tmp_path / "shot_deblurred" / f"{index}.png"), frame)
    assert run(tmp_path / "shot", "-o", tmp_path / "mine")[0] == 0
    assert len(list((tmp_path / "mine").iterdir())) == 7


def test_lossless(tmp_path: Path, run: Infer) -> None:
    source = write_video(tmp_path / "clip.mp4", pictures(6))
    code, said = run(source, "--lossless")
    assert code == 0
    assert "the result is a .mkv file; .mp4 cannot hold it" in said
    np.testing.assert_array_equal(list(VideoReader(source)), list(VideoReader(tmp_path / "clip_deblurred.mkv")))


def test_where_results_go(tmp_path: Path) -> None:
    one = write_video(tmp_path / "one.mp4", pictures(2))
    two = write_video(tmp_path / "two.mkv", pictures(2))
    (tmp_path / "there").mkdir()
    cases: list[tuple[list[Path], str | None, list[str]]] = [
        ([one], None, ["one_deblurred.mp4"]),
        ([one], "there", ["there/one_deblurred.mp4"]),
        ([one], "there/", ["there/one_deblurred.mp4"]),
        ([one], "newer", ["newer/one_deblurred.mp4"]),
        ([one], "sub/mine.mkv", ["sub/mine.mkv"]),
        ([one, two], "both", ["both/one_deblurred.mp4", "both/two_deblurred.mkv"]),
    ]
    for inputs, output, expected in cases:
        place = f"{tmp_path}/{output}" if output else None
        results = infer(restorer(), [str(p) for p in inputs], place, overwrite=True)
        assert results == [tmp_path / name for name in expected]
        assert all(len(decoded(path)) == 2 for path in results)


def test_patterns_stand_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("f10.png", "f2.png", "g.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [p.name for p in expand([f"{tmp_path}/f*.png"])] == ["f2.png", "f10.png"]
    monkeypatch.chdir(tmp_path)
    assert list(expand(["f*.png", "g.txt"])) == [Path("f2.png"), Path("f10.png"), Path("g.txt")]
    (tmp_path / "odd[1].png").write_bytes(b"x")
    assert list(expand(["odd[1].png"])) == [Path("odd[1].png")]  # a file of that very name
    with pytest.raises(DataError, match="matches no file"):
        list(expand(["*.mp4"]))


def test_existing_results_and_the_input_are_safe(tmp_path: Path, run: Infer) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(3))
    content = source.read_bytes()
    (tmp_path / "a_deblurred.mp4").write_bytes(b"old")
    code, said = run(source)
    assert (code, (tmp_path / "a_deblurred.mp4").read_bytes()) == (2, b"old")
    assert "--overwrite" in said
    assert run(source, "--overwrite")[0] == 0
    assert len(decoded(tmp_path / "a_deblurred.mp4")) == 3
    (tmp_path / "link.mp4").symlink_to(source)
    for output in (source, tmp_path / "link.mp4"):
        code, said = run(source, "-o", output, "--overwrite")
        assert (code, source.read_bytes()) == (2, content)
        assert "is the input itself" in said


def test_the_others_go_on_when_one_fails(tmp_path: Path, run: Infer) -> None:
    (tmp_path / "b.mp4").write_text("no video")
    sources = [write_video(tmp_path / name, pictures(2)) for name in ("a.mp4", "c.mp4")]
    code, said = run(sources[0], tmp_path / "b.mp4", sources[1], tmp_path / "none.mp4", "-o", tmp_path / "out")
    assert code == 2
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_deblurred.mp4", "c_deblurred.mp4"]
    assert said.rstrip().endswith(f"2 of 4 inputs failed: {tmp_path / 'b.mp4'}, {tmp_path / 'none.mp4'}")


def test_two_inputs_of_one_name_do_not_replace_each_other(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_video(tmp_path / folder / "a.mp4", pictures(2))
    names = [str(tmp_path / folder / "a.mp4") for folder in ("x", "y")]
    with pytest.raises(DeblurkitError, match="1 of 2 inputs failed"):
        infer(restorer(), names, str(tmp_path / "out"), Encoding(), overwrite=True)


def test_wrong_settings_get_one_line_and_leave_nothing(tmp_path: Path, run: Infer) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(2))
    cases = [
        (["--tile", "many"], "use auto, 0 or a number"),
        (["--codec", "libx26"], "did you mean 'libx26"),
        (["--crf", "90"], "takes 0 (best) to 51"),
        (["-o", tmp_path / "a.png"], "is no video file"),
        (["--precision", "fp16"], "DBN is not safe in it"),
    ]
    for options, expected in cases:
        code, said = run(source, *options)
        assert (code, said.count("\n")) == (2, 1)
        assert expected in said
    code, said = run(source, weights=None)
    assert (code, said.count("\n")) == (2, 1)
    assert "--weights FILE" in said
    assert run(source, weights=tmp_path / "none.pth")[0] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


class Source:
    """Pictures with their numbers; counts how many of those made were not written yet."""

    def __init__(self, count: int, fail_at: int = -1, pause: float = 0.0) -> None:
        self.count, self.fail_at, self.pause = count, fail_at, pause
        self.made = 0

    def stamped(self) -> Iterator[tuple[Any, int]]:
        for index in range(self.count):
            time.sleep(self.pause)
            if index == self.fail_at:
                raise DataError("decode broke")
            self.made += 1
            yield np.full((4, 4, 3), index % 256, np.uint8), index


class Sink:
    """Remembers what is written."""

    def __init__(self, source: Source, fail_at: int = -1, pause: float = 0.0) -> None:
        self.source, self.fail_at, self.pause = source, fail_at, pause
        self.stamps: list[int] = []
        self.most_waiting = 0

    def write(self, pixels: Any, stamp: int) -> None:
        time.sleep(self.pause)
        if stamp == self.fail_at:
            raise DataError("encode broke")
        assert (pixels == stamp % 256).all()
        self.stamps.append(stamp)
        self.most_waiting = max(self.most_waiting, self.source.made - len(self.stamps))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_the_pipeline_loses_and_invents_nothing(count: int) -> None:
    source = Source(count)
    sink = Sink(source)
    assert restore_into(restorer(), source, sink) == count
    assert sink.stamps == list(range(count))


def test_the_pipeline_holds_a_bounded_number_of_frames() -> None:
    source = Source(200)
    sink = Sink(source, pause=0.001)
    restore_into(restorer(), source, sink)
    assert sink.most_waiting <= 20


def test_the_stages_overlap() -> None:
    class Slow(CopyImage):
        def forward(self, x: Any) -> Any:
            time.sleep(0.03)
            return x

    source = Source(20, pause=0.03)
    started = time.monotonic()
    restore_into(restorer(Slow()), source, Sink(source, pause=0.03))
    assert time.monotonic() - started < 0.75 * 20 * 0.09


@pytest.mark.parametrize("stage", ["decode", "restore", "encode", "interrupt"])
@pytest.mark.parametrize("at", [0, 3, 59])
def test_an_error_in_any_stage_stops_all_of_them(stage: str, at: int) -> None:
    class Breaks(CopyImage):
        calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            if self.calls == at + 1 and stage in ("restore", "interrupt"):
                raise KeyboardInterrupt if stage == "interrupt" else DataError("restore broke")
            return x

    source = Source(60, fail_at=at if stage == "decode" else -1)
    sink = Sink(source, fail_at=at if stage == "encode" else -1)
    threads = threading.active_count()
    with pytest.raises(
        KeyboardInterrupt if stage == "interrupt" else DataError,
        match=None if stage == "interrupt" else f"{stage} broke",
    ):
        restore_into(restorer(Breaks()), source, sink)
    assert threading.active_count() == threads
    assert sink.stamps == list(range(len(sink.stamps)))
