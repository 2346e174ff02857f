"""The benchmark of the inference path runs, and its tables are whole. (Not how fast anything is.)"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.support.videos import pictures, write_video

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_infer

    return bench_infer


def test_speeds(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        "NAFNet": {"type": "NAFNet", "width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]},
        "EDVR": {"type": "EDVR", "hr_in": True, "with_predeblur": True, "num_feat": 8, "deformable_groups": 2},
        "DBN": {"type": "DBN", "inner_channels": 4},
        "ESTRNN": {"type": "ESTRNN", "n_features": 4, "n_blocks": 1},
        "BasicVSR++": {"type": "BasicVSRPlusPlus", "mid_channels": 8, "num_blocks": 1, "is_low_res_input": False},
    }
    monkeypatch.setattr(bench, "NETWORKS", {name: (arguments, 16) for name, arguments in small.items()})
    for name in small:
        rows = bench.speed(name, None, 6, torch.device("cpu"))
        assert len(rows) == (2 if name == "BasicVSR++" else 1)
        for row in rows:
            cells = [cell.strip() for cell in row.strip("|").split("|")]
            assert len(cells) == 9
            assert float(cells[-1]) <= 1e-5  # the same result
            assert (float(cells[6]) > 1.05) == (name == "EDVR")


@pytest.mark.parametrize("way", ["ours", "plain"])
def test_what_the_process_that_is_measured_does(
    bench: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    way: str,
    tmp_path: Path,
) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(5, (64, 64)))
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["bench_infer.py", "--child", "ESTRNN (stream)", way, str(source)])
    try:
        bench.main()
    finally:
        torch.set_num_threads(threads)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["host"] > 50
    assert found["above"] < found["host"]


def test_the_table_of_memory(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def memory(name: str, way: str, source: Path, device: str) -> dict[str, float]:
        return {"host": source.stat().st_size / 100, "above": 7.0}

    monkeypatch.setattr(bench, "memory", memory)
    bench.memories("ESTRNN", (32, 32), [2, 4], "cpu")
    heads, _, row = capsys.readouterr().out.strip().splitlines()[-3:]
    assert heads.count("|") == row.count("|")
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:3] == cells[3:5]  # the same sources for both ways
    assert float(cells[2]) > float(cells[1])
    assert float(cells[-1]) > 1
