"""Every restoring network learns: the trainer's own steps on one small batch bring the loss down."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deblurkit.engine.launch import Place, resolve_device
from deblurkit.models.restoration_model import RestorationModel
from deblurkit.network import Network
from deblurkit.options import Options, load_options
from deblurkit.registry import ARCH_REGISTRY

STEPS = 30
#: Learning rates; a network must learn with one of them. (Deep linear recurrences burst at the first ones.)
RATES = (1e-3, 3e-4, 1e-4)
#: The last losses relative to the first.
LEARNT = 0.8
RESTORING = [name for name in ARCH_REGISTRY.names() if issubclass(ARCH_REGISTRY.get(name), Network)]
OPTIONS = Path(__file__).parents[2] / "options"
RECIPES = sorted(path.name for path in OPTIONS.glob("train_*.yml"))


def _options(rate: float, precision: str, outputs: list[str]) -> Options:
    """L1 on every output, so that the gradient has all ways open."""
    return Options.model_validate(
        {
            "name": "learning",
            "datasets": {"train": {"type": "VideoDataset"}},
            "train": {
                "total_iter": STEPS,
                "precision": precision,
                "optim_g": {"type": "Adam", "lr": rate},
                "losses": {name: {"type": "L1Loss", "output": name} for name in outputs},
            },
        }
    )


def _batch(net: Network, side: int) -> Mapping[str, Any]:
    """Smooth coloured pictures that move to the right, and what an exposure over five of their pixels makes of them.

    For super-resolution everything is larger by that factor, so that the reduced pictures are the same.
    """
    contract = net.contract
    shape = net.example_input(side, side, batch=2 if contract.capabilities.batch else 1).shape
    frames, by = shape[1] if len(shape) == 5 else 1, contract.scale
    height, width = shape[-2] * by, shape[-1] * by
    grains = torch.rand(shape[0], 3, height // (4 * by), width // (4 * by) + frames)
    canvas = F.interpolate(grains, scale_factor=4 * by, mode="bicubic")
    canvas = F.pad(canvas.clamp(0, 1), (4 * by, 4 * by, 0, 0), mode="replicate")
    starts = [by * (t + 4) for t in range(frames)]
    gt = torch.stack([canvas[..., at : at + width] for at in starts], dim=1)
    moved = [at + by * k for at in starts for k in range(-2, 3)]
    blurred = torch.stack([canvas[..., at : at + width] for at in moved], dim=1)
    blurred = blurred.unflatten(1, (frames, 5)).mean(dim=2)
    lq = F.avg_pool2d(blurred.flatten(0, 1), contract.scale).unflatten(0, (shape[0], frames))
    return {"lq": lq, "gt": gt, "key": ["sequence/0"] * shape[0]}


def _check_learns(net: Network, batch: Mapping[str, Any], precision: str) -> None:
    """Train on the batch until it is learnt, and check that the gradient reached all that the network says it does."""
    place = Place(resolve_device("auto"))
    batch = {key: value.to(place.device) if isinstance(value, Tensor) else value for key, value in batch.items()}
    curves = {}
    for rate in RATES:
        curves[rate], reached = _losses(copy.deepcopy(net), batch, rate, precision, place)
        if median(curves[rate][-5:]) <= LEARNT * curves[rate][0]:
            learning = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
            assert learning - reached == set(net.dead_parameters)
            return
    pytest.fail(f"{type(net).__name__} does not learn in {precision}; losses by learning rate: {curves}")


def _losses(
    net: Network, batch: Mapping[str, Any], rate: float, precision: str, place: Place
) -> tuple[list[float], set[str]]:
    """The loss at each step, infinite where it could not be taken, and the parameters that a gradient reached."""
    options = _options(rate, precision, [output.name for output in net.contract.outputs])
    model = RestorationModel(options, {"g": net}, place)
    losses, reached = [], set()
    for step in range(1, STEPS + 1):
        model.start_iteration(step, step - 1)
        loss = sum(float(term) for term in model.train_step(batch).values())
        model.finish_iteration()
        losses.append(math.inf if model.steppers["optim_g"].skipped else loss)
        reached |= {n for n, p in net.named_parameters() if n not in reached and p.grad is not None and p.grad.any()}
    return losses, reached


@pytest.mark.parametrize("name", RESTORING)
def test_learns(name: str) -> None:
    cls = ARCH_REGISTRY.get(name)
    net = cls(**cls.check_args)
    _check_learns(net, _batch(net, side=16), "fp32")


@pytest.mark.parametrize("name", RESTORING)
def test_learns_in_bf16_where_it_says_so(name: str) -> None:
    cls = ARCH_REGISTRY.get(name)
    net = cls(**cls.check_args)
    if not net.contract.capabilities.bf16:
        pytest.skip("declares that it does not work in bf16")
    _check_learns(net, _batch(net, side=16), "bf16")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_learns_at_its_published_size(recipe: str, precision: str) -> None:
    """Takes minutes a network on a CPU."""
    options = load_options(OPTIONS / recipe)
    assert options.network_g is not None
    net: Network = ARCH_REGISTRY.get(options.network_g.type)(**options.network_g.arguments)
    if precision == "bf16" and not net.contract.capabilities.bf16:
        pytest.skip("declares that it does not work in bf16")
    _check_learns(net, _batch(net, side=64), precision)
