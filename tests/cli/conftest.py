"""`deblurkit infer` with a network that copies."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deblurkit.archs.dbn_arch import DBN
from deblurkit.cli import main
from deblurkit.engine.checkpoint import save_network

Infer = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DBN that returns the middle frame of its window: its last batch norm is zero."""
    path = tmp_path_factory.mktemp("weights") / "net_g_latest.pth"
    save_network(path, DBN(inner_channels=4, zero_init_residual=True))
    return path


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
