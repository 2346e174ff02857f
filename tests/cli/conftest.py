"""`deblurkit infer` with a network that copies."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deblurkit.cli import main
from deblurkit.engine.weights import VARIABLE

Infer = Callable[..., tuple[int, str]]


@pytest.fixture
def infer(
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Infer]:
    """`deblurkit infer` in this process, with `weights` or without: exit code and what it said.

    Nobody's own weights are found.
    """
    before = signal.getsignal(signal.SIGTERM)
    home = tmp_path_factory.mktemp("home")
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(home))
    monkeypatch.delenv(VARIABLE, raising=False)

    def command(*arguments: Any, weights: Path | None = weights) -> tuple[int, str]:
        options = ["--device", "cpu", *(["--weights", str(weights)] if weights else [])]
        monkeypatch.setattr(sys, "argv", ["deblurkit", "infer", *map(str, arguments), *options])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    yield command
    signal.signal(signal.SIGTERM, before)
