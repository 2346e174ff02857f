"""Where the time of some training steps goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deblurkit.hooks.base import Hook
from deblurkit.registry import HOOK_REGISTRY

if TYPE_CHECKING:
    from deblurkit.engine.train import Training


@HOOK_REGISTRY.register()
class ProfilerHook(Hook):
    """Records steps with torch's profiler: a trace for chrome://tracing or Perfetto and a table in the log.

    Args:
        start: steps of this run before recording begins. steps: how many are recorded.
    """

    def __init__(self, start: int = 10, steps: int = 5) -> None:
        self.start, self.steps = start, steps
        self._seen = 0
        self._profiler: Any = None

    def after_iter(self, run: Training, losses: Mapping[str, Tensor]) -> None:
        """Begin and end the recording."""
        if not run.place.is_main:
            return
        self._seen += 1
        if self._seen == self.start:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if run.place.device.type == "cuda":
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            self._profiler = torch.profiler.profile(activities=activities, record_shapes=True)
            self._profiler.start()
        elif self._profiler is not None and self._seen == self.start + self.steps:
            self._profiler.stop()
            path = run.folder / f"profile_iter{run.iteration}.json"
            self._profiler.export_chrome_trace(str(path))
            key = "self_cuda_time_total" if run.place.device.type == "cuda" else "self_cpu_time_total"
            run.log.info(f"profile of {self.steps} steps: {path}")
            run.log.info(self._profiler.key_averages().table(sort_by=key, row_limit=15))
            self._profiler = None

    def close(self) -> None:
        """Stop a recording that did not come to its end."""
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None
