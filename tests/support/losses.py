"""The reference values of the losses (`tests/parity/loss_values.npz`), their inputs, and weights for VGG19."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deblurkit.losses.perceptual_loss import VGG19_LAYERS
from tests.support.parity import FOLDER, fill, uniform

with np.load(FOLDER / "loss_values.npz") as _file:
    META: dict[str, Any] = json.loads(str(_file["meta"]))
    VALUES: dict[str, float] = META["values"]
    MAPS: dict[str, NDArray[np.float32]] = {key: _file[key] for key in _file.files if key != "meta"}


def pair() -> tuple[Tensor, Tensor]:
    """The restored frames and the ground truth of the reference."""
    shape, seed = META["pred"]["shape"], META["pred"]["seed"]
    restored = torch.from_numpy(uniform(shape, seed))
    assert META["target"] == "0.6*pred + 0.4*make_input([2,3,32,40],102)"
    return restored, 0.6 * restored + 0.4 * torch.from_numpy(uniform(shape, 102))


def element_weight(channels: int) -> Tensor:
    """The weight map of the reference with 1 or 3 channels."""
    facts = META[f"weight_{channels}ch"]
    return torch.from_numpy(uniform(facts["shape"], facts["seed"]))


def logits() -> Tensor:
    """The discriminator's output of the reference."""
    assert META["logits"] == "4*make_input([2,1,6,6],105) - 2"
    return 4 * torch.from_numpy(uniform([2, 1, 6, 6], 105)) - 2


def write_vgg19(path: Path, last: str = "conv5_4", gain: float = 1.6) -> Path:
    """A file like torchvision's with artificial weights, up to the layer `last`."""
    state, channels = {}, 3
    for number, name in enumerate(VGG19_LAYERS[: VGG19_LAYERS.index(last) + 1]):
        if name.startswith("conv"):
            width = min(512, 32 * 2 ** int(name[4]))
            state[f"features.{number}.weight"] = torch.empty(width, channels, 3, 3)
            state[f"features.{number}.bias"] = torch.empty(width)
            channels = width
    torch.save(fill(state, gain, ()), path)
    return path


def gradients(inputs: Iterable[Tensor], value: Tensor) -> list[Tensor]:
    """The gradients of a scalar, which must be finite."""
    assert value.shape == ()
    found = list(torch.autograd.grad(value, list(inputs)))
    assert all(gradient.isfinite().all() for gradient in found)
    return found
