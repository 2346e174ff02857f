"""Which implementation of an operator runs: the one place that looks at packages and devices.

Every operator has a form in pure PyTorch, named "torch". Others are used where they can run and were measured to be
faster (docs/ops.md). The Triton kernels have not been measured on a GPU yet: they come last, and run when
`use_backend("triton")` asks for them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

Backend = Literal["torch", "torchvision", "triton"]

#: Bytes that one intermediate tensor of an operator may take (the unfolded input of a deformable convolution and the
#: like), by type of device; a few such tensors exist at a time. Operators that have them take `budget` as an argument.
BUDGETS = {"cpu": 16 * 2**20, "cuda": 512 * 2**20, "meta": 2**62}  # what has no memory is not cut

_forced: Backend | None = None


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


def has_triton() -> bool:
    """Whether Triton is installed and has a GPU, or its interpreter (TRITON_INTERPRET=1), to run kernels on."""
    if importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"


# what torch.compiler.assume_constant_result does; but that takes seconds to import, for every command
has_torchvision._dynamo_marked_constant = True  # type: ignore[attr-defined]

_RUNS: dict[Backend, Callable[[], bool]] = {
    "torch": lambda: True,
    "torchvision": has_torchvision,
    "triton": has_triton,
}

# fastest first; "torch" must be in every list
_PREFERENCE: dict[str, dict[str, tuple[Backend, ...]]] = {
    "deform_conv2d": {"cpu": ("torch", "torchvision"), "cuda": ("torchvision", "torch", "triton")},
    "correlation": {"cuda": ("torch", "triton")},
    "filter_adaptive_conv": {"cuda": ("torch", "triton")},
}


def budget_of(device_type: str, asked: int | None = None) -> int:
    """Bytes for an intermediate tensor: what is asked for, else the device's own budget."""
    return BUDGETS.get(device_type, BUDGETS["cpu"]) if asked is None else asked


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """The context in which nothing is cast; also for devices that know no autocast (meta)."""
    known = device_type != "meta"
    return torch.autocast(device_type, enabled=False) if known else nullcontext()


def available(operator: str, device_type: str) -> tuple[Backend, ...]:
    """The backends of an operator that can run here, best first."""
    names = _PREFERENCE.get(operator, {}).get(device_type, ("torch",))
    return tuple(name for name in names if _RUNS[name]())


def choose(operator: str, device_type: str) -> Backend:
    """The backend to use: the one asked for by `use_backend` if it can run, else the best."""
    names = available(operator, device_type)
    return _forced if _forced is not None and _forced in names else names[0]


def triton_kernels(operator: str, *tensors: Tensor | None) -> ModuleType | None:
    """The module of Triton kernels, if the operator is to use it for these tensors; they are all float32.

    Under `torch.compile` it is the pure form that runs: the compiler makes kernels of its own.
    """
    given = [one for one in tensors if one is not None]
    if torch.compiler.is_compiling() or any(one.dtype != torch.float32 for one in given):
        return None
    if choose(operator, given[0].device.type) != "triton":
        return None
    return importlib.import_module("deblurkit.ops.triton_kernels")


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
