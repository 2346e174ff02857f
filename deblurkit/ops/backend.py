"""Which implementation of an operator runs: the one place that looks at packages and devices.

Every operator has a form in pure PyTorch, named "torch". Others are used where they can run and were measured to be
faster (docs/ops.md). A further backend (a Triton kernel, say) is a name here and a branch in the operator.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Backend = Literal["torch", "torchvision"]

#: Bytes that one intermediate tensor of an operator may take (the unfolded input of a deformable convolution and the
#: like), by type of device; a few such tensors exist at a time. Operators that have them take `budget` as an argument.
BUDGETS = {"cpu": 16 * 2**20, "cuda": 512 * 2**20}

_forced: Backend | None = None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator, unused-ignore]
def has_torchvision() -> bool:
    """Whether torchvision is installed and its compiled operators fit this torch."""
    if hasattr(torch.ops.torchvision, "deform_conv2d"):
        return True
    if importlib.util.find_spec("torchvision") is None:
        return False
    try:
        importlib.import_module("torchvision.ops")  # registers the operators
    except (ImportError, OSError, RuntimeError):  # built for another torch, or for a GPU
        return False
    return hasattr(torch.ops.torchvision, "deform_conv2d")


_RUNS: dict[Backend, Callable[[], bool]] = {"torch": lambda: True, "torchvision": has_torchvision}

# fastest first; "torch" must be in every list
_PREFERENCE: dict[str, dict[str, tuple[Backend, ...]]] = {
    "deform_conv2d": {"cpu": ("torch", "torchvision"), "cuda": ("torchvision", "torch")},
}


def budget_of(device_type: str, asked: int | None = None) -> int:
    """Bytes for an intermediate tensor: what is asked for, else the device's own budget."""
    return BUDGETS.get(device_type, BUDGETS["cpu"]) if asked is None else asked


def available(operator: str, device_type: str) -> tuple[Backend, ...]:
    """The backends of an operator that can run here, best first."""
    names = _PREFERENCE.get(operator, {}).get(device_type, ("torch",))
    return tuple(name for name in names if _RUNS[name]())


def choose(operator: str, device_type: str) -> Backend:
    """The backend to use: the one asked for by `use_backend` if it can run, else the best."""
    names = available(operator, device_type)
    return _forced if _forced is not None and _forced in names else names[0]


@contextmanager
def use_backend(name: Backend) -> Iterator[None]:
    """Prefer one backend for every operator that has it (for tests and measurements; process-wide).

    Raises:
        ValueError: the backend is unknown or cannot run here.
    """
    global _forced
    if name not in _RUNS or not _RUNS[name]():
        raise ValueError(f"backend {name!r} cannot run here; there is {[one for one in _RUNS if _RUNS[one]()]}")
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before
