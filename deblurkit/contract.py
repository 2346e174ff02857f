"""What a network says of itself, so that trainer, evaluator and restorer need not know which network it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["image", "window", "clip", "stream"]
Padding = Literal["reflect", "replicate", "zeros"]

#: How windows are completed before the first and after the last frame (`deblurkit.data.frame_sampling.window_indices`).
TimePadding = Literal["replicate", "reflection", "reflection_circle", "circle"]


@dataclass(frozen=True)
class Output:
    """One entry of the dict that `Network.run` returns.

    Attributes:
        name: its key; "restored" is the result, the others are for losses (coarser scales, earlier stages).
        frames: "target": one frame per sample, `(B, C, h, w)`; "clip": one frame for every input frame that is not
            mere context (`FrameContract.past`, `future`), `(B, T, C, h, w)`.
        scale: its height and width relative to the input's (0.5: half the size).
        context: of "clip": input frames at the two ends that it has no result for; None: the contract's past, future.
    """

    name: str
    frames: Literal["target", "clip"] = "target"
    scale: float = 1.0
    context: tuple[int, int] | None = None


@dataclass(frozen=True)
class Capabilities:
    """What a network can be asked for beyond plain fp32. `check_network` tests what is declared here.

    Attributes:
        bf16, fp16: inference in that precision stays finite and close to fp32.
        channels_last: works in that memory format. compile: `torch.compile` without graph breaks.
        export: ONNX / torch.export. batch: batches larger than one give what single samples give.
        deterministic: the same input gives the same bits twice.
    """

    bf16: bool = True
    fp16: bool = False
    channels_last: bool = True
    compile: bool = True
    export: bool = True
    batch: bool = True
    deterministic: bool = True


@dataclass(frozen=True, kw_only=True)
class FrameContract:
    """The frames and sizes that one network instance takes and gives.

    It is an instance, set in the network's `__init__`, because it depends on the arguments.

    Attributes:
        kind: "image" `(B,C,H,W)`; "window" `(B,frames,C,H,W)` to one restored frame; "clip" `(B,T,C,H,W)` with any T to
            all frames at once; "stream" frame by frame with a carried state.
        frames, target: length of a window and the index of the frame that it restores.
        past, future: how many frames before and after the current one a stream (or clip) needs to see; those at
            the two ends of its input are context only and have no result.
        reach: number of frames, the restored one included, that influence an output; "clip" for all of them.
        time_multiple: T must be a multiple of this. multiple: H and W must be multiples of these (an int means both).
        min_size: smallest H and W. square: H must equal W.
        pad: how a consumer completes the size to `multiple` and `min_size` (right and bottom).
        time_padding: how windows are completed at the two ends of a video, where nobody says otherwise; networks that
            were published with a rule of their own declare it.
        scale: size of "restored" relative to the input (4 for x4 super-resolution).
        channels: of the input: 3 for RGB, 1 for grey, 6 for the two views of a dual-pixel sensor.
        outputs: what `run` returns.
        halo: pixels of context that make a tile exact; "global" when the network pools over the image; "data" when the
            reach depends on the content (flow, deformable convolution) or grows with every frame (recurrent
            networks): such tiles are blended.
        capabilities: see `Capabilities`.
        extra_macs_per_pixel: multiply-accumulates per input pixel that a counter of torch operators cannot see.
        licence: licence of the weights that upstream published, "" if there are none.

    Raises:
        ValueError: the values contradict each other.
    """

    kind: Kind
    frames: int = 1
    target: int = 0
    past: int = 0
    future: int = 0
    reach: int | Literal["clip"] | None = None
    time_multiple: int = 1
    multiple: int | tuple[int, int] = 1
    min_size: int = 1
    square: bool = False
    pad: Padding = "reflect"
    time_padding: TimePadding = "reflection"
    scale: int = 1
    channels: int = 3
    outputs: tuple[Output, ...] = ()
    halo: int | Literal["global", "data"] = "global"
    capabilities: Capabilities = field(default_factory=Capabilities)
    extra_macs_per_pixel: float = 0.0
    licence: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("image", "window", "clip", "stream"):
            raise ValueError(f"FrameContract.kind: {self.kind!r} is none of image, window, clip, stream")
        if isinstance(self.multiple, int):
            object.__setattr__(self, "multiple", (self.multiple, self.multiple))
        if not self.outputs:
            frames: Literal["target", "clip"] = "clip" if self.kind in ("clip", "stream") else "target"
            object.__setattr__(self, "outputs", (Output("restored", frames, float(self.scale)),))
        if self.reach is None:
            single = {"image": 1, "window": self.frames}
            object.__setattr__(self, "reach", single.get(self.kind, "clip"))
        names = [output.name for output in self.outputs]
        if "restored" not in names or len(set(names)) != len(names):
            raise ValueError(f"FrameContract.outputs: names must differ and one must be 'restored', not {names}")
        if self.restored.scale != self.scale:
            raise ValueError(f"FrameContract: scale {self.scale} but 'restored' has scale {self.restored.scale}")
        if self.kind != "window" and (self.frames, self.target) != (1, 0):
            raise ValueError("FrameContract: frames and target are for kind 'window'")
        if not 0 <= self.target < self.frames:
            raise ValueError(f"FrameContract.target: {self.target} is not in a window of {self.frames} frames")
        if self.kind in ("image", "window") and (self.past or self.future):
            raise ValueError("FrameContract: past and future are for kinds 'clip' and 'stream'")
        least = min(self.time_multiple, *self.sizes, self.min_size, self.scale, self.channels)
        if min(self.past, self.future) < 0 or least < 1:
            raise ValueError("FrameContract: past and future start at 0; multiples, min_size, scale and channels at 1")
        if self.pad not in ("reflect", "replicate", "zeros"):
            raise ValueError(f"FrameContract.pad: {self.pad!r} is none of reflect, replicate, zeros")
        if self.time_padding not in get_args(TimePadding):
            known = ", ".join(get_args(TimePadding))
            raise ValueError(f"FrameContract.time_padding: {self.time_padding!r} is none of {known}")
        if self.halo not in ("global", "data") and not (isinstance(self.halo, int) and self.halo >= 0):
            raise ValueError(f"FrameContract.halo: {self.halo!r} is neither a number of pixels nor global or data")

    @property
    def sizes(self) -> tuple[int, int]:
        """The multiples of (H, W)."""
        assert isinstance(self.multiple, tuple)
        return self.multiple

    @property
    def restored(self) -> Output:
        """The output that is the result."""
        return next(output for output in self.outputs if output.name == "restored")

    @property
    def context(self) -> tuple[int, int]:
        """How many frames before and after a frame its restoration looks at, as far as that is fixed."""
        if self.kind == "window":
            return self.target, self.frames - 1 - self.target
        return self.past, self.future

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """The smallest size of at least (height, width) that the network takes."""
        sizes = [max(size, self.min_size) for size in (height, width)]
        if self.square:
            sizes = [max(sizes)] * 2
        rows, columns = (-(-size // unit) * unit for size, unit in zip(sizes, self.sizes, strict=True))
        if self.square and rows != columns:
            raise ValueError("FrameContract: square networks need the same multiple for H and W")
        return rows, columns


@dataclass(frozen=True)
class PixelConvention:
    """How the pixels that a network's weights were trained on differ from RGB in [0, 1] (`io` in a checkpoint).

    The network sees `(x * range - mean) / std` with the channels in `order`.

    Attributes:
        order: "rgb" or "bgr". range: the value of white (1 or 255).
        mean, std: per channel, in the units of `range` and in the network's own order.
    """

    order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    range: float = 1.0

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any] | None) -> PixelConvention:
        """Read the `io` entry of a checkpoint; None gives the default. Raises ValueError for unknown or odd values."""
        values = dict(mapping or {})
        unknown = set(values) - {"order", "mean", "std", "range"}
        if unknown or values.get("order", "rgb") not in ("rgb", "bgr"):
            raise ValueError(f"io: {values} is not understood")
        try:
            values.update({key: tuple(float(v) for v in values[key]) for key in ("mean", "std") if key in values})
            values.update({"range": float(values["range"])} if "range" in values else {})
        except TypeError:
            raise ValueError(f"io: {values} is not understood") from None
        if 0 in (values.get("range"), *values.get("std", ())):
            raise ValueError(f"io: {values}: range and std must not be 0")
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """The `io` entry of a checkpoint."""
        return {key: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
                for key, value in asdict(self).items()}  # fmt: skip

    @property
    def is_default(self) -> bool:
        """True when the network sees RGB in [0, 1] as it is."""
        return self == PixelConvention()

    def encode(self, x: Tensor) -> Tensor:
        """RGB in [0, 1], `(..., 3, H, W)`, to what the network was trained on."""
        if self.is_default:
            return x
        x = x.flip(-3) if self.order == "bgr" else x
        mean, std = self._constants(x)
        return (x * self.range - mean) / std

    def decode(self, x: Tensor) -> Tensor:
        """What the network returned, `(..., 3, H, W)`, to RGB in [0, 1]."""
        if self.is_default:
            return x
        mean, std = self._constants(x)
        x = (x * std + mean) / self.range
        return x.flip(-3) if self.order == "bgr" else x

    def _constants(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.new_tensor(self.mean).view(-1, 1, 1), x.new_tensor(self.std).view(-1, 1, 1)
