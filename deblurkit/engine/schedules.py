"""Learning-rate schedules in closed form, and the optimisers by name.

The learning rate is a function of how many steps (or epochs) are done, never of the rate before: a resumed run and
an unbroken one have the same rates whatever happened in between.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from deblurkit.compat.schedules import WarmupDriftLR
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
        if T_max < 1:
            raise RegistryError(f"TrueCosineAnnealingLR: T_max must be at least 1, not {T_max}")
        self.t_max, self.eta_min = T_max, eta_min

    def rate(self, initial: float, done: int) -> float:
        """Falls from `initial` at 0."""
        share = 0.5 * (1 + math.cos(math.pi * min(done, self.t_max) / self.t_max))
        return self.eta_min + (initial - self.eta_min) * share


class CosineAnnealingRestartCyclicLR:
    """Cosine cycles one after the other, each from its weight times the initial rate to its own `eta_min` (Restormer).

    A boundary belongs to the earlier cycle, as upstream has it. After the last cycle the rate stays where it ended.

    Args:
        periods: units in each cycle. restart_weights: a factor for each. eta_mins: the last rate of each; equal to
            the initial rate gives a flat cycle.
    """

    def __init__(self, periods: list[int], restart_weights: list[float], eta_mins: list[float]) -> None:
        if not len(periods) == len(restart_weights) == len(eta_mins) > 0:
            raise RegistryError("cosine cycles: periods, restart_weights and eta_mins must have the same length")
        self.periods, self.weights, self.eta_mins = periods, restart_weights, eta_mins

    def rate(self, initial: float, done: int) -> float:
        """The rate in the cycle that `done` lies in."""
        start, cycle = 0, 0
        while cycle < len(self.periods) - 1 and done > start + self.periods[cycle]:
            start += self.periods[cycle]
            cycle += 1
        eta = self.eta_mins[cycle]
        share = min(done - start, self.periods[cycle]) / self.periods[cycle]
        return eta + self.weights[cycle] * 0.5 * (initial - eta) * (1 + math.cos(math.pi * share))


class CosineAnnealingRestartLR(CosineAnnealingRestartCyclicLR):
    """Cosine cycles with one `eta_min` (BasicSR).

    Args:
        periods: units in each cycle. restart_weights: a factor for each. eta_min: the last rate.
    """

    def __init__(self, periods: list[int], restart_weights: list[float] | None = None, eta_min: float = 0.0) -> None:
        super().__init__(periods, restart_weights or [1.0] * len(periods), [eta_min] * len(periods))


class LinearLR:
    """Straight from the initial rate to zero after `total_iter` units (NAFNet)."""

    def __init__(self, total_iter: int) -> None:
        self.total = total_iter

    def rate(self, initial: float, done: int) -> float:
        """Zero from `total_iter` on."""
        return initial * max(0.0, 1 - done / self.total)


class VibrateLR:
    """Triangles from zero to an envelope and back, 80 of them in all (NAFNet).

    The envelope falls straight from the initial rate to zero over the first 3/8 of `total_iter`, is a fifth of the
    initial rate until 5/8, then a tenth. The very first rise begins at a tenth of the initial rate.

    Args:
        total_iter: units until the end; at least 160, so that a triangle has a rise and a fall.
    """

    def __init__(self, total_iter: int) -> None:
        if total_iter < 160:
            raise RegistryError(f"VibrateLR: total_iter must be at least 160, not {total_iter}")
        self.total, self.period = total_iter, total_iter // 80

    def rate(self, initial: float, done: int) -> float:
        """The rate at `done`."""
        rise = self.period // 2
        height = done % self.period / rise
        if height >= 1:  # the fall; of an odd period it ends a little above zero
            height = 2 - height
        share = done / self.total
        envelope = 1 - share * 8 / 3 if share < 3 / 8 else 0.2 if share < 5 / 8 else 0.1
        least = 0.1 if done < rise else 0.0
        return initial * max(height * envelope, least)


class FlatLinearLR:
    """The initial rate for a while, then straight down (DeblurGAN, DeblurGAN-v2).

    Args:
        flat: units at the initial rate. decay: units from there to `eta_min`, at which the rate then stays.
        eta_min: the last rate.
    """

    def __init__(self, flat: int, decay: int, eta_min: float = 0.0) -> None:
        if flat < 0 or decay < 1:
            raise RegistryError(f"FlatLinearLR: flat {flat} must be at least 0 and decay {decay} at least 1")
        self.flat, self.decay, self.eta_min = flat, decay, eta_min

    def rate(self, initial: float, done: int) -> float:
        """`eta_min` from `flat + decay` on."""
        share = min(max(done - self.flat, 0) / self.decay, 1.0)
        return initial + (self.eta_min - initial) * share


SCHEDULES: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (
        ConstantLR,
        CosineAnnealingRestartCyclicLR,
        CosineAnnealingRestartLR,
        FlatLinearLR,
        LinearLR,
        MultiStepLR,
        MultiStepRestartLR,
        TrueCosineAnnealingLR,
        VibrateLR,
        WarmupDriftLR,
    )
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
        raise RegistryError(f"there is no {name!r} among the {kind}{hint}")
    return table[name]


def build_schedule(mapping: Mapping[str, Any] | None) -> Schedule:
    """The schedule that `train.scheduler` describes; constant without one."""
    if mapping is None:
        return ConstantLR()
    arguments = dict(mapping)
    schedule: Schedule = known_name("schedulers", arguments.pop("type"), SCHEDULES)(**arguments)
    return schedule


def set_rates(
    groups: Sequence[dict[str, Any]], schedule: Schedule, done: int, warmup_share: float | None = None
) -> None:
    """Set the rate of each parameter group from its own initial one.

    Args:
        groups: with `initial_lr`. done: units of the schedule that are done.
        warmup_share: during warm-up, the share of the initial rate to use in the schedule's place (as BasicSR).
    """
    for group in groups:
        initial = group["initial_lr"]
        group["lr"] = schedule.rate(initial, done) if warmup_share is None else initial * warmup_share
