"""The base class of all networks: what trainer, evaluator and restorer call, whatever the network looks like inside."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from deblurkit.contract import FrameContract, PixelConvention
from deblurkit.registry import ARCH_REGISTRY
from deblurkit.sharing import Shared, SharedStore

State = dict[str, Tensor]

#: What a sweep reads: maps `(B, ...)` by name and place relative to the frame in turn (0 its own, 1 the next frame's).
Maps = Mapping[tuple[str, int], Tensor]


@dataclass(frozen=True)
class Sweep:
    """One walk over all frames of a clip, in which a network computes something for each; see `Network.sweeps`.

    Attributes:
        name: what `Network.sweep_step` is told. direction: "forward" goes from the first frame to the last.
        reads: the maps that a step gets: name, and the places relative to its frame. "frame" is the input.
        drops: maps that no later sweep reads.
    """

    name: str
    direction: Literal["forward", "backward"]
    reads: Mapping[str, tuple[int, ...]]
    drops: tuple[str, ...] = ()


class Network(nn.Module):
    """A restoration network.

    `forward` is the network's own (upstream's arguments, outputs and state-dict keys); no consumer calls it. Consumers
    call `run`, or `init_state` and `step`, or `run_shared` (`features` and `fuse`). The defaults here cover a `forward`
    that takes one tensor and returns one; a network overrides what is odd about it.

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

    def features(self, frame: Tensor) -> State:
        """The part of a window network's work that depends on one frame alone; only where `splits` is True.

        A network that overrides `features` and `fuse` declares that overlapping windows share work. The restorer then
        calls `run_shared` on window after window of a sequence: the features of every frame are computed once, kept
        while a window needs them (for every tile on its own) and dropped after. The result must be that of `run`, to
        rounding; `check_network` tests it.

        Args:
            frame: `(B, C, H, W)`.

        Returns:
            a flat dict of tensors, the frame itself among them where `fuse` needs it.
        """
        raise TypeError(f"{type(self).__name__} has no features() / fuse() split")

    def fuse(self, features: Sequence[State], shared: Shared) -> dict[str, Tensor]:
        """Restore from the features of a window's frames.

        Args:
            features: what `features` returned for the frame in each slot of the window.
            shared: keeps what belongs to two or more frames and comes back in other windows, by the slots that it was
                computed from (see `Shared`). An alignment to the target belongs to one window and needs none of it; the
                flow between neighbours, or a first stage that restores the inner frames, does:

                    inner = [shared("stage1", (i - 1, i, i + 1), lambda i=i: self.stage1(features, i)) for i in (1, 2)]

        Returns:
            as `run`.
        """
        raise TypeError(f"{type(self).__name__} has no features() / fuse() split")

    def run_shared(self, x: Tensor, shared: Shared | None = None) -> dict[str, Tensor]:
        """Restore a window by `features` and `fuse`; what `shared` holds already is not computed again.

        The frames go through `features` one at a time, so that the features of a frame are the same to the bit in
        whichever window it was seen first. (`forward`, which training uses, can take them as one batch.)

        Args:
            x: `(B, frames, C, H, W)`. shared: of this window; None: nothing is known yet.
        """
        shared = Shared(range(x.shape[1])) if shared is None else shared
        features = [shared("features", (i,), lambda i=i: self.features(x[:, i])) for i in range(x.shape[1])]  # type: ignore[misc]
        return self.fuse(features, shared)

    def sweeps(self) -> Generator[Sweep, State, None]:
        """The walks over a clip that together give what `run` gives, one frame at a time; for networks of kind "clip".

        A network that overrides `sweeps` and `sweep_step` declares that it can restore a clip of any length with a few
        frames' maps at hand: `engine.exact` keeps the others in memory or on disk. The walks must be exact to rounding.

        Yields:
            the next walk. What is sent back is the state after its last step, on which the next walk may depend. The
            last one is a forward walk, whose steps write "restored".
        """
        raise TypeError(f"{type(self).__name__} cannot be run frame by frame over a whole clip")

    def sweep_step(self, sweep: str, maps: Maps, state: State) -> tuple[State, State]:
        """One frame of a walk.

        Args:
            sweep: its name. maps: what it reads, each `(B, ...)`; those beyond the ends of the clip are missing.
            state: what the walk's last step returned; empty at its first.

        Returns:
            the maps that it writes for this frame (a flat dict of tensors `(B, ...)`), and the state for the next.
        """
        raise TypeError(f"{type(self).__name__} cannot be run frame by frame over a whole clip")

    @property
    def has_sweeps(self) -> bool:
        """True when the network declares `sweeps`."""
        return type(self).sweeps is not Network.sweeps

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
        return like.new_zeros((batch, *frames, contract.channels, *size))


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


def count_shared_macs(net: Network, height: int, width: int) -> float:
    """As `count_macs`, in the middle of a sequence whose windows share their work (`Network.splits`).

    `count_macs(...) / count_shared_macs(...)` is the speed-up that sharing allows.
    """
    from torch.utils.flop_counter import FlopCounterMode

    twin = build_twin_on_meta(net)
    x = twin.example_input(height, width)
    frames, store = x.shape[1], SharedStore()
    with torch.no_grad():
        twin.run_shared(x, store.window(range(frames)))
        store.forget_before(1)
        with FlopCounterMode(display=False) as counter:
            twin.run_shared(x, store.window(range(1, frames + 1)))
    pixels = x.shape[-1] * x.shape[-2]
    return counter.get_total_flops() / 2 + twin.contract.extra_macs_per_pixel * pixels


def build_twin_on_meta(net: Network) -> Network:
    """The same network without memory for its weights (torch's meta device), in evaluation mode."""
    return copy.deepcopy(net).to("meta").eval()
