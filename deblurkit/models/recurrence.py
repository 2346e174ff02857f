"""Recurrent networks in training, one frame at a time: shorter gradients, and activations computed again.

Both need no more than what the contract has anyway: `step` of a stream, `sweep_step` of a clip network.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from deblurkit.errors import OptionsError
from deblurkit.network import Network, State


def check_frame_by_frame(net: Network, key: str) -> None:
    """Raise OptionsError for a network that cannot be run frame by frame; `key` of the options asks for it."""
    kind = net.contract.kind
    if kind != "stream" and not (kind == "clip" and net.has_sweeps):
        text = "sees no sequence" if kind in ("image", "window") else "restores clips in one go, without steps"
        raise OptionsError(f"{key}: is for networks that go from frame to frame; {type(net).__name__} {text}")


def run_frame_by_frame(
    net: Network, x: Tensor, state: State | None = None, truncate: int | None = None, recompute: bool = False
) -> tuple[dict[str, Tensor], State]:
    """What `net.run` returns, to rounding, with a gradient through every frame's own step.

    Args:
        net: of kind "stream", or "clip" with sweeps. x: `(B, T, C, H, W)`, context included.
        state: of the frame before (stream); None: the clip begins. truncate: no gradient passes from one group of so
            many frames to the one before it in the walk; None: everywhere.
        recompute: keep no activations of a step for the backward pass, but compute them again (Chen et al.: Training
            Deep Nets with Sublinear Memory Cost, 2016).

    Returns:
        the outputs, `(B, T', C, h, w)` each, and the state after the last frame (streams).
    """
    if net.contract.kind == "clip":
        return _walk(net, x, truncate, recompute), {}
    step = _recomputed(net.step) if recompute else net.step
    window = sum(net.contract.context) + 1
    state = net.init_state(x[:, :window]) if state is None else state
    found: dict[str, list[Tensor]] = {}
    for t in range(x.shape[1] - window + 1):
        if truncate and t and t % truncate == 0:
            state = detached(state)
        outputs, state = step(x[:, t : t + window], state)
        for name, value in outputs.items():
            found.setdefault(name, []).append(value)
    return {name: torch.stack(values, dim=1) for name, values in found.items()}, state


def detached(state: State) -> State:
    """The same values without the gradient's way back."""
    return {name: value.detach() for name, value in state.items()}


def _recomputed(function: Any) -> Any:
    from torch.utils.checkpoint import checkpoint

    return partial(checkpoint, function, use_reentrant=False)


def _walk(net: Network, x: Tensor, truncate: int | None, recompute: bool) -> dict[str, Tensor]:
    """The walks of a clip network (`Network.sweeps`), all of their maps at hand."""
    step = _recomputed(net.sweep_step) if recompute else net.sweep_step
    length = x.shape[1]
    maps: dict[str, dict[int, Tensor]] = {"frame": dict(enumerate(x.unbind(1)))}  # by place; some have gaps
    walks = net.sweeps()
    sweep = next(walks, None)
    while sweep is not None:
        state: State = {}
        written: dict[str, dict[int, Tensor]] = {}
        order = range(length) if sweep.direction == "forward" else range(length - 1, -1, -1)
        for count, i in enumerate(order):
            if truncate and count and count % truncate == 0:
                state = detached(state)
            at_hand = {
                (name, place): maps[name][i + place]
                for name, places in sweep.reads.items()
                for place in places
                if i + place in maps.get(name, {})
            }
            outputs, state = step(sweep.name, at_hand, state)
            for name, value in outputs.items():
                written.setdefault(name, {})[i] = value
        maps.update(written)
        try:
            sweep = walks.send(state)
        except StopIteration:
            sweep = None
    return {o.name: torch.stack([maps[o.name][i] for i in range(length)], dim=1) for o in net.contract.outputs}
