"""What the training loop asks of a model: one step, and a state that can be saved."""

from __future__ import annotations

import contextlib
import copy
import fnmatch
import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from deblurkit.engine.launch import Place, average
from deblurkit.engine.schedules import OPTIMIZERS, build_schedule, known_name, set_rates
from deblurkit.engine.step import Stepper, autocast
from deblurkit.errors import OptionsError
from deblurkit.models.recurrence import check_frame_by_frame, detached, run_frame_by_frame
from deblurkit.network import Network, State
from deblurkit.options import Component, Options

Batch = Mapping[str, Any]
Terms = dict[str, Tensor]


class _Runner(nn.Module):
    """`Network.run`, with the weights' pixel convention around it, as the `forward` of a module: DDP wraps modules.

    A recurrent network may go frame by frame (`models.recurrence`). A stream then goes on from `state`, where one is
    given, and leaves its own in `state`.
    """

    def __init__(self, net: Network, truncate: int | None, recompute: bool) -> None:
        super().__init__()
        self.net, self.truncate, self.recompute = net, truncate, recompute
        self.state: State = {}

    def forward(self, x: Tensor, state: State | None = None) -> dict[str, Tensor]:
        x = self.net.io.encode(x)
        if self.truncate or self.recompute:
            found, after = run_frame_by_frame(self.net, x, state, self.truncate, self.recompute)
            self.state = detached(after)
        else:
            found = self.net.run(x)
        return {name: self.net.io.decode(value) for name, value in found.items()}


