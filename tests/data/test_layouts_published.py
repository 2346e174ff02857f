"""Every benchmark's layout, on a small tree made in its exact form with each of its known traps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deblurkit.data.layouts import LAYOUTS, find_layout, scan
from deblurkit.data.layouts_video import BSD_TEST, DVD_FRAMES
from deblurkit.data.lmdb_check import find_lmdbs, inspect_lmdb, verify_lmdb
from deblurkit.data.lmdb_make import make_lmdb
from deblurkit.data.request import SampleRequest
from deblurkit.data.video_dataset import VideoDataset
from deblurkit.errors import DataError
from deblurkit.image_io import read_image
from tests.support.layout_trees import (
    bsd,
    dvd,
    dvd_by_hand,
    frames,
    gopro_large_all,
    hide,
    hide_repacked,
    one_folder,
    parallel,
    pictures,
    pictures_mimo,
    realblur,
    reds,
    reds_regrouped,
    rsblur,
    unpaired,
    vimeo,
)
from tests.support.trees import make_tree, write_pairs

Case = tuple[Callable[[Path], Path], str, str, str, int, dict[str, list[str]]]

_FIVE = ["00000", "00001", "00002"]
_THREE = ["00000000", "00000001", "00000002"]
_SEVEN = [f"im{i}" for i in range(1, 8)]

# builder, layout, split, lq, scale, frames by sequence
CASES: list[Case] = [
    (
        dvd,
        "dvd",
        "train",
        "blur",
        1,
        {"IMG_0001": ["00000", "00001", "00002"], "IMG_0009": ["00030", "00031", "00032"]},
    ),
    (dvd, "dvd", "test", "blur", 1, {"720p_240fps_2": _FIVE, "IMG_0030": _FIVE}),
    (dvd_by_hand, "dvd", "test", "blur", 1, {"720p_240fps_2": _FIVE, "IMG_0030": _FIVE}),
    (hide, "hide", "train", "blur", 1, {"": ["1fromGOPR1", "10fromGOPR1"]}),
    (hide, "hide", "test", "blur", 1, {"": ["2fromGOPR2", "3fromGOPR3", "4fromGOPR3"]}),
    (hide_repacked, "hide", "test", "blur", 1, {"": ["1fromGOPR1", "10fromGOPR1"]}),
    (realblur, "realblur", "J_train", "blur", 1, {"": ["scene001_blur_1", "scene001_blur_3"]}),
    (realblur, "realblur", "R_test", "blur", 1, {"": ["scene002_blur_2", "scene244_reflect_blur_1"]}),
    (rsblur, "rsblur", "real_train", "blur", 1, {"": ["000001", "000021"]}),
    (rsblur, "rsblur", "real_test", "blur", 1, {"": ["000022"]}),
    (pictures, "pictures", "train", "blur", 1, {"": ["GOPR0372_07_00-000047", "GOPR0374-000001"]}),
    (pictures, "pictures", "train", "crops", 1, {"": ["GOPR0372_07_00-000047-1"]}),
    (pictures_mimo, "pictures", "train", "blur", 1, {"": ["GOPR0372_07_00_000047", "GOPR0374_11_00_000001"]}),
    (
        gopro_large_all,
        "gopro_large_all",
        "train",
        "blur",
        1,
        {"GOPR0372_07_00": frames(23, 6, 323, ""), "GOPR0372_07_01": frames(21, 6, 4202, "")},
    ),
    (unpaired, "frames", "all", "blur", 1, {"one": ["00000000", "00000001", "00000002"], "two": ["007", "008"]}),
    (one_folder, "frames", "all", "blur", 1, {"holiday": ["1", "2", "10"]}),
]
CASES += [
    (builder, layout, split, lq, scale, dict.fromkeys(sequences.split(), _SEVEN if layout == "vimeo" else _THREE))
    for builder, layout, split, lq, scale, sequences in (
        (reds, "reds", "train", "blur", 1, "000 001 011 239"),
        (reds, "reds", "train", "blur_jpeg", 1, "000 001 011 239"),
        (reds, "reds", "val", "blur_comp", 1, "000 001"),
        (reds, "reds", "val", "blur_bicubic", 4, "000 001"),
        (reds, "reds", "train", "sharp_bicubic", 4, "000 001 011 239"),
        (reds, "reds", "reds4", "blur", 1, "000 011"),
        (reds, "reds", "train_reds4", "blur", 1, "001 239 240 241"),
        (reds, "reds", "official", "blur", 1, "240 241"),
        (reds, "reds", "test", "blur", 1, "000"),
        (reds_regrouped, "reds", "train", "blur", 1, "000 011 100"),
        (reds_regrouped, "reds", "val", "blur", 1, "000 001 029"),
        (reds_regrouped, "reds", "train_reds4", "blur", 1, "100 240 241 269"),
        (reds_regrouped, "reds", "official4", "blur", 1, "240 241"),
        (bsd, "bsd", "train", "blur", 1, "9 010 100"),
        (bsd, "bsd", "valid", "blur", 1, "001"),
        (bsd, "bsd", "test", "blur", 1, "015 020"),
        (vimeo, "vimeo", "train", "matlabLRx4", 4, "00001/0001 00002/0010"),
        (vimeo, "vimeo", "test", "matlabLRx4", 4, "00001/0266"),
        (parallel, "parallel", "all", "blur", 1, "000 011"),
        (parallel, "parallel", "all", "BIx4", 4, "000 011"),
    )
]


def identify(value: Any) -> str | None:
    return value.__name__ if callable(value) else value if isinstance(value, str) else ""


@pytest.mark.parametrize(("build", "layout", "split", "lq", "scale", "expected"), CASES, ids=identify)
def test_it_is_found_read_and_stored(tmp_path, build, layout, split, lq, scale, expected):
    root = build(tmp_path / "set")
    found = find_layout(root)
    assert found.name == layout
    assert found.has(root, split)
    sequences = scan(root, split, found, lq)
    assert {name: [p.name for p in pairs] for name, pairs in sequences.items()} == expected
    assert list(sequences) == list(expected)

    arguments: dict[str, Any] = {"split": split, "lq": lq, "scale": scale, "num_frame": 1}
    disk = VideoDataset(root, storage="disk", **arguments)
    make_lmdb(root, [split], lq=lq, workers=1)
    made = VideoDataset(root, **arguments)
    assert made.fingerprint()["storage"] == "lmdb"
    assert len(disk) == len(made) == sum(map(len, expected.values()))
    pairs = [pair for sequence in sequences.values() for pair in sequence]
    clips = disk.clips(merge=False)
    for index, (clip, stored, pair) in enumerate(zip(clips, made.clips(merge=False), pairs, strict=True)):
        blurred = read_image(pair.lq)
        np.testing.assert_array_equal(next(iter(clip.source)), blurred)
        np.testing.assert_array_equal(next(iter(stored.source)), blurred)
        if pair.gt is None:
            assert clip.read_gt == stored.read_gt == ()
            continue
        np.testing.assert_array_equal(stored.read_gt[0](), read_image(pair.gt))
        one, other = (data[SampleRequest(index, 0, index, 8)] for data in (disk, made))
        assert one["key"] == other["key"]
        assert one["gt"].shape == (1, 8, 8, 3)
        assert one["lq"].shape == (1, 8 // scale, 8 // scale, 3)
        for name in ("lq", "gt"):
            np.testing.assert_array_equal(one[name], other[name])
    for store in find_lmdbs(root):
        assert verify_lmdb(store).damages == ()
        assert inspect_lmdb(store).source == "unchanged"
    # without the files it is still known what there is
    shutil.move(root, tmp_path / "away")
    assert len(VideoDataset(root, **arguments).clips(merge=False)) == len(pairs)


@pytest.mark.parametrize(
    ("build", "splits", "more"),
    [
        (dvd, "train test", ""),
        (dvd_by_hand, "train test", ""),
        (reds, "train val test", "reds4 official official4 train_reds4"),
        (reds_regrouped, "train", "reds4 official official4 train_reds4 val"),
        (bsd, "train valid test", ""),
        (hide, "train test", ""),
        (hide_repacked, "test", ""),
        (realblur, "J_train J_test R_train R_test", ""),
        (rsblur, "real_test real_train", ""),
        (vimeo, "train test", ""),
        (pictures, "train test", ""),
        (parallel, "all", ""),
        (gopro_large_all, "train test", ""),
        (unpaired, "all", ""),
    ],
    ids=identify,
)
def test_splits(tmp_path, build, splits, more):
    root = build(tmp_path)
    layout = find_layout(root)
    assert layout.splits(root) == splits.split()
    assert layout.more_splits(root) == more.split()
    with pytest.raises(DataError, match=rf"has no split 'nonsense' \(found: .*layout {layout.name} is "):
        layout.scan(root, "nonsense")


def test_every_layout_can_be_named():
    from typing import get_args

    from deblurkit.cli.lmdb import LayoutChoice
    from deblurkit.data.layouts import LayoutName

    assert set(get_args(LayoutName)) == {choice.value for choice in LayoutChoice} == {"auto", *LAYOUTS}


def test_published_counts():
    def counts(name: str, split: str, root: str = "x") -> tuple[int, int]:
        published = LAYOUTS[name].published(Path(root), split)
        assert published is not None
        return published.sequences, published.frames

    assert [counts("gopro", s) for s in ("train", "test")] == [(22, 2103), (11, 1111)]
    assert [counts("dvd", s) for s in ("train", "test")] == [(61, 5708), (10, 1000)]
    assert [counts("reds", s)[0] for s in ("train", "val", "test", "reds4", "train_reds4")] == [240, 30, 30, 4, 266]
    assert [counts("reds", s)[1] for s in ("official", "official4")] == [3000, 400]
    assert [counts("bsd", s, "BSD_1ms8ms") for s in ("train", "valid", "test")] == [(60, 6000), (20, 2000), (20, 3000)]
    assert [counts("hide", s)[1] for s in ("train", "test")] == [6397, 2025]
    assert [counts("realblur", s)[1] for s in ("J_train", "R_test")] == [3758, 980]
    assert [counts("rsblur", f"real_{s}")[1] for s in ("train", "val", "test")] == [8878, 1120, 3360]
    assert [counts("vimeo", s)[0] for s in ("train", "test")] == [64612, 7824]
    assert DVD_FRAMES["train"]["C0041"] == 229
    assert {len(ids) for ids in BSD_TEST.values()} == {20}


def warning(root: Path, split: str, capsys: pytest.CaptureFixture[str], lq: str = "blur") -> str:
    capsys.readouterr()
    scan(root, split, find_layout(root), lq)
    return capsys.readouterr().err


def test_differences_are_told_by_sequence(tmp_path, capsys, monkeypatch):
    text = warning(bsd(tmp_path), "test", capsys)
    assert text.startswith("warning:")
    assert "2 sequences, 6 frames; the published set has 20 sequences, 3000 frames" in text
    assert "015 has 3 frames instead of 150" in text
    assert "015 is 32x24 instead of 640x480" in text
    assert "028 is missing" in text
    monkeypatch.setitem(BSD_TEST, "2ms16ms", BSD_TEST["1ms8ms"])  # type: ignore[arg-type]
    assert "015 is not in the published set" in warning(tmp_path / "BSD" / "BSD_2ms16ms", "test", capsys)
    # upright is no odd size
    text = warning(dvd(tmp_path / "dvd"), "test", capsys)
    assert "IMG_0030 is 24x32 instead of 1280x720" in text
    text = warning(hide(tmp_path / "hide"), "test", capsys)
    assert text.rstrip().endswith("(hide, test): 3 pictures; the published set has 2025 pictures")
    assert "2 sequences, 14 frames; the published set has 64612 sequences" in warning(
        vimeo(tmp_path / "vimeo"), "train", capsys, "matlabLRx4"
    )


def test_what_is_as_published_is_not_mentioned(tmp_path, capsys):
    root = tmp_path / "REDS"
    for clip in ("000", "011", "015", "020"):
        for kind in ("blur", "sharp"):
            folder = root / "train" / f"train_{kind}" / clip
            folder.mkdir(parents=True)
            for name in frames(100):
                (folder / name).symlink_to(tmp_path / "frame.png")
    write_pairs(tmp_path, tmp_path, ["frame.png"], size=(720, 1280))
    assert warning(root, "reds4", capsys) == ""
    (root / "train" / "train_blur" / "011" / "00000042.png").unlink()
    (root / "train" / "train_sharp" / "011" / "00000042.png").unlink()
    assert (
        warning(root, "reds4", capsys)
        .strip()
        .endswith(
            "4 sequences, 399 frames; the published set has 4 sequences, 400 frames: 011 has 99 frames instead of 100"
        )
    )


class TestTraps:
    """What is wrong in copies that people have."""

    def message(self, root: Path, split: str, layout: str = "auto", lq: str = "blur") -> str:
        with pytest.raises(DataError) as caught:
            find_layout(root, layout).scan(root, split, lq)
        return str(caught.value)

    def test_a_kind_that_is_not_there(self, tmp_path):
        root = reds(tmp_path)
        shutil.rmtree(root / "train" / "train_blur_comp")
        text = self.message(root, "train", lq="blur_comp")
        assert "train_blur_comp: is not there (found: train_blur, " in text
        assert "has no lq 'blur_compp'; did you mean" in self.message(root, "train", lq="blur_compp")
        assert "lq is what follows vimeo_septuplet_" in self.message(vimeo(tmp_path / "v"), "train")
        assert "no folders for lq 'crops'" in self.message(pictures(tmp_path / "p"), "test", lq="crops")

    def test_the_folder_above(self, tmp_path):
        root = bsd(tmp_path).parent
        assert f"but BSD_2ms16ms is a data set: give {root / 'BSD_2ms16ms'}" in self.message(root, "train")

    def test_a_clip_that_is_cut_short(self, tmp_path):
        root = reds(tmp_path)
        (root / "train" / "train_blur" / "011" / "00000002.png").unlink()
        text = self.message(root, "train")
        assert "train_sharp/011: 1 of 3 frames have no partner in" in text
        assert "00000002" in text
        shutil.rmtree(root / "train" / "train_blur" / "011")
        assert "train_blur: has no folder '011' (found: 000, 001, 239)" in self.message(root, "train")

    def test_lists(self, tmp_path):
        root = realblur(tmp_path)
        file = root / "RealBlur_J_train_list.txt"
        folder = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
        (root / folder / "scene001" / "gt" / "gt_3.png").unlink()
        assert f"1 of its pictures are missing below {root}: {folder}/scene001/gt/gt_3.png" in self.message(
            root, "J_train"
        )
        lines = file.read_text()
        file.write_text(lines + lines)
        assert "line 3" in self.message(root, "J_train")
        assert "is there twice" in self.message(root, "J_train")
        file.write_text("\n")
        assert "is empty" in self.message(root, "J_train")
        file.write_text("one two three\n")
        assert "line 1: is not of the form `SHARP BLURRED`" in self.message(root, "J_train")

    def test_hide_without_all_sharp_pictures(self, tmp_path):
        root = hide(tmp_path)
        (root / "GT" / "3fromGOPR3.png").unlink()
        assert "1 pictures have no partner" in self.message(root, "test")

    def test_clips_that_one_side_lacks(self, tmp_path):
        root = parallel(tmp_path)
        shutil.rmtree(root / "blur" / "011")
        assert "011: not both in blur and in GT" in self.message(root, "all")

    def test_a_training_set_without_sharp_frames(self, tmp_path):
        data = VideoDataset(unpaired(tmp_path), "all", num_frame=1)
        with pytest.raises(DataError, match="has no sharp frames, so it cannot be trained on"):
            data[0]

    def test_single_pictures_are_no_video(self, tmp_path):
        with pytest.raises(DataError, match="holds single pictures, no video: set num_frame to 1"):
            VideoDataset(pictures(tmp_path), "train", num_frame=3)

    def test_a_scale_that_does_not_fit(self, tmp_path):
        data = VideoDataset(reds(tmp_path), "train", lq="blur_bicubic", num_frame=1)
        with pytest.raises(DataError, match=r"000/00000000.png is 8x6, .* is 32x24; .* `scale` \(1\) times"):
            data[0]
        data = VideoDataset(tmp_path, "train", lq="blur_bicubic", num_frame=1, scale=4)
        with pytest.raises(DataError, match="gt_size 10 is no multiple of the scale 4"):
            data[SampleRequest(0, crop_size=10)]

    def test_a_picture_that_is_smaller_than_the_crop(self, tmp_path):
        data = VideoDataset(pictures_mimo(tmp_path), "train", num_frame=1)
        data.check_crop(20)
        with pytest.raises(DataError, match=r"000047.png: frames of 24x20 are smaller than the crop of 24x24"):
            data.check_crop(24)


def test_basicsr_can_read_lmdbs_of_single_pictures(tmp_path):
    root = pictures_mimo(tmp_path / "set")
    lq, _ = make_lmdb(root, codec="png")
    lines = (lq / "meta_info.txt").read_text().splitlines()
    assert lines == ["GOPR0372_07_00_000047.png (20,24,3) 1", "GOPR0374_11_00_000001.png (24,32,3) 1"]
    (lq / "manifest.json").unlink()  # as BasicSR leaves it
    (tmp_path / "set.lmdb" / "train_gt.lmdb" / "manifest.json").unlink()
    shutil.move(root, tmp_path / "away")
    data = VideoDataset(root, "train", num_frame=1)
    assert [data[i]["lq"].shape[1:3] for i in range(2)] == [(20, 24), (24, 32)]
    assert [clip.names for clip in data.clips(merge=True)] == [("GOPR0372_07_00_000047",), ("GOPR0374_11_00_000001",)]


def test_a_picture_of_another_depth_is_named(tmp_path):
    from deblurkit.image_io import write_image

    root = pictures_mimo(tmp_path)
    path = root / "train" / "blur" / "GOPR0374_11_00_000001.png"
    write_image(path, read_image(path).astype(np.uint16))
    with pytest.raises(DataError, match=r"000001.png: has pixels of uint16, .*000047.png of uint8; a split has one"):
        make_lmdb(root)


def test_the_frames_of_the_dvd_paper(tmp_path):
    root = tmp_path / "DVD"
    folder = root / "quantitative_datasets" / "IMG_0003"
    write_pairs(folder / "input", folder / "GT", frames(100, 5, 0, ".jpg"), (4, 4))
    data = VideoDataset(root, "test", anchors="dvd_test")
    assert [clip.names for clip in data.clips(merge=False)][:3] == [("00002",), ("00005",), ("00008",)]
    (clip,) = data.clips(merge=True)
    assert len(clip.scored) == 30
    assert clip.scored[-1] == 97


def test_high_frame_rate_video_of_other_names_is_found_as_frames(tmp_path):
    for split in ("train", "test"):
        write_pairs(tmp_path / split / "walk", tmp_path / "unused", frames(3, 6, 47))
    shutil.rmtree(tmp_path / "unused")
    layout = find_layout(tmp_path)
    assert (layout.name, layout.splits(tmp_path)) == ("frames", ["train", "test"])


def test_counts_of_gopro_large_all(tmp_path, capsys):
    """yy frames for each pair of GOPRO_Large: 34,874 in all."""
    root = gopro_large_all(tmp_path)
    text = warning(root, "train", capsys)
    assert "2 sequences, 44 frames; the published set has 22 sequences, 22653 frames" in text
    assert "GOPR0372_07_00 has 23 frames instead of 700" in text
    assert "GOPR0374_11_00 is missing" in text
    published = LAYOUTS["gopro_large_all"].published(root, "test")
    assert published is not None
    assert (published.sequences, published.frames) == (11, 12221)
    assert published.lengths["GOPR0384_11_05"] == 1100


def test_gopro_in_both_forms_is_told_apart(tmp_path):
    """Sequences bear the same names in GOPRO_Large and GOPRO_Large_all."""
    pairs = make_tree(tmp_path / "pairs", "gopro", size=(8, 8), frames=2, gamma=True)
    assert find_layout(pairs).name == "gopro"
    assert find_layout(gopro_large_all(tmp_path / "all")).name == "gopro_large_all"
    kinds = [find_layout(pairs).scan(pairs, "train", lq) for lq in ("blur", "blur_gamma")]
    first = [sequences["GOPR0372_07_00"][0] for sequences in kinds]
    assert [pair.name for pair in first] == ["000047", "000047"]
    assert [pair.lq.parent.name for pair in first] == ["blur", "blur_gamma"]
    assert (read_image(first[0].lq) != read_image(first[1].lq)).any()
    # a frame that one of the three folders lacks is named
    (pairs / "train" / "GOPR0372_07_00" / "blur_gamma" / "000048.png").unlink()
    find_layout(pairs).scan(pairs, "train", "blur")
    with pytest.raises(DataError, match="000048"):
        find_layout(pairs).scan(pairs, "train", "blur_gamma")


def test_raw_frames_of_bsd_are_left_alone(tmp_path):
    """16-bit TIFF lies beside the 8-bit PNG of the full download."""
    root = bsd(tmp_path)
    for side in ("Blur", "Sharp"):
        folder = root / "train" / "010" / side / "RAW"
        write_pairs(folder, tmp_path / "unused", frames(3, ending=".tiff"))
    found = find_layout(root).scan(root, "train")
    assert [pair.lq.suffix for pair in found["010"]] == [".png"] * 3


def test_lists_of_realblur_end_in_a_space(tmp_path):
    root = realblur(tmp_path)
    line = (root / "RealBlur_R_test_list.txt").read_text().splitlines()[0]
    assert line.endswith(" ")
    (pairs,) = find_layout(root).scan(root, "R_test").values()
    assert "itensity" in pairs[0].lq.as_posix()
    assert pairs[0].gt is not None
    assert pairs[0].gt.parent.name == "gt"


def test_repacked_realblur_is_pictures(tmp_path):
    """As MPRNet and Restormer have it: the name of a scene and a number in both folders, sizes that vary."""
    root = tmp_path / "RealBlur_J"
    write_pairs(root / "input", root / "target", ["scene244_reflect_blur_1.png"], (40, 32))
    write_pairs(root / "input", root / "target", ["scene001_blur_2.png"], (24, 32))
    layout = find_layout(root)
    assert (layout.name, layout.splits(root)) == ("pictures", ["all"])
    assert [pair.name for pair in layout.scan(root, "all")[""]] == ["scene001_blur_2", "scene244_reflect_blur_1"]


def test_pairs_in_gopros_form_are_not_taken_for_anything_else(tmp_path):
    assert find_layout(make_tree(tmp_path / "a", "gopro", size=(8, 8), frames=2)).name == "gopro"
    assert find_layout(make_tree(tmp_path / "b", "paired", size=(8, 8), frames=2)).name == "paired"
