"""Fixtures of operators, and plain differentiable forms of what they read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.support.parity import FOLDER


def load(name: str) -> tuple[list[Tensor], dict[str, Any], list[Tensor], dict[str, float]]:
    """Inputs, parameters, expected outputs and tolerances of `tests/parity/op_NAME.npz`."""
    with np.load(FOLDER / f"op_{name}.npz") as file:
        meta = json.loads(str(file["meta"]))
        inputs, outputs = ([torch.from_numpy(file[key]) for key in meta[kind]] for kind in ("inputs", "outputs"))
    return inputs, meta["params"], outputs, {"rtol": meta["rtol"], "atol": meta["atol"]}


def read(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Zero-padded bilinear read, corner by corner: `(N, C, H, W)` at `(N, ...)` gives `(N, C, ...)`."""
    height, width = image.shape[-2:]
    top, left = y.detach().floor(), x.detach().floor()
    total = torch.zeros((), dtype=image.dtype)
    for yy, wy in ((top, 1 - (y - top)), (top + 1, y - top)):
        for xx, wx in ((left, 1 - (x - left)), (left + 1, x - left)):
            inside = (yy >= 0) & (yy < height) & (xx >= 0) & (xx < width)
            # no slope towards what is a whole pixel away
            inside = inside & (y.detach() > -1) & (x.detach() > -1)
            index = yy.clamp(0, height - 1).long() * width + xx.clamp(0, width - 1).long()
            index = index.flatten(1).unsqueeze(1).expand(-1, image.shape[1], -1)
            value = image.flatten(2).gather(2, index).unflatten(2, y.shape[1:])
            total = total + value * (wy * wx * inside).unsqueeze(1)
    return total


def columns(x: Tensor, offset: Tensor, kernel: tuple[int, int], stride: int, padding: int, dilation: int) -> Tensor:
    """The samples of a deformable convolution, all at once: `(N, Cin, K, Ho, Wo)`."""
    taps = kernel[0] * kernel[1]
    groups = offset.shape[1] // (2 * taps)
    height, width = offset.shape[2:]
    offset = offset.unflatten(1, (groups, taps, 2)).flatten(0, 1)
    i, j = (torch.arange(n, dtype=x.dtype) * dilation - padding for n in kernel)
    rows, across = (torch.arange(n, dtype=x.dtype) * stride for n in (height, width))
    y = offset[:, :, 0] + i.repeat_interleave(kernel[1])[:, None, None] + rows[:, None]
    xx = offset[:, :, 1] + j.repeat(kernel[0])[:, None, None] + across
    return read(x.unflatten(1, (groups, -1)).flatten(0, 1), y, xx).reshape(len(x), -1, taps, height, width)


def assert_same_gradients(found: Tensor, wanted: Tensor, leaves: Iterable[Tensor], **tolerance: float) -> None:
    """Both outputs pull the same gradients out of the leaves."""
    leaves = tuple(leaves)
    seed = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(1))
    both = (torch.autograd.grad(output, leaves, seed, materialize_grads=True) for output in (found, wanted))
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, **tolerance)
