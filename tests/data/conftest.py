from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deblurkit.cli import main
from tests.support.trees import make_tree

Outcome = tuple[int, str, str]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of two splits, each with a sequence of 5 and one of 7 frames of 24x40 pixels."""
    return make_tree(tmp_path / "tree", frames=(5, 7), size=(24, 40))


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command line in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["deblurkit", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run
