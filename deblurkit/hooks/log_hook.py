"""The log file, the lines and the progress bar of a training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskID, TextColumn
from torch import Tensor

from deblurkit.console import console
from deblurkit.hooks.base import Hook
from deblurkit.hooks.loss_window import LossWindow
from deblurkit.registry import HOOK_REGISTRY

if TYPE_CHECKING:
    from deblurkit.engine.evaluate import Evaluation
    from deblurkit.engine.train import Training


@HOOK_REGISTRY.register()
class LogHook(Hook):
    """Every `print_freq` iterations a line with the losses (their means since the last one) and the rates.

    It also has the pace, the remaining time and the share of the time that was spent waiting for data.

    On a terminal a bar shows the same between the lines.
    """

    def __init__(self, print_freq: int = 100) -> None:
        self.print_freq = print_freq
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._mark = (0.0, 0, 0.0)
        self._losses = LossWindow()

    def before_train(self, run: Training) -> None:
        """Start the clock and the bar."""
        self._mark = (time.perf_counter(), run.iteration, 0.0)
        if run.place.is_main and console.is_terminal:
            columns = (TextColumn(run.options.name), BarColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=console, refresh_per_second=4)
            self._task = self._bar.add_task("", total=run.total_iterations, completed=run.iteration, text="")
            self._bar.start()

    def after_iter(self, run: Training, losses: Mapping[str, Tensor]) -> None:
        """Move the bar; print the line where it is due."""
        if not run.place.is_main:
            return
        self._losses.add(losses)
        if self._bar is not None:
            text = f"{run.iteration:,}/{run.total_iterations:,} " + self._pace(run)
            self._bar.update(self._task, completed=run.iteration, text=text)
        if run.iteration % self.print_freq and run.iteration != run.total_iterations:
            return
        terms = " ".join(f"{name}: {value:.4e}" for name, value in self._losses.take().items())
        rates = ", ".join(f"{rate:.3e}" for rate in run.model.rates())
        run.log.info(f"[epoch {run.epoch}, iter {run.iteration:,}, lr ({rates})] [{self._pace(run)}] {terms}")
        self._mark = (time.perf_counter(), run.iteration, run.data_wait)

    def after_val(self, run: Training, results: Mapping[str, Evaluation]) -> None:
        """A line for each data set; the time that validation took does not count as training."""
        if run.place.is_main:
            for name, result in results.items():
                run.log.info(f"validation on {name} at iter {run.iteration:,}: {result.summary()}")
        self._mark = (time.perf_counter(), run.iteration, run.data_wait)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _pace(self, run: Training) -> str:
        """Rate, remaining time and data-wait share since the last line."""
        since, at, waited = self._mark
        seconds = max(time.perf_counter() - since, 1e-9)
        rate = (run.iteration - at) / seconds
        left = timedelta(seconds=round((run.total_iterations - run.iteration) / rate)) if rate else "?"
        share = (run.data_wait - waited) / seconds
        return f"{rate:.2f} it/s, eta {left}, data wait {share:.0%}"
