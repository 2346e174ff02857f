from __future__ import annotations

import pytest

from deblurkit import console


def test_progress_without_a_terminal_says_each_count_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_PLAIN_EVERY_SECONDS", 0.0)
    with console.progress("restoring a.mp4", 3) as advance:
        advance(1)
        advance(2)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in said] == [
        "restoring a.mp4: 1 of 3 frames",
        "restoring a.mp4: 3 of 3 frames",
    ]
    monkeypatch.setattr(console, "_PLAIN_EVERY_SECONDS", 1e9)
    with console.progress("restoring a.mp4", None):
        pass
    assert capsys.readouterr().err.startswith("restoring a.mp4: 0 frames")
