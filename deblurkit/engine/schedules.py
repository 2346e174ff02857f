"""Learning-rate schedules in closed form, and the optimisers by name.

The learning rate is a function of how many steps (or epochs) are done, never of the rate before: a resumed run and
an unbroken one have the same rates whatever happened in between.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from deblurkit.errors import RegistryError, did_you_mean


class Schedule(Protocol):
    """A learning-rate schedule."""

    def rate(self, initial: float, done: int) -> float:
        """The rate when `done` steps (or epochs: the schedule's unit) are done, given the configured one."""
        ...


class ConstantLR:
    """The initial rate throughout."""

    def rate(self, initial: float, done: int) -> float:
        """Always `initial`."""
        return initial


class MultiStepRestartLR:
    """Rate times `gamma` at each milestone; at a restart back to the initial rate times that restart's weight.

    As BasicSR's class of that name and torch's MultiStepLR: a milestone m is effective once m units are done; one that
    stands twice counts twice.

    Args:
        milestones: units done at which the rate falls. gamma: factor at each.
        restarts: units done at which the rate starts again. restart_weights: the factor at each restart.
    """

    def __init__(
        self,
        milestones: list[int],
        gamma: float = 0.1,
        restarts: list[int] = [0],  # noqa: B006 (never changed)
        restart_weights: list[float] = [1.0],  # noqa: B006
    ) -> None:
        if len(restarts) != len(restart_weights):
            raise RegistryError("MultiStepRestartLR: restarts and restart_weights must have the same length")
        self.milestones, self.gamma = sorted(milestones), gamma
        self.restarts = sorted({0: 1.0, **dict(zip(restarts, restart_weights, strict=True))}.items())

    def rate(self, initial: float, done: int) -> float:
        """A restart on the same unit as a milestone wins over it."""
        start, weight = [item for item in self.restarts if item[0] <= done][-1]
        fallen = sum(1 for m in self.milestones if start < m <= done)
        return initial * weight * self.gamma**fallen


class MultiStepLR(MultiStepRestartLR):
    """`MultiStepRestartLR` without restarts."""

    def __init__(self, milestones: list[int], gamma: float = 0.1) -> None:
        super().__init__(milestones, gamma)


class TrueCosineAnnealingLR:
    """Half a cosine from the initial rate to `eta_min` over `T_max` units, as in NAFNet.

    Args:
        T_max: units until the end; the rate stays at `eta_min` afterwards. eta_min: the last rate.
    """

    def __init__(self, T_max: int, eta_min: float = 0.0) -> None:  # noqa: N803 (torch's name)
        self.t_max, self.eta_min = T_max, eta_min

    def rate(self, initial: float, done: int) -> float:
        """Falls from `initial` at 0."""
        share = 0.5 * (1 + math.cos(math.pi * min(done, self.t_max) / self.t_max))
        return self.eta_min + (initial - self.eta_min) * share


SCHEDULES: dict[str, type[Any]] = {
    cls.__name__: cls for cls in (ConstantLR, MultiStepLR, MultiStepRestartLR, TrueCosineAnnealingLR)
}


def OPTIMIZERS() -> dict[str, type[Any]]:  # noqa: N802 (a table, filled on demand: importing torch is slow)
    """The optimisers of `torch.optim` by name."""
    import torch

    return {
        name: cls
        for name, cls in vars(torch.optim).items()
        if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
    }


def known_name(kind: str, name: str, table: Mapping[str, type[Any]]) -> type[Any]:
    """Look `name` up.

    Raises:
        RegistryError: it is not there; with the nearest names.
    """
    if name not in table:
        hint = did_you_mean(name, table) or f"; there are {', '.join(sorted(table))}"
        raise RegistryError(f"{kind}: {name!r} is unknown{hint}")
    return table[name]


def build_schedule(mapping: Mapping[str, Any] | None) -> Schedule:
    """The schedule that `train.scheduler` describes; constant without one."""
    if mapping is None:
        return ConstantLR()
    arguments = dict(mapping)
    schedule: Schedule = known_name("schedulers", arguments.pop("type"), SCHEDULES)(**arguments)
    return schedule


def set_rates(groups: Sequence[dict[str, Any]], schedule: Schedule, done: int) -> None:
    """Set the rate of each parameter group from its own initial one."""
    for group in groups:
        group["lr"] = schedule.rate(group["initial_lr"], done)
