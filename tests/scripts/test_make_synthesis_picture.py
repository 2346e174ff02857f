"""The picture of docs/synthesis.md is made of any photos."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from deblurkit.image_io import read_image
from tests.support.trees import write_pairs

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_synthesis_picture.py"


def test_four_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pairs(tmp_path / "photos", tmp_path / "unused", [f"{i}.png" for i in range(4)], (180, 320))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path / "photos"), str(tmp_path / "picture.png")])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    picture = read_image(tmp_path / "picture.png")
    assert picture.shape == (4 * 144, 4 * 256, 3)
    assert all(row.std() > 10 for row in picture.reshape(4, -1))
