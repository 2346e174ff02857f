"""Quirks of other tools' learning-rate schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class WarmupDriftLR:
    """A schedule that computes each rate from the one before, after a warm-up that has overwritten it (BasicSR).

    The last warm-up rate, (warmup - 1) / warmup of the configured one, stays the base for ever, in multi-step schedules
    and in torch's cosine alike. BasicSR's own cosines and LinearLR recover at once: they need no wrapper.
    (`lr_curves` in `tests/parity`.)

    Args:
        schedule: the `scheduler` mapping. warmup_iter: iterations of warm-up, as in `train.warmup_iter`.
    """

    def __init__(self, schedule: Mapping[str, Any], warmup_iter: int) -> None:
        from deblurkit.engine.schedules import build_schedule

        self.inner, self.warmup = build_schedule(schedule), warmup_iter
        if hasattr(self.inner, "milestones"):  # where a plan is printed
            self.milestones = self.inner.milestones

    def rate(self, initial: float, done: int) -> float:
        """As the wrapped schedule, continued from the last warm-up rate until a restart forgets it."""
        last = self.warmup - 2  # steps done in the last iteration of the warm-up
        restarts = [start for start, _ in getattr(self.inner, "restarts", []) if last < start <= done]
        if last < 0 or done <= last or restarts:
            return self.inner.rate(initial, done)
        floor = getattr(self.inner, "eta_min", 0.0)
        base = initial * (self.warmup - 1) / self.warmup
        share = (self.inner.rate(initial, done) - floor) / (self.inner.rate(initial, last) - floor)
        return float(floor + (base - floor) * share)