class Model(ABC):
    """How networks are trained: losses, optimisers, the step. It is given its networks and its batches.

    Args:
        options: the validated options. networks: by role; "g" is the one that restores. place: this process.

    Attributes:
        networks: by role. averages: moving averages of the networks' weights by role (`train.ema_decay`).
        steppers: one for each optimiser, by its key in the options.
    """

    def __init__(self, options: Options, networks: Mapping[str, nn.Module], place: Place) -> None:
        self.options, self.train_options, self.place = options, options.training(), place
        self.networks = {role: self._prepare(net) for role, net in networks.items()}
        for key, wanted in (
            ("truncate", self.train_options.truncate),
            ("checkpoint_frames", self.train_options.checkpoint_frames),
        ):
            if wanted:
                check_frame_by_frame(self.net, f"train.{key}")
        self.runners = {role: self._distribute(self._runner(role, net)) for role, net in self.networks.items()}
        self.averages: dict[str, Network] = {}
        if self.train_options.ema_decay:  # now that DDP has given all processes the same weights
            self.averages["g"] = copy.deepcopy(self.net).eval().requires_grad_(False)
        self._moving: list[tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]] = [
            (
                list(average.parameters()),
                list(self.networks[role].parameters()),
                list(average.buffers()),
                list(self.networks[role].buffers()),
            )
            for role, average in self.averages.items()
        ]
        self.steppers: dict[str, Stepper] = {}
        self.iteration = 0
        scheduler = self.train_options.scheduler
        self.schedule = build_schedule(scheduler.mapping() if scheduler else None)

    @property
    def net(self) -> Network:
        """The network that restores, as it is trained."""
        return cast(Network, self.networks["g"])

    @property
    def best_net(self) -> Network:
        """The network to validate with: the averaged one where there is one."""
        return self.averages.get("g", self.net)

    @abstractmethod
    def train_step(self, batch: Batch) -> Terms:
        """One optimisation step.

        Args:
            batch: `lq` and `gt`, float `(B, T, C, H, W)` RGB in [0, 1] on the device, and `key`.

        Returns:
            the loss terms by name as detached scalars on the device; nothing here waits for a GPU.
        """

    def start_iteration(self, iteration: int, done: int) -> None:
        """Set rates and frozen parameters.

        Args:
            iteration: the step that comes now, from 1. done: units of the schedule that are done.
        """
        self.iteration = iteration
        warmup = self.train_options.warmup_iter
        share = iteration / warmup if iteration < warmup else None
        for stepper in self.steppers.values():
            set_rates(stepper.optimizer.param_groups, self.schedule, done, share)

    def optimise(self, key: str, role: str, batch: Batch, compute: Callable[[Batch], Terms]) -> Terms:
        """Accumulate the gradients of `train.accumulate` parts of a batch and step.

        Args:
            key: the stepper. role: the network whose runner takes part. compute: the loss terms of a part.

        Returns:
            the mean of the terms over the parts, detached.
        """
        stepper, count = self.steppers[key], self.train_options.accumulate
        sums: Terms = {}
        stepper.zero_grad()
        pieces = [(piece, share / count) for part in _parts(batch, count) for piece, share in self.pieces(part)]
        # DDP wants every parameter in the last backward pass; a clip's last frames need not use those that make a state
        by_hand = len(pieces) > count
        for i, (piece, share) in enumerate(pieces):
            with self._no_sync(role) if by_hand or i < len(pieces) - 1 else contextlib.nullcontext():
                with autocast(self.place.device, self.train_options.precision):
                    terms = compute(piece)
                total = functools.reduce(torch.add, terms.values())
                stepper.backward(total if share == 1 else total * share)
            for name, term in terms.items():
                value = term.detach() if share == 1 else term.detach() * share
                sums[name] = sums[name] + value if name in sums else value
        if by_hand:
            groups = stepper.optimizer.param_groups
            average(self.place, [p.grad for group in groups for p in group["params"] if p.grad is not None])
        for group in stepper.optimizer.param_groups:
            # frozen parameters take part in the graph (so DDP needs no special mode) but are not stepped
            if self.iteration <= group["frozen_until"]:
                for parameter in group["params"]:
                    parameter.grad = None
        stepper.step()
        return sums

    def pieces(self, part: Batch) -> Sequence[tuple[Batch, float]]:
        """A part of a batch as what is computed, and differentiated, in one go; and the share of each in the loss."""
        return [(part, 1.0)]

    def finish_iteration(self) -> None:
        """Move the averages: parameters are averaged, buffers copied."""
        weight = 1 - self.train_options.ema_decay
        with torch.no_grad():
            for parameters, current, buffers, values in self._moving:
                torch._foreach_lerp_(parameters, current, weight)
                if buffers:
                    torch._foreach_copy_(buffers, values)

    def rates(self) -> list[float]:
        """The learning rate of each parameter group."""
        return [float(g["lr"]) for stepper in self.steppers.values() for g in stepper.optimizer.param_groups]

    def state(self) -> dict[str, Any]:
        """What must be saved beside the networks' weights."""
        return {name: stepper.state_dict() for name, stepper in self.steppers.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put `state()` of an earlier process back; rates and other settings stay those of the options."""
        for name, stepper in self.steppers.items():
            groups = stepper.optimizer.param_groups
            settings = [{key: value for key, value in group.items() if key != "params"} for group in groups]
            stepper.load_state_dict(state[name])
            for group, own in zip(stepper.optimizer.param_groups, settings, strict=True):
                group.update(own)

    def add_stepper(self, key: str, options: Component, net: nn.Module) -> None:
        """Make the optimiser that the options describe, over the parameters that learn.

        `train.param_groups` puts parameters whose names match a pattern into groups of their own.

        Raises:
            OptionsError: torch refuses the arguments, or a pattern matches nothing.
        """
        cls = known_name("optimizers", options.type, OPTIMIZERS())
        arguments = dict(options.arguments)
        if "fused" in inspect.signature(cls).parameters and self.place.device.type in ("cuda", "cpu"):
            arguments.setdefault("fused", not {"foreach", "differentiable"} & set(arguments))
        try:
            optimizer: torch.optim.Optimizer = cls(self._groups(net), **arguments)
        except (ValueError, TypeError, RuntimeError) as error:
            raise OptionsError(f"train.{key}: {options.type} does not take {options.arguments}: {error}") from error
        for group in optimizer.param_groups:
            group["initial_lr"] = float(group["lr"]) * group["lr_mul"]
        self.steppers[key] = Stepper(
            optimizer, self.place.device, self.train_options.precision, self.train_options.grad_clip
        )

    def _groups(self, net: nn.Module) -> list[dict[str, Any]]:
        remaining = {name: p for name, p in net.named_parameters() if p.requires_grad}
        groups = []
        for entry in self.train_options.param_groups:
            own = {n: p for n, p in remaining.items() if any(fnmatch.fnmatchcase(n, m) for m in entry.match)}
            if not own and not entry.optional:
                raise OptionsError(f"train.param_groups: no parameter of {type(net).__name__} matches {entry.match}")
            remaining = {n: p for n, p in remaining.items() if n not in own}
            groups.append({"params": list(own.values()), "lr_mul": entry.lr_mul, "frozen_until": entry.frozen_until})
        groups.insert(0, {"params": list(remaining.values()), "lr_mul": 1.0, "frozen_until": 0})
        return [group for group in groups if group["params"]]

    def _prepare(self, net: nn.Module) -> nn.Module:
        if self.train_options.sync_bn and self.place.world_size > 1:
            net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
        if self.train_options.channels_last:
            net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for name, module in net.named_modules():
            if name and any(fnmatch.fnmatchcase(name, m) for m in self.train_options.checkpoint_modules):
                _recompute(module)
        return net.to(self.place.device).train()

    def _runner(self, role: str, net: nn.Module) -> nn.Module:
        """The module whose `forward` a training step calls."""
        return _Runner(cast(Network, net), self.train_options.truncate, self.train_options.checkpoint_frames)

    def _distribute(self, runner: nn.Module) -> nn.Module:
        if self.train_options.compile:
            runner = torch.compile(runner)  # type: ignore[assignment]
        if self.place.world_size == 1:
            return runner
        return nn.parallel.DistributedDataParallel(
            runner,
            device_ids=[self.place.device.index] if self.place.device.type == "cuda" else None,
            find_unused_parameters=self.train_options.find_unused_parameters,
            static_graph=self.train_options.static_graph,
        )

    def _no_sync(self, role: str) -> contextlib.AbstractContextManager[Any]:
        runner = self.runners[role]
        if isinstance(runner, nn.parallel.DistributedDataParallel):
            return runner.no_sync()
        return contextlib.nullcontext()


def _parts(batch: Batch, count: int) -> Iterator[Batch]:
    """A batch in `count` equal parts."""
    if count == 1:
        yield batch
        return
    chunks = {k: v.chunk(count) if isinstance(v, Tensor) else [v] * count for k, v in batch.items()}
    for i in range(count):
        yield {key: value[i] for key, value in chunks.items()}


def _recompute(module: nn.Module) -> None:
    """Keep no activations inside a module; compute them again in the backward pass."""
    # a copy of the module has a copy of this, which calls the copy
    module.forward = functools.partial(_recomputed, module)


def _recomputed(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    from torch.utils.checkpoint import checkpoint

    return checkpoint(type(module).forward, module, *args, use_reentrant=False, **kwargs)
