"""Sub-images in the forms that other tools' options expect, and that those options read them here."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest
from typer.testing import CliRunner

from deblurkit.build import build_dataset
from deblurkit.cli.app import app
from deblurkit.data.layouts import find_layout
from deblurkit.data.lmdb_store import LmdbStore
from deblurkit.data.request import SampleRequest
from deblurkit.data.sub_images import DEFAULTS, Grid, make_sub_images
from deblurkit.data.video_dataset import VideoDataset
from deblurkit.errors import DataError
from deblurkit.image_io import decode_image, read_image
from deblurkit.options import load_options
from tests.support.layout_trees import bsd, reds
from tests.support.trees import make_tree, write_pairs

GRID = Grid(16, 8)


def test_where_windows_begin() -> None:
    nafnet = Grid(*DEFAULTS["crops"])
    assert nafnet.starts(1280) == [0, 256, 512, 768]
    assert nafnet.starts(720) == [0, 208]  # 8 parts of a frame of GoPro: 16824 of 2103
    div2k = Grid(*DEFAULTS["sub"])
    assert div2k.starts(1400) == [0, 240, 480, 720, 920]
    assert Grid(480, 240, 200).starts(1400) == [0, 240, 480, 720]
    assert Grid(480, 240, 199).starts(1400) == [0, 240, 480, 720, 920]
    assert div2k.starts(480) == [0]
    assert div2k.starts(479) == []


def test_nafnets_options_read_what_is_made_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path("datasets/GoPro")
    for split in ("train", "test"):
        write_pairs(root / split / "input", root / split / "target", ["GOPR0372_07_00-000047.png"], (24, 32))
    result = CliRunner().invoke(
        app,
        ["lmdb", "make", str(root), "--split", "train", "--sub-images", "crops", "--crop-size", "16", "--step", "8"],
    )
    assert result.exit_code == 0, result.output
    for kind, folder in (("blur", "input"), ("sharp", "target")):
        target = root / "train" / f"{kind}_crops.lmdb"
        assert str(target) in result.stdout
        lines = (target / "meta_info.txt").read_text().splitlines()
        assert lines == [f"GOPR0372_07_00-000047_s{i:03d}.png (16,16,3) 1" for i in range(1, 7)]
        whole = read_image(root / "train" / folder / "GOPR0372_07_00-000047.png")
        with lmdb.open(str(target), readonly=True, lock=False) as environment, environment.begin() as transaction:
            for i, (y, x) in enumerate([(0, 0), (0, 8), (0, 16), (8, 0), (8, 8), (8, 16)], start=1):
                value = transaction.get(f"GOPR0372_07_00-000047_s{i:03d}".encode())
                np.testing.assert_array_equal(decode_image(value, ""), whole[y : y + 16, x : x + 16])
    forced = ["num_gpu=0", "datasets:train:gt_size=16"]
    options = load_options(Path(__file__).parent.parent / "compat" / "files" / "nafnet_gopro.yml", forced=forced)
    data = build_dataset({"type": "VideoDataset", **options.datasets["train"].arguments})
    assert len(data) == 6
    sample = data[SampleRequest(4, crop_size=16)]
    assert sample["key"].endswith("_s005")
    whole = read_image(root / "train" / "input" / "GOPR0372_07_00-000047.png")
    turned = sample["lq"][0].numpy().astype(int)
    assert turned.sum() == whole[8:24, 8:24].astype(int).sum()


def test_folders_of_sequences(tmp_path: Path) -> None:
    root = reds(tmp_path / "REDS")
    made = make_sub_images(root, ["train"], form="sub", grid=GRID, workers=2)
    assert made == [root / "train_blur_sub.lmdb", root / "train_sharp_sub.lmdb"]
    keys = set(LmdbStore(made[0]).keys())
    assert len(keys) == 4 * 3 * 6
    assert "011_s006/00000002" in keys
    data = VideoDataset({"lq": str(made[0]), "gt": str(made[1])}, "", sampling="n_n", num_frame=3)
    assert len(data) == 4 * 6
    assert data[23]["key"] == "239_s006/00000000"
    whole = read_image(root / "train" / "train_sharp" / "239" / "00000001.png")
    np.testing.assert_array_equal(data[23]["gt"][1].numpy(), whole[8:24, 16:32])


def test_files_of_a_data_set_with_smaller_degraded_frames(tmp_path: Path) -> None:
    root = reds(tmp_path / "REDS")
    made = make_sub_images(root, ["val"], lq="blur_bicubic", form="sub", grid=GRID, files=True, output=tmp_path / "out")
    assert [path.name for path in made] == ["val_blur_sub", "val_sharp_sub"]
    small = read_image(root / "val" / "val_blur_bicubic" / "X4" / "000" / "00000000.png")
    np.testing.assert_array_equal(read_image(made[0] / "000_s006" / "00000000.png"), small[2:6, 4:8])
    assert len(list(made[1].glob("*/*.png"))) == 2 * 3 * 6
    assert not list((tmp_path / "out").glob(".*"))
    with pytest.raises(DataError, match="4 times smaller than its partner; crop and step must be multiples"):
        make_sub_images(root, ["val"], lq="blur_bicubic", grid=Grid(18, 8), output=tmp_path / "other")


def test_video_sequences_lie_flat_in_crops(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "GoPro", "gopro", sequences=1, frames=2, size=(24, 32))
    made = make_sub_images(root, grid=GRID)
    assert [path.relative_to(root).as_posix() for path in made] == [
        f"{split}/{kind}_crops.lmdb" for split in ("test", "train") for kind in ("blur", "sharp")
    ]
    assert next(iter(LmdbStore(made[2]).keys())) == "GOPR0372_07_00-000047_s001"
    # the layout is what it was
    assert find_layout(root).scan(root, "train").keys() == {"GOPR0372_07_00"}
    other = bsd(tmp_path / "bsd")
    make_sub_images(other, ["train"], grid=GRID)
    assert "train" in find_layout(other).splits(other)
    assert list(find_layout(other).scan(other, "train")) == ["9", "010", "100"]


def test_an_interrupted_run_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import deblurkit.data.sub_images as module

    root = make_tree(tmp_path / "set", sequences=1, frames=5, size=(24, 32))
    real, calls = module.encode_png, []

    def encode(*arguments: object) -> bytes:
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "encode_png", encode)
    with pytest.raises(KeyboardInterrupt):
        make_sub_images(root, ["train"], grid=GRID, workers=1)
    assert not (root / "train" / "blur_crops.lmdb").exists()
    first = len(calls)
    made = make_sub_images(root, ["train"], grid=GRID, workers=1)
    assert len(calls) - first < 2 * 5 * 6
    assert len(list(LmdbStore(made[0]).keys())) == 30
    with pytest.raises(DataError, match="exists already; --force"):
        make_sub_images(root, ["train"], grid=GRID)
    assert make_sub_images(root, ["train"], grid=GRID, force=True) == made


@pytest.mark.parametrize(
    ("grid", "text"),
    [(Grid(64, 8), "smaller than sub-images of 64x64"), (Grid(4, 2), "at least 8, 1, 0"), (Grid(16, 0), "at least")],
)
def test_mistakes(tmp_path: Path, grid: Grid, text: str) -> None:
    root = make_tree(tmp_path / "set", sequences=1, frames=1, size=(24, 32))
    with pytest.raises(DataError, match=text):
        make_sub_images(root, grid=grid)
    assert not list(root.rglob("*.lmdb*"))


def test_names_with_dots_are_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path / "train" / "input", tmp_path / "train" / "target", ["a.b.png"])
    with pytest.raises(DataError, match="has a dot, at which BasicSR would cut it"):
        make_sub_images(tmp_path, grid=GRID)
