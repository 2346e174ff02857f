"""Weights by name and by default: where they are looked for, and what is said where there are none or several."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deblurkit.engine import weights
from deblurkit.engine.weights import VARIABLE, default_weights, find_weights, known_weights
from deblurkit.errors import CheckpointError


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's own folder, empty; no weights come with the package."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "shipped")
    folder = tmp_path / ".deblurkit" / "weights"
    folder.mkdir(parents=True)
    return folder


def made(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"weights")


def test_none(own: Path) -> None:
    made(own / "notes.txt")
    assert known_weights() == {}
    with pytest.raises(CheckpointError, match="no weights: name a file with --weights, or put one into") as caught:
        default_weights()
    for expected in (str(own), VARIABLE, "deblurkit train", "deblurkit convert", "scripts/demo.sh"):
        assert expected in str(caught.value)


def test_the_only_ones_are_taken(own: Path) -> None:
    made(own / "mine.pth")
    assert default_weights() == find_weights("mine") == own / "mine.pth"


def test_of_several_those_called_default_are_taken(own: Path) -> None:
    made(own / "a.pth", own / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"choose with --weights a\|b; a file called default\.pth in"):
        default_weights()
    made(own / "default.pth")
    assert default_weights() == own / "default.pth"


def test_the_variable_goes_first(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, file = tmp_path / "there", tmp_path / "file.pth"
    made(own / "a.pth", own / "b.pth", there / "a.pth", tmp_path / "shipped" / "c.pth", file)
    monkeypatch.setenv(VARIABLE, str(there))
    expected = {"a": there / "a.pth", "b": own / "b.pth", "c": tmp_path / "shipped" / "c.pth"}
    assert known_weights() == expected
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(there), str(file)]))
    assert known_weights() == {**expected, "file": file}
    assert default_weights() == file
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match=f"{VARIABLE}: .*nowhere does not exist"):
        find_weights("a")
    assert find_weights(file) == file  # a path needs no folder of weights


def test_safetensors_go_before_pickles(own: Path) -> None:
    made(own / "a.pth", own / "a.safetensors", own / "a.pt")
    assert known_weights() == {"a": own / "a.safetensors"}


def test_a_folder_is_no_weights_file(own: Path) -> None:
    made(own / "net_g_latest.pth")
    with pytest.raises(CheckpointError, match=r"is a folder; name a file in it: net_g_latest\.pth"):
        find_weights(own)
