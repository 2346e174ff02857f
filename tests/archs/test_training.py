"""Every restoring network learns: the trainer's own steps on one small batch bring the loss down."""

from __future__ import annotations

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
#: The last losses relative to the first.
LEARNT = 0.8
RESTORING = [name for name in ARCH_REGISTRY.names() if issubclass(ARCH_REGISTRY.get(name), Network)]
RECIPES = sorted(path.name for path in Path("options").glob("train_*.yml"))


def _options(precision: str, outputs: list[str]) -> Options:
    """Adam with the rate that most recipes are near to, and L1 on every output: the gradient has all ways open."""
    return Options.model_validate(
        {
            "name": "learning",
            "datasets": {"train": {"type": "VideoDataset"}},
            "train": {
                "total_iter": STEPS,
                "precision": precision,
                "optim_g": {"type": "Adam", "lr": 1e-3},
                "losses": {name: {"type": "L1Loss", "output": name} for name in outputs},
            },
        }
    )


def _batch(net: Network, side: int) -> Mapping[str, Any]:
    """Smooth coloured pictures that move to the right, and what an exposure over five pixels makes of them."""
    contract = net.contract
    shape = net.example_input(side, side, batch=2 if contract.capabilities.batch else 1).shape
    frames = shape[1] if len(shape) == 5 else 1
    height, width = shape[-2] * contract.scale, shape[-1] * contract.scale
    canvas = F.interpolate(torch.rand(shape[0], 3, height // 4, width // 4 + frames), scale_factor=4, mode="bicubic")
    canvas = F.pad(canvas.clamp(0, 1), (4, 4, 0, 0), mode="replicate")
    gt = torch.stack([canvas[..., t + 4 : t + 4 + width] for t in range(frames)], dim=1)
    blurred = torch.stack([canvas[..., t + k : t + k + width] for t in range(frames) for k in range(2, 7)], dim=1)
    blurred = blurred.unflatten(1, (frames, 5)).mean(dim=2)
    lq = F.avg_pool2d(blurred.flatten(0, 1), contract.scale).unflatten(0, (shape[0], frames))
    return {"lq": lq, "gt": gt, "key": ["sequence/0"] * shape[0]}


def _learn(net: Network, batch: Mapping[str, Any], precision: str) -> None:
    """Train on the batch and check that it was learnt and that the gradient reached what the network says it does."""
    place = Place(resolve_device("auto"))
    model = RestorationModel(_options(precision, [output.name for output in net.contract.outputs]), {"g": net}, place)
    batch = {key: value.to(place.device) if isinstance(value, Tensor) else value for key, value in batch.items()}
    unreached = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    losses = []
    for step in range(1, STEPS + 1):
        model.start_iteration(step, step - 1)
        terms = model.train_step(batch)
        model.finish_iteration()
        losses.append(sum(float(term) for term in terms.values()))
        assert not model.steppers["optim_g"].skipped, f"step {step} was left out: its gradient is not finite"
        unreached -= {n for n, p in net.named_parameters() if n in unreached and p.grad is not None and p.grad.any()}
    assert median(losses[-5:]) <= LEARNT * losses[0], [round(loss, 4) for loss in losses]
    assert unreached == set(net.dead_parameters)


@pytest.mark.parametrize("name", RESTORING)
def test_learns(name: str) -> None:
    cls = ARCH_REGISTRY.get(name)
    net = cls(**cls.check_args)
    _learn(net, _batch(net, side=16), "fp32")


@pytest.mark.parametrize("name", RESTORING)
def test_learns_in_bf16_where_it_says_so(name: str) -> None:
    cls = ARCH_REGISTRY.get(name)
    net = cls(**cls.check_args)
    if not net.contract.capabilities.bf16:
        pytest.skip("declares that it does not work in bf16")
    _learn(net, _batch(net, side=16), "bf16")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_learns_at_its_published_size(recipe: str, precision: str) -> None:
    """Takes minutes a network on a CPU."""
    options = load_options(Path("options") / recipe)
    assert options.network_g is not None
    net: Network = ARCH_REGISTRY.get(options.network_g.type)(**options.network_g.arguments)
    if precision == "bf16" and not net.contract.capabilities.bf16:
        pytest.skip("declares that it does not work in bf16")
    _learn(net, _batch(net, side=64), precision)
