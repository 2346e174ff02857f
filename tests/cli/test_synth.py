"""`deblurkit synth`: from files to sequences; mistakes are one line and leave nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from deblurkit.cli.app import app
from deblurkit.data.layouts import PairedLayout, find_layout
from deblurkit.data.video_dataset import VideoDataset
from deblurkit.image_io import read_image, write_image
from deblurkit.video.reader import VideoReader
from deblurkit.video.writer import VideoWriter
from tests.support.layout_trees import gopro_large_all, photos
from tests.support.trees import make_tree


def synth(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["synth", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten frames of grey, each brighter than the last."""
    for i in range(10):
        write_image(tmp_path / "ramp" / f"{i}.png", np.full((16, 24, 3), 20 * i, np.uint8))
    return tmp_path / "ramp"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Ten frames at 120 frames a second."""
    with VideoWriter(tmp_path / "clip.mkv", rate=120, lossless=True) as writer:
        for i in range(10):
            writer.write(np.full((16, 24, 3), 20 * i, np.uint8))
    return tmp_path / "clip.mkv"


def test_a_folder_and_a_video(tmp_path: Path, folder: Path, video: Path) -> None:
    result = synth(folder, video, "-o", tmp_path / "out", "--frames", 3, "--curve", "linear")
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'out' / 'train' / 'ramp'}: 3 pairs" in result.stdout
    found = PairedLayout().scan(tmp_path / "out", "train")
    assert {name: len(pairs) for name, pairs in found.items()} == {"clip": 3, "ramp": 3}
    for pairs in found.values():
        for i, pair in enumerate(pairs):
            assert pair.name == f"{i:06d}"
            assert (read_image(pair.lq) == 20 * (3 * i + 1)).all()
            assert (read_image(pair.gt) == 20 * (3 * i + 1)).all()


def test_all_options(tmp_path: Path, video: Path) -> None:
    result = synth(
        video, "-o", tmp_path / "out", "--split", "test", "--frames", 2, "--stride", 3, "--curve", "srgb",
        "--scale", 0.5, "--limit", 2, "--video",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    pairs = PairedLayout().scan(tmp_path / "out", "test")["clip"]
    assert [int(read_image(pair.gt)[0, 0, 0]) for pair in pairs] == [20, 80]
    assert read_image(pairs[0].lq).shape == (8, 12, 3)
    assert VideoReader(tmp_path / "out" / "test" / "clip_blur.mp4").rate == 40
    again = synth(video, "-o", tmp_path / "out", "--split", "test", "--overwrite", "--video", "--fps", 70)
    assert again.exit_code == 0, again.output
    assert VideoReader(tmp_path / "out" / "test" / "clip_sharp.mp4").rate == 10


def test_frames_of_a_data_set(tmp_path: Path) -> None:
    sharp = make_tree(tmp_path / "data", sequences=1, frames=7) / "train" / "seq000" / "sharp"
    assert synth(sharp, "-o", tmp_path / "out").exit_code == 0
    assert len(PairedLayout().scan(tmp_path / "out", "train")["sharp"]) == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["ramp", "--frames", "11"], "ramp: has fewer than 11 frames"),
        (["ramp", "--curve", "gama2.2"], "did you mean 'gamma2.2'"),
        (["ramp", "--frames", "1"], "at least 2"),
        (["ramp", "--scale", "1.5"], "between 0 and 1"),
        (["ramp", "--video"], "state the frame rate"),
        (["ramp", "--video", "--fps", "0"], "must be above 0"),
        (["ramp", "ramp"], "two inputs are called ramp"),
        (["ramp", "missing.mp4"], "does not exist"),
        (["empty"], "holds no pictures"),
        (["text.mp4"], "is not a video"),
        (["ramp", "damaged"], "is cut off"),
    ],
)
def test_mistakes(
    tmp_path: Path, folder: Path, arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("text.mp4").write_text("not a video")
    Path("damaged").mkdir()
    for path in folder.iterdir():
        Path("damaged", path.name).write_bytes(path.read_bytes()[:-10])
    result = synth(*arguments, "-o", "out")
    assert result.exit_code == 2, result.output
    assert text in result.stderr
    errors = [line for line in result.stderr.splitlines() if not line.startswith("averaging")]
    assert len(errors) == 1
    assert not list(tmp_path.glob("out/*/.*"))
    if "damaged" not in arguments:
        assert not Path("out").exists()


def test_existing_output(tmp_path: Path, folder: Path) -> None:
    assert synth(folder, "-o", tmp_path / "out", "--frames", 3).exit_code == 0
    result = synth(folder, "-o", tmp_path / "out", "--frames", 5)
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert synth(folder, "-o", tmp_path / "out", "--frames", 5, "--overwrite").exit_code == 0
    assert len(PairedLayout().scan(tmp_path / "out", "train")["ramp"]) == 2


def test_photos(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    arguments = (root, "-o", tmp_path / "mine", "--size", "48x32", "--length", 2, "--motion", "2:5", "--objects", 1)
    result = synth(*arguments, "--val-share", 0.34, "--noise", 1, "--crf", 30)
    assert result.exit_code == 0, result.output
    assert "pictures that differ are taken for photos" in result.stderr
    layout = find_layout(tmp_path / "mine")
    assert {split: len(layout.scan(tmp_path / "mine", split)) for split in layout.splits(tmp_path / "mine")} == {
        "train": 4,
        "val": 2,
    }
    again = synth(*arguments, "--val-share", 0.34, "--noise", 1, "--crf", 30)
    assert again.exit_code == 0
    assert "6 of 6 sequence(s) are there already" in again.stderr
    assert again.stdout == result.stdout
    other = synth(*arguments, "--val-share", 0.34)
    assert other.exit_code == 2
    assert "exists already and was made otherwise" in other.stderr


def test_shake_as_lmdb(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    result = synth(
        root, "--mode", "shake", "-o", tmp_path / "mine", "--size", "32x32", "--length", 3, "--lmdb", "--limit", 2
    )
    assert result.exit_code == 0, result.output
    data = VideoDataset(tmp_path / "mine", "train", num_frame=3)
    assert len(data) == 2
    assert data.fingerprint()["storage"] == "lmdb"


def test_gopro_large_all(tmp_path: Path) -> None:
    result = synth(gopro_large_all(tmp_path / "GOPRO_Large_all"), "-o", tmp_path / "GoPro")
    assert result.exit_code == 0, result.output
    assert find_layout(tmp_path / "GoPro").name == "gopro"
    assert "GOPR0372_07_00 has 23 frames instead of 700" in result.stderr


def test_treatment_of_reds(tmp_path: Path, folder: Path) -> None:
    """Frames between frames, a shutter that is closed for a part, a measured curve."""
    result = synth(folder, "-o", tmp_path / "out", "--interpolate", 4, "--stride", 5, "--duty", 0.8, "--curve", "reds")
    assert result.exit_code == 0, result.output
    pairs = PairedLayout().scan(tmp_path / "out", "train")["ramp"]
    assert [int(read_image(pair.gt)[0, 0, 0]) for pair in pairs] == [40, 140]
    assert 40 <= read_image(pairs[0].lq)[0, 0, 0] < 55  # the mean of light is brighter than that of pixels


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--frames", "3"], "--frames is for averaging frames of video"),
        (["--size", "big"], "a width and a height such as 640x360"),
        (["--size", "800x600"], "frames of 800x600 need a photo that is"),
        (["--size", "48x32", "--motion", "a:b"], "a range of pixels such as 1:24"),
        (["--size", "48x32", "--crf", "60"], "from 0 (best) to 51"),
        (["--size", "48x32", "--noise", "-1"], "noise"),
        (["--size", "48x32", "--seed", "-1"], "a seed of -1"),
        (["--size", "48x32", "--lmdb", "--video"], "leave one of the two out"),
    ],
)
def test_mistakes_with_photos(tmp_path: Path, arguments: list[str], text: str) -> None:
    root = photos(tmp_path / "photos")
    result = synth(root, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2, result.output
    assert text in result.stderr
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.lmdb").exists()
