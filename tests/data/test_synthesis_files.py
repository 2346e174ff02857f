"""Whole data sets by synthesis: what is found, named, resumed and left out; files and LMDBs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deblurkit.data.layouts import LAYOUTS, PairedLayout, find_layout, scan
from deblurkit.data.layouts_sources import gopro_exposure
from deblurkit.data.photo_clips import PhotoClips
from deblurkit.data.synthesis_inputs import Request, synthesise_inputs
from deblurkit.data.synthesis_jobs import Output
from deblurkit.data.synthesis_writer import RECORD
from deblurkit.data.video_dataset import VideoDataset
from deblurkit.errors import DataError
from deblurkit.image_io import read_image, write_image
from tests.support.layout_trees import gopro_large_all, photos
from tests.support.trees import make_tree

SMALL = Request(size="48x32", length=2)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.png"))}


def test_gopro_large_all_becomes_gopro_large(tmp_path: Path) -> None:
    """Names of frames as issue 59 of its authors has them: pair 000047 is made of frames 000323 to 000329."""
    root = gopro_large_all(tmp_path / "all")
    made = synthesise_inputs([root], Request(), Output(tmp_path / "GoPro", workers=2))
    assert {path.relative_to(tmp_path / "GoPro").as_posix(): pairs for path, pairs in made.items()} == {
        "train/GOPR0372_07_00": 3,
        "train/GOPR0372_07_01": 2,  # its first exposure is cut, the rest of it is left out
        "test/GOPR0384_11_05": 2,
    }
    folder = tmp_path / "GoPro" / "train" / "GOPR0372_07_00"
    assert [path.name for path in sorted((folder / "blur").iterdir())] == ["000047.png", "000048.png", "000049.png"]
    sources = [read_image(root / "train" / "GOPR0372_07_00" / f"{i:06d}.png") for i in range(323, 330)]
    np.testing.assert_array_equal(read_image(folder / "sharp" / "000047.png"), sources[3])
    light = (np.stack(sources) / 255.0) ** 2.2
    expected = light.mean(0) ** (1 / 2.2) * 255
    np.testing.assert_allclose(read_image(folder / "blur" / "000047.png"), expected, atol=0.51)
    # frame 0 is frame zz of the first exposure: the sharp frame of exposure k has position (yy - 1) / 2 - zz + k yy
    frames = sorted((root / "train" / "GOPR0372_07_01").iterdir())
    sharp = sorted((tmp_path / "GoPro" / "train" / "GOPR0372_07_01" / "sharp").iterdir())
    for k, path in enumerate(sharp, start=1):
        np.testing.assert_array_equal(read_image(path), read_image(frames[3 - 1 + 7 * k]))
    found = find_layout(tmp_path / "GoPro")
    assert found.name == "gopro"
    assert [pair.name for pair in found.scan(tmp_path / "GoPro", "train")["GOPR0372_07_00"]] == [
        "000047",
        "000048",
        "000049",
    ]


def test_exposures_of_gopro() -> None:
    assert gopro_exposure("GOPR0372_07_00") == (7, 0)
    assert gopro_exposure("GOPR0374_11_03") == (11, 8)
    for name in ("GOPR0372_07_07", "GOPR0372_01_00", "walk"):
        with pytest.raises(DataError, match="not of the form GOPRxxxx_yy_zz"):
            gopro_exposure(name)


def test_other_exposures_of_gopro_large_all(tmp_path: Path) -> None:
    root = gopro_large_all(tmp_path / "all")
    made = synthesise_inputs([root], Request(frames=3, stride=5, split="test"), Output(tmp_path / "out", split="test"))
    assert list(made.values()) == [7]
    names = sorted(path.name for path in (tmp_path / "out" / "test" / "GOPR0384_11_05" / "blur").iterdir())
    assert names[0] == "000000.png"


def test_sharp_frames_of_a_layout(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set", sequences=2, frames=7, size=(16, 24))
    made = synthesise_inputs([root], Request(layout="paired", frames=3), Output(tmp_path / "out"))
    assert sorted(made.values()) == [2] * 4
    sharp = read_image(tmp_path / "out" / "test" / "seq001" / "sharp" / "000001.png")
    np.testing.assert_array_equal(sharp, read_image(root / "test" / "seq001" / "sharp" / "00000004.png"))
    with pytest.raises(DataError, match="its splits stay as they are"):
        synthesise_inputs([root], Request(layout="paired"), Output(tmp_path / "other", held_out=0.5))


def test_photos_become_clips_in_two_splits(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    made = synthesise_inputs([root], SMALL, Output(tmp_path / "out", held_out=0.34))
    names = {path.relative_to(tmp_path / "out").as_posix() for path in made}
    assert names == {"train/1", "train/2", "val/10", "train/holiday_beach", "train/holiday_IMG.1", "val/holiday_sea"}
    assert find_layout(tmp_path / "out").name == "paired"
    for split in ("train", "val"):
        for name, pairs in PairedLayout().scan(tmp_path / "out", split).items():
            assert [pair.name for pair in pairs] == ["000000", "000001"]
            assert read_image(pairs[0].lq).shape == (32, 48, 3)
            record = json.loads((tmp_path / "out" / split / name / RECORD).read_text())
            assert (record["schema"], record["pairs"], record["mode"]) == ("deblurkit-synthesis/1", 2, "photos")


def test_small_photos_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path / "photos")
    made = synthesise_inputs([root], Request(size="64x48", length=1, mode="shake"), Output(tmp_path / "out"))
    assert len(made) == 5
    assert "1 of 6 photos are too small for frames of 64x48: left out" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"frames of 640x360 need a photo that is 1\.15 times as large"):
        synthesise_inputs([root], Request(), Output(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("mode", ["photos", "shake"])
def test_the_same_for_any_number_of_threads(tmp_path: Path, mode: str) -> None:
    root = photos(tmp_path / "photos")
    request = Request(mode=mode, size="48x32", length=2, crf=30)  # type: ignore[arg-type]
    for workers in (1, 3):
        synthesise_inputs([root], request, Output(tmp_path / str(workers), workers=workers))
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    synthesise_inputs([root], request, Output(tmp_path / "seed", seed=1))
    assert contents(tmp_path / "1") != contents(tmp_path / "seed")


def test_an_interrupted_run_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = photos(tmp_path / "photos")
    whole = tmp_path / "whole"
    synthesise_inputs([root], SMALL, Output(whole))
    real, calls = PhotoClips.make, []

    def make(self: PhotoClips, rng: np.random.Generator, key: str, *rest: int) -> object:
        calls.append(key)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, rng, key, *rest)

    monkeypatch.setattr(PhotoClips, "make", make)
    with pytest.raises(KeyboardInterrupt):
        synthesise_inputs([root], SMALL, Output(tmp_path / "out", workers=1))
    assert len(list((tmp_path / "out" / "train").iterdir())) == 3
    assert not list((tmp_path / "out").rglob(".*"))
    calls.clear()
    calls += ["-"] * 10
    synthesise_inputs([root], SMALL, Output(tmp_path / "out", workers=1))
    assert len(calls) == 10 + 3
    assert contents(tmp_path / "out") == contents(whole)
    # made by other numbers, of another photo
    with pytest.raises(DataError, match="exists already and was made otherwise"):
        synthesise_inputs([root], SMALL, Output(tmp_path / "out", seed=1))
    write_image(root / "1.png", np.zeros((80, 100, 3), np.uint8))
    with pytest.raises(DataError, match="train/1: exists already and was made otherwise"):
        synthesise_inputs([root], SMALL, Output(tmp_path / "out"))


def test_videos_that_were_not_moved_to_their_place_are_made_again(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    output = Output(tmp_path / "out", videos=True)
    synthesise_inputs([root], SMALL, output)
    video = tmp_path / "out" / "train" / "1_sharp.mp4"
    video.unlink()
    synthesise_inputs([root], SMALL, output)
    assert video.exists()
    assert not list((tmp_path / "out").rglob("*/*/*.mp4"))


def test_one_failure_stops_all_and_leaves_whole_sequences(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    path = root / "holiday" / "beach.jpg"
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"beach\.jpg: is cut off"):
        synthesise_inputs([root], SMALL, Output(tmp_path / "out", workers=2))
    assert not list((tmp_path / "out").rglob(".*"))
    for folder in (tmp_path / "out" / "train").iterdir():
        assert len(list(folder.glob("*/*.png"))) == 4
    assert not (tmp_path / "out" / "train" / "holiday_beach").exists()


@pytest.mark.parametrize("build", [photos, gopro_large_all])
def test_as_lmdb(tmp_path: Path, build: Callable[[Path], Path]) -> None:
    root = build(tmp_path / "source")
    request = SMALL if build is photos else Request()
    synthesise_inputs([root], request, Output(tmp_path / "files"))
    made = synthesise_inputs([root], request, Output(tmp_path / "set", lmdb=True))
    assert all(path.parent.parent == tmp_path / "set.lmdb" for path in made)
    assert not (tmp_path / "set").exists()
    assert not list((tmp_path / "set.lmdb").glob(".*"))
    for split in {path.parent.name for path in made}:
        stored = VideoDataset(tmp_path / "set", split, num_frame=1, storage="lmdb")
        files = VideoDataset(tmp_path / "files", split, num_frame=1)
        assert len(stored) == len(files)
        for i in range(len(files)):
            assert stored[i]["key"] == files[i]["key"]
            np.testing.assert_array_equal(stored[i]["lq"], files[i]["lq"])
            np.testing.assert_array_equal(stored[i]["gt"], files[i]["gt"])
    with pytest.raises(DataError, match="exists already"):
        synthesise_inputs([root], request, Output(tmp_path / "set", lmdb=True))
    assert synthesise_inputs([root], request, Output(tmp_path / "set", lmdb=True, overwrite=True)) == made


def test_which_inputs_are_video(tmp_path: Path) -> None:
    frames = make_tree(tmp_path / "set", sequences=1, frames=8) / "train" / "seq000" / "sharp"
    assert list(synthesise_inputs([frames], Request(frames=3), Output(tmp_path / "a")).values()) == [2]
    root = photos(tmp_path / "photos")
    assert len(synthesise_inputs([root], SMALL, Output(tmp_path / "b"))) == 6
    assert list(synthesise_inputs([root / "1.png"], SMALL, Output(tmp_path / "c"))) == [tmp_path / "c" / "train" / "1"]
    with pytest.raises(DataError, match="some inputs are video, others photos"):
        synthesise_inputs([frames, root], Request(), Output(tmp_path / "d"))
    with pytest.raises(DataError, match="--frames is for averaging frames of video"):
        synthesise_inputs([root], Request(frames=3), Output(tmp_path / "d"))


@pytest.mark.parametrize(
    ("request_", "output", "text"),
    [
        (Request(mode="photos", size="48"), {}, "a width and a height"),
        (Request(mode="photos", size="8x8"), {}, "16x16 pixels or more"),
        (Request(mode="photos", size="48x32", motion="9:2"), {}, "a range of pixels such as 1:24"),
        (Request(mode="photos", size="48x32", motion="fast"), {}, "a range of pixels such as 1:24"),
        (Request(mode="photos", size="48x32", layout="gopro"), {}, "--layout is for averaging"),
        (Request(mode="photos", size="48x32", interpolate=2), {}, "--interpolate is for averaging"),
        (Request(mode="photos", size="48x32"), {"held_out": 0.1}, "a share of 0.1 of 6 input"),
        (Request(mode="photos", size="48x32"), {"held_out": 1.0}, "below 1"),
        (Request(mode="photos", size="48x32"), {"lmdb": True, "videos": True}, "leave one of the two out"),
        (Request(mode="average", frames=3, duty=0.5), {}, "give one of them"),
        (Request(layout="gopro_larg_all"), {}, "did you mean 'gopro_large_all'"),
        (Request(layout="photos"), {}, "holds single pictures, no video"),
    ],
)
def test_mistakes(tmp_path: Path, request_: Request, output: dict[str, object], text: str) -> None:
    root = photos(tmp_path / "photos")
    with pytest.raises(DataError, match=text):
        synthesise_inputs([root], request_, Output(tmp_path / "out", **output))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_photos_of_one_name(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    (root / "holiday" / "beach.png").write_bytes((root / "1.png").read_bytes())
    with pytest.raises(DataError, match=r"beach\.jpg has the same name here \(holiday_beach\)"):
        synthesise_inputs([root], SMALL, Output(tmp_path / "out"))
    (root / "holiday" / "beach.png").rename(root / "holiday_beach.png")
    with pytest.raises(DataError, match="has the same name here"):
        synthesise_inputs([root], SMALL, Output(tmp_path / "out"))
    (root / "holiday_beach.png").unlink()
    with pytest.raises(DataError, match="gives a sequence of the same name \\(1\\)"):
        synthesise_inputs([root, root / "1.png"], Request(mode="photos"), Output(tmp_path / "out"))


def test_the_photos_layout_serves_stores(tmp_path: Path) -> None:
    from deblurkit.data.lmdb_make import make_lmdb
    from deblurkit.data.store import open_stores

    root = photos(tmp_path / "photos")
    assert find_layout(root).name == "frames"  # photos is taken where it is named only
    names = [pair.name for pair in scan(root, "all", LAYOUTS["photos"], "blur")[""]]
    assert names == ["1", "2", "10", "holiday_IMG.1", "holiday_beach", "holiday_sea"]
    make_lmdb(root, layout="photos")
    stores = open_stores(root, "all", "photos")
    assert stores.fingerprint["storage"] == "lmdb"
    np.testing.assert_array_equal(
        stores.lq.read("holiday_sea", (3, 4, 20, 30)), read_image(root / "holiday" / "sea.webp")[3:23, 4:34]
    )
