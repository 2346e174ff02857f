"""Command lines in processes of their own that start at once: forked from a process that has torch imported already."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
# building an optimiser imports dynamo: 2 s
_SERVER.set_forkserver_preload(
    ["tests.support.runs_process", "torch._dynamo", "deblurkit.engine.train", "deblurkit.cli"]
)


class Running:
    """A command line that runs. `stderr` holds what it has written so far to stdout and stderr."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], before: Callable[[], Any] | None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="deblurkit-run-")
        self._files = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        self.process = ForkServerProcess(
            target=_work, args=(arguments, dict(environment), [str(file) for file in self._files], before)
        )
        self.process.start()

    @property
    def stdout(self) -> str:
        return self._read(0)

    @property
    def stderr(self) -> str:
        return self._read(1)

    def _read(self, which: int) -> str:
        return self._files[which].read_text() if self._files[which].exists() else ""

    @property
    def ended(self) -> bool:
        return not self.process.is_alive()

    def send_signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Until `condition`; an error when the command ends before."""
        until = time.monotonic() + seconds
        while not condition():
            assert not self.ended or condition(), self.stderr
            assert time.monotonic() < until, self.stderr
            time.sleep(0.002)

    def wait(self, seconds: float = 180) -> subprocess.CompletedProcess[str]:
        """Until it ends; the return code is negative where a signal ended it, as with `subprocess`."""
        self.process.join(seconds)
        assert self.ended, f"still running after {seconds} s:\n{self.stderr}"
        assert self.process.exitcode is not None
        done = subprocess.CompletedProcess([], self.process.exitcode, self.stdout, self.stderr)
        self._folder.cleanup()
        return done


def _work(
    arguments: list[str], environment: dict[str, str], files: list[str], before: Callable[[], Any] | None
) -> None:
    os.setsid()  # a group of its own, which a test may signal
    for name, number in zip(files, (1, 2), strict=True):
        handle = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(handle, number)
        os.close(handle)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["deblurkit", *arguments]
    import torch

    torch.set_num_threads(1)
    if before is not None:
        before()
    from deblurkit.cli import main

    main()
