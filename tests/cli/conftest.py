"""`deblurkit infer` with a network that copies."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deblurkit.cli import main

Infer = Callable[..., tuple[int, str]]


@pytest.fixture
def infer(weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Infer]:
    """`deblurkit infer` in this process: exit code and what it said."""
    before = signal.getsignal(signal.SIGTERM)

    def command(*arguments: Any) -> tuple[int, str]:
        options = ["--weights", str(weights), "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["deblurkit", "infer", *map(str, arguments), *options])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    yield command
    signal.signal(signal.SIGTERM, before)
