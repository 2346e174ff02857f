"""The demo's verdict: a table, a picture, and a failure where nothing was won."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from deblurkit.image_io import read_image, write_image

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize(("gain", "code"), [(0.5, 0), (0.1, 1)])
def test_report(
    gain: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import demo_report

    results, pair = tmp_path / "results" / "demo_dbn", tmp_path / "data" / "test" / "room"
    sharp = np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)
    write_image(pair / "sharp" / "000003.png", sharp)
    write_image(pair / "blur" / "000003.png", sharp // 2)
    write_image(results / "images" / "val" / "room" / "000003.png", sharp // 4 * 3)
    before, after = {"psnr": 30.0, "ssim": 0.9}, {"psnr": 30.0 + gain, "ssim": 0.95}
    record = {"datasets": {"val": {"frames": 1, "average": after, "average_input": before}}}
    (results / "metrics.json").write_text(json.dumps(record))
    (results / "metrics.csv").write_text(f"sequence,frame,psnr,input_psnr\nroom,000003,{30 + gain},30.0\n")
    monkeypatch.setattr(sys, "argv", ["demo_report.py", str(tmp_path)])

    assert demo_report.main() == code
    output = capsys.readouterr()
    assert f"restored       {30 + gain:.2f}   0.9500" in output.out
    assert ("error:" in output.err) == bool(code)
    picture = read_image(tmp_path / "side_by_side.png")
    assert picture.shape[1] > 3 * demo_report.DETAIL[1] * demo_report.ENLARGED
