"""Ends a run that no longer gets better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deblurkit.hooks.base import Hook
from deblurkit.registry import HOOK_REGISTRY

if TYPE_CHECKING:
    from deblurkit.engine.evaluate import Evaluation
    from deblurkit.engine.train import Training


@HOOK_REGISTRY.register()
class EarlyStopHook(Hook):
    """Ends training after `patience` validations in a row without an improvement on the first validation set.

    Args:
        patience: validations. metric: figure name in the protocol. better: "higher" or "lower".
        least: an improvement counts from this difference on, in the metric's unit.
    """

    def __init__(self, patience: int, metric: str = "psnr", better: str = "higher", least: float = 0.0) -> None:
        if better not in ("higher", "lower"):
            raise ValueError(f"better: {better!r} is neither 'higher' nor 'lower'")
        self.patience, self.metric, self.least = patience, metric, least
        self._sign = 1.0 if better == "higher" else -1.0
        self.best: float | None = None
        self.waited = 0

    def after_val(self, run: Training, results: Mapping[str, Evaluation]) -> None:
        """Compare with the best so far."""
        value = self._sign * next(iter(results.values())).average[self.metric]
        if self.best is None or value > self.best + self.least:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            run.log.info(f"{self._reason()}: training ends")
            run.finished = True

    def ended(self) -> str:
        """The run was ended here, and the patience has not grown since."""
        return "" if self.waited < self.patience else f"{self._reason()}; a patience above {self.waited} goes on"

    def _reason(self) -> str:
        return f"{self.metric} has not improved in {self.waited} validations"

    def state(self) -> dict[str, Any]:
        """The best value, how long ago it was, and what counted as better."""
        return {"best": self.best, "waited": self.waited, "rule": self._rule()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put both back, unless something else counts as better now."""
        if state.get("rule", self._rule()) == self._rule():
            self.best, self.waited = state["best"], state["waited"]

    def _rule(self) -> list[Any]:
        return [self.metric, self._sign, self.least]
