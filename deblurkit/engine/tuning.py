"""Which way of calling a network is fastest here: measured on the first frame, since no rule of thumb holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from deblurkit.console import say, warn
from deblurkit.network import Network

#: A method of a network, of tensors and dicts of tensors.
Function = Callable[..., Any]

#: How often each way is timed; the fastest counts.
_REPEATS = 3
#: A way must be this much faster than the plain one to be taken.
_WORTH = 0.97
#: How far, relative to the largest value, another way's result may be from the plain one's, in fp32 and in less.
_CLOSE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}


class Tuned:
    """A network's `run` or `step` that finds out, when an input of new sizes comes, how it is fastest.

    The ways: as it is; in channels-last memory format; by `torch.compile`; on a GPU also by `torch.compile` with CUDA
    graphs. A way that fails, or whose result differs, is not taken. What was chosen is said.

    Args:
        net: the network. name: "run" or "step". compiler: `torch.compile`, or a stand-in.
    """

    def __init__(self, net: Network, name: str, compiler: Callable[..., Function] = torch.compile) -> None:
        self._net, self._name, self._compiler = net, name, compiler
        self._chosen: dict[tuple[Any, ...], Function] = {}

    def __call__(self, *arguments: Any) -> Any:
        """As the method, in the fastest way."""
        leaves = tree_flatten(arguments)[0]
        key = tuple((leaf.shape, leaf.dtype) for leaf in leaves if isinstance(leaf, Tensor))
        if key not in self._chosen:
            self._chosen[key] = self._choose(arguments)
        return self._chosen[key](*arguments)

    def _ways(self, device: torch.device) -> dict[str, Function]:
        net, able = self._net, self._net.contract.capabilities
        plain: Function = getattr(net, self._name)
        ways: dict[str, Function] = {}
        if able.channels_last:
            ways["channels_last"] = lambda *arguments: plain(*tree_map(_channels_last, arguments))
        if able.compile:
            ways["torch.compile"] = self._compiler(plain)
            if device.type == "cuda":
                graphs = self._compiler(plain, mode="reduce-overhead")
                # a graph writes its results to the same place each time
                ways["torch.compile with CUDA graphs"] = lambda *a: tree_map(_copied, graphs(*a))
        return ways

    def _choose(self, arguments: tuple[Any, ...]) -> Function:
        device = next(leaf.device for leaf in tree_flatten(arguments)[0] if isinstance(leaf, Tensor))
        best: Function = getattr(self._net, self._name)
        expected, least = _timed(best, arguments, device)
        name, plain = "", least
        for other, way in self._ways(device).items():
            try:
                found, seconds = _timed(way, arguments, device)
            except Exception as error:  # compilers fail in many ways of their own; the plain way is there
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                warn(f"{other} does not work here: {reason[:200]}")
                continue
            if not _close(found, expected):
                warn(f"{other} gives another result, and is not used")
            elif seconds < min(least, _WORTH * plain):
                best, least, name = way, seconds, other
        if name:
            say(f"{type(self._net).__name__}: {name}, {plain / least:.2f} times as fast")
        else:
            say(f"{type(self._net).__name__}: nothing is faster than the plain way")
        return best


def _timed(way: Function, arguments: tuple[Any, ...], device: torch.device) -> tuple[Any, float]:
    """What a way gives, and its least seconds after a first call."""
    found = way(*arguments)
    taken = []
    for _ in range(_REPEATS):
        _wait(device)
        started = time.perf_counter()
        way(*arguments)
        _wait(device)
        taken.append(time.perf_counter() - started)
    return found, min(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _channels_last(leaf: Any) -> Any:
    is_map = isinstance(leaf, Tensor) and leaf.ndim == 4
    return leaf.contiguous(memory_format=torch.channels_last) if is_map else leaf


def _copied(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _close(found: Any, expected: Any) -> bool:
    pairs = zip(tree_flatten(found)[0], tree_flatten(expected)[0], strict=True)
    for a, b in pairs:
        if isinstance(a, Tensor) and a.is_floating_point():
            allowed = _CLOSE.get(b.dtype, 1e-3) * max(float(b.abs().max()), 1e-6)
            if torch.is_autocast_enabled(a.device.type):
                allowed = max(allowed, _CLOSE[torch.bfloat16] * float(b.abs().max()))
            if not float((a.float() - b.float()).abs().max()) <= allowed:
                return False
    return True
