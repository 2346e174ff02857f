"""The benchmark of the data road runs, measures what it says, and prints whole tables. (Not how fast anything is.)"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from deblurkit.image_io import write_image

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_data

    monkeypatch.setattr(bench_data, "HEIGHT", 72)
    monkeypatch.setattr(bench_data, "WIDTH", 128)
    return bench_data


def test_tables(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--frames 11 --crop 32 --batch 2 --workers 1 --rounds 3 --blocks 1 --seconds 0.001 --make --makes 1"
    monkeypatch.setattr(sys, "argv", ["bench_data.py", *words.split()])
    bench.main()
    tables = capsys.readouterr().out.split("\n\n")
    assert "11 pairs of 128x72, crops of 32, batches of 2" in tables[0]
    lines = [table.strip().splitlines() for table in tables[1:]]
    assert [len(table) - 2 for table in lines] == [6, 22, 4]
    for table in lines:
        assert {line.count("|") for line in table} == {table[0].count("|")}
    reading = {line.split(" | ")[0][2:]: [float(cell) for cell in line[:-2].split(" | ")[1:]] for line in lines[0][2:]}
    assert reading["common road"][3] == 1
    raw, png = reading["raw"], reading["PNG LMDB"]
    assert raw[0] * 1e6 >= 2 * 72 * 128 * 3 > png[0] * 1e6 / 2


def test_frames_of_a_folder_are_fitted(bench: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, size in {"a/large": (200, 256), "b/exact": (72, 128), "small": (71, 500), "c/tall": (400, 128)}.items():
        write_image(tmp_path / f"{name}.png", rng.integers(0, 256, (*size, 3), np.uint8))
    fitted = [bench.fit(frame) for frame in bench.frames_of(tmp_path)]
    assert [None if frame is None else frame.shape for frame in fitted].count((72, 128, 3)) == 3
    with pytest.raises(SystemExit, match="has 3 frames of at least 128x72; 11 are needed"):
        bench.make_tree(tmp_path / "set", tmp_path, 24)


def test_frames_of_its_own_differ_and_move(bench: ModuleType) -> None:
    frames = bench.own_frames()
    first, second = next(frames), next(frames)
    assert first.shape == (72, 128, 3)
    assert first.std() > 20
    assert not np.array_equal(first, second)
