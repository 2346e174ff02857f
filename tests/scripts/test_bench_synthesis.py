"""The measurement of synthesis runs and prints a row for every case."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

from tests.support.layout_trees import photos

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_synthesis.py"


def test_it_prints_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path / "photos")
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(root), "--samples", "2", "--size", "24", "--frames", "3"])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # it would last for other tests
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr().out
    for name in ("photos, render: device", "shake, one frame", "raw LMDB"):
        assert name in printed
