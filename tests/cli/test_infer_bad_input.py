"""What goes wrong gets one line and exit code 2, leaves the input as it was and nothing half-written."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from deblurkit import cli
from deblurkit.image_io import write_image
from tests.cli.conftest import Infer
from tests.support.runs import deblurkit, start
from tests.support.videos import pictures, write_video


def state(folder: Path) -> dict[str, str]:
    """Every file with a hash of its content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def lines(said: str) -> list[str]:
    return [line for line in said.splitlines() if not line.startswith("restoring ")]


def truncated(path: Path) -> None:
    data = write_video(path, pictures(30), audio="aac").read_bytes()
    path.write_bytes(data[: len(data) // 2])


def without_index(path: Path) -> None:
    """A recording that was not finished: the index would have come last."""
    data = write_video(path, pictures(30)).read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def damaged_inside(path: Path) -> None:
    write_video(path, pictures(30, (64, 64)), codec="mjpeg", pixel_format="yuvj420p")
    with av.open(str(path)) as container:
        middle = container.streams.video[0].index_entries[15]
        place, size = middle.pos, middle.size
    data = bytearray(path.read_bytes())
    data[place : place + size] = bytes(size)
    path.write_bytes(data)


def cut_picture(path: Path) -> None:
    write_image(path.with_suffix(".png"), pictures(1)[0])
    path.write_bytes(path.with_suffix(".png").read_bytes()[:-30])
    path.with_suffix(".png").unlink()


def sizes_differ(path: Path) -> None:
    write_image(path / "1.png", pictures(1)[0])
    write_image(path / "2.png", pictures(1, (64, 64))[0])


def folder_of_text(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("x")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (truncated, "is cut off: "),
        (without_index, "has no index (moov): the recording was not finished"),
        (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
        (audio_only, "has no video stream, only audio"),
        (lambda path: path.write_text("dear diary\n" * 40), "is not a video"),
        (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "is not a video"),
        (damaged_inside, "is damaged after frame "),
        (cut_picture, "is cut off"),
        (folder_of_text, "holds no pictures"),
        (sizes_differ, "a sequence has one size"),
        (lambda path: None, "does not exist"),
    ],
    ids=["truncated", "no-index", "zero-bytes", "audio-only", "text", "noise", "damaged", "picture", "folder", "sizes",
         "missing"],
)  # fmt: skip
def test_bad_files(tmp_path: Path, infer: Infer, make: Callable[[Path], Any], expected: str) -> None:
    make(tmp_path / "in.mp4")
    before = state(tmp_path)
    code, said = infer(tmp_path / "in.mp4", "--compare-slider")
    errors = [line for line in lines(said) if line.startswith("error: ")]
    assert (code, len(errors), lines(said)[-1]) == (2, 1, errors[0]), said
    assert expected in said
    assert str(tmp_path / "in.mp4") in said or "frame 1 is 64x64" in said
    assert state(tmp_path) == before


@pytest.mark.parametrize("call", ["iterdir", "open", "exists", "is_dir"])
def test_what_may_not_be_read_is_named(
    tmp_path: Path, infer: Infer, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Rights stand in the way at different calls, by what they cover; tests may run as root, whom nothing stops."""
    locked = tmp_path / "locked"
    write_image(locked / "a.png", pictures(1)[0])
    original: Callable[..., Any] = getattr(Path, call)

    def refused(self: Path, *arguments: Any, **named: Any) -> Any:
        if self == locked or locked in self.parents:
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, *arguments, **named)

    name = locked if call == "iterdir" else locked / "a.png"
    monkeypatch.setattr(Path, call, refused)
    code, said = infer(name)
    monkeypatch.undo()
    assert (code, lines(said)) == (2, [f"error: {name}: cannot be read: Permission denied"])
    assert list(state(tmp_path)) == ["locked/a.png"]


def test_a_codec_that_this_build_lacks(tmp_path: Path, infer: Infer, monkeypatch: pytest.MonkeyPatch) -> None:
    original = av.Codec

    def lacking(name: str, mode: str = "r") -> av.Codec:
        if name == "libx265":
            raise av.codec.codec.UnknownCodecError(name)
        return original(name, mode)

    write_video(tmp_path / "a.mp4", pictures(2, (64, 64)))
    monkeypatch.setattr(av, "Codec", lacking)
    code, said = infer(tmp_path / "a.mp4", "--codec", "libx265")
    assert (code, len(lines(said))) == (2, 1)
    assert "--codec libx265: this build of PyAV" in said
    assert list(state(tmp_path)) == ["a.mp4"]


def small_disk() -> None:
    """Files may have 20 kB."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@pytest.mark.skipif(os.name == "nt", reason="limits of processes")
@pytest.mark.parametrize("output", ["b.mp4", "b.mkv", "b.gif", "frames/"])
def test_a_full_disk(tmp_path: Path, weights: Path, output: str) -> None:
    noise = [np.random.default_rng(i).integers(0, 256, (160, 160, 3), np.uint8) for i in range(8)]
    source = write_video(tmp_path / "a.mp4", noise)
    before = state(tmp_path)
    run = start(
        "infer", source, "-o", f"{tmp_path}/{output}", "--weights", weights, "--device", "cpu", before=small_disk
    )
    done = run.wait()
    assert done.returncode == 2, done.stderr
    assert len(lines(done.stderr)) == 1
    assert "cannot be written: File too large" in done.stderr
    assert state(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_the_output_is_the_input(tmp_path: Path, infer: Infer) -> None:
    write_video(tmp_path / "a.mp4", pictures(3))
    write_image(tmp_path / "p.png", pictures(1)[0])
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    before = state(tmp_path)
    for source, output in (("a.mp4", "a.mp4"), ("a.mp4", "link.mp4"), ("p.png", "p.png")):
        code, said = infer(tmp_path / source, "-o", tmp_path / output, "--overwrite")
        assert (code, len(lines(said))) == (2, 1)
        assert "is the input itself" in said
    assert state(tmp_path) == before


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("output", ["b.mp4", "frames/"])
def test_an_interrupt(tmp_path: Path, weights: Path, number: signal.Signals, output: str) -> None:
    source = write_video(tmp_path / "long.mp4", pictures(8, (128, 128)) * 100)
    before = state(tmp_path)
    run = start("infer", source, "-o", f"{tmp_path}/{output}", "--weights", weights, "--device", "cpu")
    run.wait_for(lambda: len(list(tmp_path.glob(".*"))) > 0)  # the work has begun
    time.sleep(0.2)
    run.send_signal(number)
    done = run.wait(30)
    assert done.returncode == (130 if number == signal.SIGINT else 143), done.stderr
    assert "Traceback" not in done.stderr
    assert len(lines(done.stderr)) <= 1
    assert state(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["long.mp4"]


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("seconds", [0.4, 0.9, 1.6])
def test_an_interrupt_while_it_starts(tmp_path: Path, weights: Path, seconds: float) -> None:
    """Whatever is being imported by then."""
    source = write_video(tmp_path / "a.mp4", pictures(8, (128, 128)) * 100)
    run = start("infer", source, "--weights", weights, "--device", "cpu")
    time.sleep(seconds)
    run.send_signal(signal.SIGINT)
    done = run.wait(30)
    assert done.returncode in (130, -signal.SIGINT)  # the latter: before Python itself had started
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_an_interrupt_in_a_finalizer_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, expected: type[BaseException]
) -> None:
    """Python drops the exception there."""

    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def interrupted() -> None:
        Dying()
        for _ in range(2000):  # until it comes again
            time.sleep(0.01)

    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    monkeypatch.setattr(sys, "unraisablehook", cli._ask_again)
    try:
        with pytest.raises(expected):
            interrupted()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_program_that_stops_reading(tmp_path: Path, infer: Infer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`deblurkit infer ... -o - | head -c 10`."""

    class Closed:
        def isatty(self) -> bool:
            return False

        @property
        def buffer(self) -> Any:
            return self

        def write(self, data: bytes) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    source = write_video(tmp_path / "a.mp4", pictures(6))
    monkeypatch.setattr(sys, "stdout", Closed())
    code, said = infer(source, "-o", "-")
    monkeypatch.undo()
    assert (code, lines(said)) == (2, ["error: -o -: the program that reads standard output has ended"])


def test_settings_that_do_not_fit(tmp_path: Path, infer: Infer) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(2))
    write_image(tmp_path / "p.png", pictures(1)[0])
    before = state(tmp_path)
    for arguments, expected in (
        ([source, "--fps", "fast"], "--fps fast: use a number"),
        ([source, "--fps", "1/0"], "use a number"),
        ([source, "-o", tmp_path / "b.xyz"], ".xyz is no video file"),
        ([tmp_path / "p.png", "-o", tmp_path / "b.mp4"], "pictures are written as"),
        ([source, "--codec", "pngg"], "did you mean 'png'"),
        ([source, "--crf", "20", "--lossless"], "leave --crf out"),
        ([source, source, "-o", "-"], "standard output takes the result of one input"),
        ([source, "-o", "-", "--compare-slider"], "the page needs a place"),
        ([source, "-o", "-", "--procs", "2"], "standard input and output need one process"),
        ([source, "-o", "-", "--codec", "png"], "a folder of frames cannot go to standard output"),
    ):
        code, said = infer(*arguments)
        assert code == 2
        assert expected in said
        assert "Traceback" not in said
    assert state(tmp_path) == before


def test_the_command_leaves_no_traceback_in_a_process_of_its_own(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    done = deblurkit("infer", tmp_path / "a.mp4", "--weights", weights)
    assert done.returncode == 2
    assert lines(done.stderr) == [f"error: {tmp_path / 'a.mp4'}: is not a video: its content is no video format"]
