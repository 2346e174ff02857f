"""The base class of all networks: what trainer, evaluator and restorer call, whatever the network looks like inside."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deblurkit.contract import FrameContract, PixelConvention
from deblurkit.registry import ARCH_REGISTRY

State = dict[str, Tensor]


class Network(nn.Module):
    """A restoration network.

    `forward` is the network's own (upstream's arguments, outputs and state-dict keys); no consumer calls it. Consumers
    call `run`, or `init_state` and `step`, or `features` and `fuse`. The defaults here cover a `forward` that takes one
    tensor and returns one; a network overrides what is odd about it.

    Args:
        contract: the frames and sizes that this instance takes and gives.

    Attributes:
        contract: see `FrameContract`.
        io: the pixel convention of the loaded weights; consumers apply it around the calls.
        config: `{"type": registered name, **constructor arguments}`, as in an options file; a checkpoint carries it.

    Class attributes that a network may set:
        paper, year: where it was published.
        dead_parameters: parameters that no gradient reaches in training, by name, with the reason.
        check_args: small constructor arguments with which `deblurkit.testing.check_network` builds it.
    """

    paper: ClassVar[str] = ""
    year: ClassVar[int | None] = None
    dead_parameters: ClassVar[Mapping[str, str]] = {}
    check_args: ClassVar[Mapping[str, Any]] = {}

    contract: FrameContract
    io: PixelConvention
    config: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Network:
        """Remember the constructor's arguments, so that every checkpoint can say how to build its network again."""
        self = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(self, *args, **kwargs)
        bound.apply_defaults()
        own = inspect.signature(cls.__init__).parameters
        first = next(iter(own))
        config: dict[str, Any] = {"type": ARCH_REGISTRY.name_of(cls) or cls.__name__}
        for name, value in bound.arguments.items():
            if own[name].kind is inspect.Parameter.VAR_KEYWORD:
                config.update(value)
            elif name != first and own[name].kind is not inspect.Parameter.VAR_POSITIONAL:
                config[name] = value
        # a copy: a constructor may change a list that it was given
        object.__setattr__(self, "config", copy.deepcopy(config))
        return self

    def __init__(self, contract: FrameContract) -> None:
        super().__init__()
        self.contract = contract
        self.io = PixelConvention()

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """Restore a batch.

        Args:
            x: images `(B,C,H,W)` (kind "image"; clips are taken frame by frame), windows `(B,frames,C,H,W)`, or clips
                `(B,T,C,H,W)` (kinds "clip" and "stream"); float RGB in [0, 1], H and W as the contract says.

        Returns:
            a tensor for each of `contract.outputs`, float RGB in about [0, 1] (not clamped).
        """
        kind = self.contract.kind
        if kind == "stream":
            return self._run_stream(x)
        if kind == "image" and x.ndim == 5:
            flat = self.run(x.flatten(0, 1))
            return {name: value.unflatten(0, x.shape[:2]) for name, value in flat.items()}
        restored = self.forward(x)
        if not isinstance(restored, Tensor):
            raise TypeError(f"{type(self).__name__}.forward returns {type(restored).__name__}: it must override run()")
        return {"restored": restored}

    def _run_stream(self, x: Tensor) -> dict[str, Tensor]:
        """Step through a clip; the `past` first and `future` last frames are context."""
        past, future = self.contract.context
        length = x.shape[1] - past - future
        if length < 1:
            raise ValueError(f"{type(self).__name__} needs at least {past + 1 + future} frames, got {x.shape[1]}")
        state = self.init_state(x[:, : past + 1 + future])
        outputs: dict[str, list[Tensor]] = {}
        for t in range(length):
            result, state = self.step(x[:, t : t + past + 1 + future], state)
            for name, value in result.items():
                outputs.setdefault(name, []).append(value)
        return {name: torch.stack(values, dim=1) for name, values in outputs.items()}

    def init_state(self, x: Tensor) -> State:
        """The state before the first frame of a stream.

        Args:
            x: the first window, `(B, past + 1 + future, C, H, W)`.

        Returns:
            a flat dict of tensors, so that it can be kept per tile, moved, saved and exported.
        """
        raise TypeError(f"{type(self).__name__} is of kind {self.contract.kind!r} and keeps no state")

    def step(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Restore one frame of a stream.

        Args:
            x: the frame with its context, `(B, past + 1 + future, C, H, W)`. state: from `init_state` or the last step.

        Returns:
            the outputs for that frame, each `(B, C, h, w)`, and the next state.
        """
        raise TypeError(f"{type(self).__name__} is of kind {self.contract.kind!r} and has no step")

    def features(self, frame: Tensor) -> Tensor:
        """Per-frame work that overlapping windows share: `(B,C,H,W)` to features; only where `splits` is True."""
        raise TypeError(f"{type(self).__name__} has no features() / fuse() split")

    def fuse(self, features: Tensor) -> dict[str, Tensor]:
        """Restore from the stacked features of a window, `(B, frames, ...)`; equals `run` on the frames."""
        raise TypeError(f"{type(self).__name__} has no features() / fuse() split")

    @property
    def splits(self) -> bool:
        """True when the network declares the `features` / `fuse` split."""
        return type(self).features is not Network.features

    @property
    def num_parameters(self) -> int:
        """Number of learnable values."""
        return sum(p.numel() for p in self.parameters())

    def example_input(self, height: int, width: int, batch: int = 1, length: int | None = None) -> Tensor:
        """Zeros of a shape that `run` takes, on the device and in the dtype of the weights.

        Args:
            height, width: at least this size; completed to what the contract demands.
            length: number of frames for clips and streams; by default the shortest sensible one.
        """
        contract = self.contract
        size = contract.padded_size(height, width)
        like = next(self.parameters(), torch.empty(0))
        frames: tuple[int, ...] = ()
        if contract.kind == "window":
            frames = (contract.frames,)
        elif contract.kind != "image":
            wanted = length or contract.past + contract.future + 3
            frames = (-(-wanted // contract.time_multiple) * contract.time_multiple,)
        return like.new_zeros((batch, *frames, 3, *size))


def count_macs(net: Network, height: int, width: int) -> float:
    """Multiply-accumulates for one restored frame of `height` x `width` pixels, counted without computing anything.

    Counts convolutions, matrix products and attention (`torch.utils.flop_counter`), as papers do, plus what
    `contract.extra_macs_per_pixel` declares. Streams: one step. Clips: the mean over the frames of a short clip.
    """
    from torch.utils.flop_counter import FlopCounterMode

    twin = build_twin_on_meta(net)
    x = twin.example_input(height, width)
    with torch.no_grad():
        if twin.contract.kind == "stream":
            window = x[:, : sum(twin.contract.context) + 1]
            state = twin.init_state(window)
            with FlopCounterMode(display=False) as counter:
                twin.step(window, state)
            frames = 1
        else:
            with FlopCounterMode(display=False) as counter:
                restored = twin.run(x)["restored"]
            frames = restored.shape[1] if restored.ndim == 5 else 1
    pixels = x.shape[-1] * x.shape[-2]
    return counter.get_total_flops() / 2 / frames + twin.contract.extra_macs_per_pixel * pixels


def build_twin_on_meta(net: Network) -> Network:
    """The same network without memory for its weights (torch's meta device), in evaluation mode."""
    return copy.deepcopy(net).to("meta").eval()
