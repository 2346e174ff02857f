"""The benchmark of the inference path runs, and its tables are whole. (Not how fast anything is.)"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_infer

    return bench_infer


def test_speeds(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        "EDVR": {"type": "EDVR", "hr_in": True, "with_predeblur": True, "num_feat": 8, "deformable_groups": 2},
        "DBN": {"type": "DBN", "inner_channels": 4},
        "ESTRNN": {"type": "ESTRNN", "n_features": 4, "n_blocks": 1},
    }
    monkeypatch.setattr(bench, "NETWORKS", small)
    for name in small:
        row = bench.speed(name, (16, 16), 6, torch.device("cpu"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 9
        assert float(cells[-1]) <= 1e-5  # the same result
        assert (float(cells[6]) > 1.05) == (name == "EDVR")


@pytest.mark.parametrize("way", ["ours", "plain"])
def test_what_the_process_that_is_measured_does(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    words = ["--size", "64", "--child", "ESTRNN (stream)", way, "5"]
    monkeypatch.setattr(sys, "argv", ["bench_infer.py", *words])
    bench.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["host"] > 50
