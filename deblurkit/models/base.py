"""What the training loop asks of a model: one step, and a state that can be saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deblurkit.engine.launch import Place
from deblurkit.engine.schedules import OPTIMIZERS, build_schedule, known_name, set_rates
from deblurkit.errors import OptionsError
from deblurkit.network import Network
from deblurkit.options import Component, Options

Batch = Mapping[str, Any]


class _Runner(nn.Module):
    """Makes `Network.run` the `forward` of a module, because that is what DDP wraps."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: self.net.io.decode(value) for name, value in self.net.run(self.net.io.encode(x)).items()}


class Model(ABC):
    """How networks are trained: losses, optimisers, the step. It is given its networks and its batches.

    Args:
        options: the validated options. networks: by role; "g" is the one that restores. place: this process.
    """

    def __init__(self, options: Options, networks: Mapping[str, Network], place: Place) -> None:
        self.options = options
        self.place = place
        self.networks = {role: net.to(place.device).train() for role, net in networks.items()}
        self.runners = {role: self._distribute(_Runner(net)) for role, net in self.networks.items()}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        scheduler = options.training().scheduler
        self.schedule = build_schedule(scheduler.mapping() if scheduler else None)

    @property
    def net(self) -> Network:
        """The network that restores."""
        return self.networks["g"]

    @abstractmethod
    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """One optimisation step.

        Args:
            batch: `lq` and `gt`, float `(B, T, C, H, W)` RGB in [0, 1] on the device, and `key`.

        Returns:
            the loss terms by name as detached scalars on the device; nothing here waits for the device.
        """

    def set_rates(self, done: int) -> None:
        """Set the learning rates for the state in which `done` units of the schedule are done."""
        for optimizer in self.optimizers.values():
            set_rates(optimizer.param_groups, self.schedule, done)

    def rates(self) -> list[float]:
        """The learning rate of each parameter group."""
        return [float(group["lr"]) for optimizer in self.optimizers.values() for group in optimizer.param_groups]

    def state(self) -> dict[str, Any]:
        """What must be saved beside the networks' weights."""
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put `state()` of an earlier process back."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])

    def make_optimizer(self, options: Component, net: Network) -> torch.optim.Optimizer:
        """The optimiser that the options describe, over the parameters that learn.

        Raises:
            OptionsError: torch refuses the arguments.
        """
        cls = known_name("optimizers", options.type, OPTIMIZERS())
        try:
            optimizer: torch.optim.Optimizer = cls(
                [p for p in net.parameters() if p.requires_grad], **options.arguments
            )
        except (ValueError, TypeError) as error:
            raise OptionsError(f"{options.type} does not take {options.arguments}: {error}") from error
        for group in optimizer.param_groups:
            group["initial_lr"] = float(group["lr"])
        return optimizer

    def _distribute(self, runner: _Runner) -> nn.Module:
        if self.place.world_size == 1:
            return runner
        ids = [self.place.device.index] if self.place.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(runner, device_ids=ids)
