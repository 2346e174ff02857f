from __future__ import annotations

from pathlib import Path

import pytest

from deblurkit.cli.lmdb import LayoutChoice
from deblurkit.data.layouts import GOPRO_FRAMES, LAYOUTS, find_layout, scan
from deblurkit.errors import DataError
from tests.support.trees import make_tree


def test_published_counts_and_names_on_the_command_line():
    assert {split: (len(s), sum(s.values())) for split, s in GOPRO_FRAMES.items()} == {
        "train": (22, 2103),
        "test": (11, 1111),
    }
    assert {choice.value for choice in LayoutChoice} == {"auto", *LAYOUTS}


def test_gopro_is_found_and_counted(tmp_path, capsys):
    root = make_tree(tmp_path / "GoPro", "gopro", sequences=1, frames=3, size=(8, 8), gamma=True)
    layout = find_layout(root)
    assert layout.name == "gopro"
    sequences = scan(root, "train", layout, "blur_gamma")
    (pairs,) = sequences.values()
    assert [p.name for p in pairs] == ["000047", "000048", "000049"]
    assert pairs[0].lq == root / "train" / "GOPR0372_07_00" / "blur_gamma" / "000047.png"
    assert pairs[0].gt == root / "train" / "GOPR0372_07_00" / "sharp" / "000047.png"
    text = capsys.readouterr().err
    assert text.startswith("warning:")
    assert "22 sequences, 2103 frames" in text
    assert "GOPR0372_07_00 has 3 frames instead of 100" in text


def test_paired_takes_any_picture_and_ignores_hidden_files(tmp_path):
    root = make_tree(tmp_path / "set", splits=("train",), sequences=1, frames=2, size=(8, 8), ending=".jpg")
    (root / ".DS_Store").touch()
    (root / "train" / ".DS_Store").touch()
    (root / "train" / ".hidden" / "sharp").mkdir(parents=True)
    (root / "train" / "seq000" / "blur" / ".DS_Store").touch()
    (root / "train" / "seq000" / "blur" / "._00000000.jpg").touch()
    (root / "train" / "seq000" / "blur" / "notes.txt").touch()
    sharp = root / "train" / "seq000" / "sharp" / "00000001.jpg"
    sharp.rename(sharp.with_suffix(".jpeg"))
    layout = find_layout(root)
    assert layout.name == "paired"
    assert layout.splits(root) == ["train"]
    assert [p.gt.name for p in scan(root, "train", layout, "blur")["seq000"]] == ["00000000.jpg", "00000001.jpeg"]


def test_frames_and_sequences_are_in_the_order_of_their_numbers(tmp_path):
    for sequence in ("10", "9"):
        for kind in ("blur", "sharp"):
            folder = tmp_path / "train" / sequence / kind
            folder.mkdir(parents=True)
            for name in ("10.png", "9.png", "100.png"):
                (folder / name).touch()
    sequences = scan(tmp_path, "train", find_layout(tmp_path), "blur")
    assert {name: [p.name for p in pairs] for name, pairs in sequences.items()} == {
        "9": ["9", "10", "100"],
        "10": ["9", "10", "100"],
    }
    assert list(sequences) == ["9", "10"]


def remove_frame(root: Path) -> None:
    (root / "train" / "seq000" / "sharp" / "00000002.png").unlink()


def rename_frame(root: Path) -> None:
    path = root / "train" / "seq001" / "sharp" / "00000002.png"
    path.rename(path.with_name("2.png"))


def remove_kind(root: Path) -> None:
    (root / "train" / "seq001" / "blur").rename(root / "train" / "seq001" / "input")


def empty_kind(root: Path) -> None:
    for path in (root / "train" / "seq001" / "blur").iterdir():
        path.unlink()


def second_ending(root: Path) -> None:
    (root / "train" / "seq000" / "blur" / "00000002.jpg").touch()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_frame, "seq000/blur: 1 of 5 frames have no partner in "),
        (rename_frame, "seq001/sharp: 00000002; a blurred and a sharp"),
        (remove_kind, "seq001: has no folder 'blur' (found: input, sharp)"),
        (empty_kind, "seq001/blur: holds no picture (found nothing)"),
        (second_ending, "00000002.jpg and 00000002.png have the same frame name"),
    ],
)
def test_what_does_not_fit_is_named(tree, spoil, message):
    spoil(tree)
    with pytest.raises(DataError) as caught:
        scan(tree, "train", find_layout(tree), "blur")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_roots_are_explained(tree, tmp_path):
    def message(root: Path, name: str = "auto") -> str:
        with pytest.raises(DataError) as caught:
            scan(root, "val", find_layout(root, name), "blur")
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert "does not exist" in message(tmp_path / "nowhere")
    assert "is not a folder" in message(tmp_path / "file")
    assert "no layout is recognised (found nothing)" in message(tmp_path / "empty")
    assert "give the folder above it" in message(tree / "train")
    assert "has no split 'val' (found: test, train)" in message(tree)
    assert "did you mean 'gopro'?" in message(tree, "goppro")
    (tree / "val" / "seq").mkdir(parents=True)
    assert "val: holds no sequence with folders blur, sharp (found: seq)" in message(tree)
