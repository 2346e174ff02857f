"""`deblurkit infer` with --resume, --procs, --benchmark and --no-shots."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deblurkit.archs.dbn_arch import DBN
from deblurkit.engine import segments
from deblurkit.engine.checkpoint import save_network
from deblurkit.engine.infer import Comparison, Work, infer
from deblurkit.engine.launch import Place
from deblurkit.engine.meeting import Meeting
from deblurkit.engine.parts import Parts
from deblurkit.engine.restore import Restorer
from deblurkit.engine.stages import STAGES, Stages
from deblurkit.errors import DataError, DeblurkitError
from deblurkit.image_io import write_image
from deblurkit.video.reader import VideoReader
from tests.support.networks import ConvWindow, CopyImage
from tests.support.videos import copied_packets, decoded, pictures, write_video

RESUME = Work(resume=True)


def restorer() -> Restorer:
    torch.manual_seed(0)
    return Restorer(ConvWindow(), device="cpu")


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    return [write_video(tmp_path / name, pictures(12, seed=i)) for i, name in enumerate(("a.mp4", "b.mp4", "c.mp4"))]


def test_a_batch_goes_on_where_it_was(
    videos: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(segments, "SEGMENT", 5)
    names = [str(path) for path in videos]
    second = videos[1].with_name("b_deblurred.mp4")
    broken, calls = restorer(), 0
    plain = broken._runner.restore

    def restore(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 12 + 9:
            while not Parts(second).segments():  # the encoder is a few frames behind
                time.sleep(0.01)
            raise KeyboardInterrupt
        return plain(*arguments)

    broken._runner.restore = restore  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        infer(broken, names, work=RESUME)
    folder = videos[0].parent
    assert sorted(path.name for path in folder.glob("*_deblurred*")) == [
        "a_deblurred.mp4",
        "b_deblurred.mp4.parts",
    ]
    assert "b_deblurred.mp4.parts: 5 frames are done; the same command with --resume" in capsys.readouterr().err
    results = infer(restorer(), names, work=RESUME)
    said = capsys.readouterr().err
    assert "a.mp4: " in said
    assert "a_deblurred.mp4 is there" in said
    assert "b.mp4: goes on at frame 5" in said
    assert "b.mp4: 12 frames (5 by an earlier run) in" in said
    assert [path.name for path in results] == ["a_deblurred.mp4", "b_deblurred.mp4", "c_deblurred.mp4"]
    assert [len(decoded(path)) for path in results] == [12] * 3
    assert not list(folder.glob("*.parts"))


def test_what_parts_cannot_do_is_said_before_the_work(tmp_path: Path, videos: list[Path]) -> None:
    with pytest.raises(DeblurkitError, match="do not go with --side-by-side"):
        infer(restorer(), [str(videos[0])], comparison=Comparison(side_by_side=True), work=RESUME)
    with pytest.raises(DeblurkitError, match=r"a \.gif cannot be made in parts"):
        infer(restorer(), [str(videos[0])], str(tmp_path / "out.gif"), work=RESUME)
    with pytest.raises(DataError, match="is the input itself"):
        infer(restorer(), [str(videos[0])], str(videos[0]), work=RESUME)


def test_inputs_are_shared_by_processes(videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Meeting(Place(torch.device("cpu")))
    monkeypatch.setattr("deblurkit.engine.infer.Meeting", lambda place: alone)  # one after the other, not waiting
    write_image(tmp_path / "d.png", pictures(1)[0])
    gif = write_video(tmp_path / "e.gif", pictures(5), codec="gif", pixel_format="rgb8", time_base=Fraction(1, 25))
    names = [str(path) for path in [*videos, tmp_path / "d.png", gif]]
    shares = ["a_deblurred.mp4", "c_deblurred.mp4", "e_deblurred.gif"], ["b_deblurred.mp4", "d_deblurred.png"]
    for rank, expected in enumerate(shares):
        work = Work(place=Place(torch.device("cpu"), rank, 2))
        assert [path.name for path in infer(Restorer(CopyImage(), device="cpu"), names, work=work)] == expected
    assert all((tmp_path / f"{name}_deblurred.mp4").exists() for name in "abc")


def test_the_stages_are_shown(videos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    infer(restorer(), [str(videos[0])], work=Work(benchmark=True))
    said = capsys.readouterr().err
    assert "12 frames in" in said
    assert all(title in said for title in STAGES.values())


def test_waiting_is_not_restoring() -> None:
    stages = Stages()

    def network() -> Any:
        for _ in range(3):
            with stages.time("wait"):
                time.sleep(0.05)
            time.sleep(0.01)
            yield 1

    assert sum(stages.each("restore", network())) == 3
    assert stages.seconds["wait"] >= 0.15
    assert stages.seconds["restore"] < stages.seconds["wait"]


def test_two_processes_make_what_one_makes(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(210, (32, 32)), audio="aac")
    weights = tmp_path / "net.pth"
    torch.manual_seed(0)
    save_network(weights, DBN(inner_channels=2))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "deblurkit", "infer", str(source), "--weights", str(weights), "--lossless"]
    two = subprocess.run(
        [*command, "--procs", "2", "-o", str(tmp_path / "two.mkv")],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr
    assert "210 frames in" in two.stderr
    one = Restorer.from_weights(weights, device="cpu", precision="fp32")
    assert one.restore_video(source, tmp_path / "one.mkv", lossless=True) == 210
    for a, b in zip(VideoReader(tmp_path / "one.mkv"), VideoReader(tmp_path / "two.mkv"), strict=True):
        np.testing.assert_array_equal(a, b)
    assert copied_packets(tmp_path / "one.mkv") == copied_packets(tmp_path / "two.mkv")
    assert not (Parts(tmp_path / "two.mkv").folder).exists()
