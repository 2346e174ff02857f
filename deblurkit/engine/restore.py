"""The one inference path: frames in, restored frames out, for any network, in bounded memory.

`deblurkit infer`, the evaluator and the Python API use it. It knows networks by their contract alone.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from deblurkit.engine.calls import Snapshot
from deblurkit.engine.feed import Seen, checked
from deblurkit.engine.launch import resolve_device
from deblurkit.engine.memory import keep_freed_memory
from deblurkit.engine.pixels import like, to_array
from deblurkit.engine.runner import Precision, Runner, Tiling, autocast_dtype
from deblurkit.engine.sequence import EVERYTHING, Part, Passing, Walk
from deblurkit.engine.transfer import Leaving
from deblurkit.errors import DataError, DeblurkitError
from deblurkit.image_io import Pixels
from deblurkit.network import Network

if TYPE_CHECKING:
    from deblurkit.contract import TimePadding

#: A frame of the Python interface: pixels, or a tensor `(3, H, W)`, uint8, or float in [0, 1].
Frame = TypeVar("Frame", bound=Pixels | Tensor)


class Restorer:
    """Restores frames with a network.

    Args:
        net: the network; it is moved to the device and put into evaluation mode.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".
        precision: "fp32"; "bf16" or "fp16" where the network declares it safe; "auto": bf16 on a GPU that has it, for a
            network that declares it safe, else fp32. A result that is not finite is computed again in fp32.
        tile: 0: whole frames. N: tiles of N pixels a side, cut on the host, so that the device never holds a frame.
            "auto": whole frames where they fit the free memory, else the largest tiles that do. Where the contract's
            halo is a number, the result is that of whole frames; with "global" or "data" it differs a little, and
            neighbouring tiles are faded into each other.
        time_padding: how windows are completed before the first and after the last frame (`window_indices`); None: as
            the network's contract has it.
        clip_length, clip_overlap: networks of kind "clip" see at most this many frames at once; a longer video goes in
            segments, and each result has at least `clip_overlap` frames of its segment on both sides.
        shots: True: changes of shot are found (`deblurkit.engine.shots`), and windows, segments and states do not reach
            across them. A collection: the positions of the frames with which shots begin. False: the frames are one
            shot, as protocols have it.
        exact: networks of kind "clip" that can (BasicVSR and its heirs) see each shot whole, instead of in segments of
            `clip_length`; what does not fit the memory waits on the disk, and frames are not tiled
            (`deblurkit.engine.exact`). Networks of other kinds see all that they look at anyway.
        tune: try channels-last, `torch.compile` and, on a GPU, CUDA graphs on the first frame and keep what is fastest
            (`deblurkit.engine.tuning`). Takes minutes. Not for networks whose windows share their work.

    Raises:
        DeviceError: the machine does not have the device.
        DeblurkitError: the network is not safe in that precision, or has no exact form.
        ValueError: a negative tile, or an overlap that leaves nothing of a segment.
    """

    def __init__(
        self,
        net: Network,
        device: str | torch.device = "auto",
        precision: Precision = "fp32",
        tile: Tiling = 0,
        time_padding: TimePadding | None = None,
        clip_length: int = 32,
        clip_overlap: int = 6,
        shots: bool | Collection[int] = False,
        exact: bool = False,
        tune: bool = False,
    ) -> None:
        if tile != "auto" and tile < 0:
            raise ValueError(f"tile must be 0 or more, not {tile}")
        if not 0 <= 2 * clip_overlap < clip_length:
            raise ValueError(f"clip_overlap {clip_overlap} leaves nothing of segments of {clip_length} frames")
        exact = exact and net.contract.kind == "clip"
        if exact and not net.has_sweeps:
            raise DeblurkitError(
                f"exact: {type(net).__name__} has no form for long videos that equals the whole clip; leave exact out: "
                "it goes through overlapping segments then"
            )
        device = resolve_device(str(device))
        if device.type == "cpu":
            keep_freed_memory()
        self.net = net.to(device).eval()
        context, multiple = sum(net.contract.context), net.contract.time_multiple
        whole = -(-(clip_length + context) // multiple) * multiple
        self._runner = Runner(self.net, device, autocast_dtype(net, precision, device), tile, whole, tune)
        self._walk = Walk(
            self._runner, time_padding or net.contract.time_padding, whole - context, clip_overlap, shots, exact
        )

    @classmethod
    def from_weights(
        cls,
        weights: str | Path,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        tile: Tiling = "auto",
        shots: bool = True,
        **settings: Any,
    ) -> Restorer:
        """A restorer for footage, as `deblurkit infer` makes it.

        Args:
            weights: a file, or the name of weights that come with the package. Others: as the class; `settings` are its
                other arguments.

        Raises:
            CheckpointError: no such weights, or a file that does not say which network it belongs to. And as the class.
        """
        from deblurkit.engine.checkpoint import load_network
        from deblurkit.engine.weights import find_weights

        return cls(load_network(find_weights(weights)), device, precision, tile, shots=shots, **settings)

    def restore_tensors(
        self, frames: Iterable[Pixels], targets: Collection[int] | None = None, start: int = 0
    ) -> Iterator[tuple[int, Tensor]]:
        """Restore frames, each read once and kept only as long as the network looks at it.

        Args:
            frames: `(H, W, 3)` RGB, uint8 or uint16; one size, but for networks of kind "image".
            targets: positions of the frames to restore; None: all of them. Frames that no target needs are passed over.
            start: a network of kind "stream" begins with this frame; those before it are context only.

        Yields:
            position and restored frame in order, float32 `(C, h, w)` on the CPU, RGB in about [0, 1] (neither clamped
            nor quantised).

        Raises:
            DataError: frames differ in size, are no RGB pixels, or end before the last target.
            DeviceError: the device has not enough memory.
        """
        wanted = None if targets is None else sorted(set(targets))
        yield from self._on_host(frames, Part(wanted, start))

    def _on_host(self, frames: Iterable[Pixels], part: Part) -> Iterator[tuple[int, Tensor]]:
        for position, restored in self.restore_seen(self._walk.look(frames, part, send=False), part):
            tensor = restored.on_host()
            # of a segment a frame is a view, and whoever keeps it would keep them all
            yield position, tensor if tensor.untyped_storage().nbytes() <= 2 * tensor.nbytes else tensor.clone()

    @property
    def burst(self) -> int:
        """How many frames the network takes, and gives, at one time."""
        return self._walk.burst

    def look(self, frames: Iterable[Pixels], part: Part = EVERYTHING) -> Iterator[Seen]:
        """What can be done with frames in another thread, before `restore_seen`: looked at, sent to the device.

        Raises:
            DataError: frames differ in size, or are no RGB pixels.
        """
        return self._walk.look(frames, part, send=True)

    def restore_seen(self, seen: Iterable[Seen], part: Part = EVERYTHING) -> Iterator[tuple[int, Leaving]]:
        """As `restore_tensors`, with results that may still be on their way to the host."""
        return self._walk.restore(seen, part)

    def restore_part(
        self,
        frames: Iterable[Pixels],
        first: int,
        stop: int | None = None,
        begin: int = 0,
        earlier: Snapshot | None = None,
        passing: Passing = lambda position, snapshot: None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Restore a part of a video as `restore_tensors` restores the whole, in a run of its own.

        Args:
            frames: from the first of the video to `lookahead` behind the part, or to the end.
            first, stop: the part; None: to the end.
            begin: a stream goes through the frames from here on; those before do not matter, since a shot begins here.
            earlier: the snapshot of a stream after frame `begin` - 1, where no shot begins.
            passing: of a stream, called after each frame with the position of the next one and what gives the snapshot
                with which another part can begin there.

        Yields, raises:
            as `restore_tensors`; frames that end early are no error.
        """
        yield from self._on_host(frames, Part.between(first, stop, begin, earlier, passing))

    def part(
        self,
        first: int,
        stop: int | None = None,
        begin: int = 0,
        earlier: Snapshot | None = None,
        shot: int | None = None,
    ) -> Part:
        """A part for `look` and `restore_seen`, to which frames are given from `Part.starts_at` on.

        Args:
            first, stop, begin, earlier: as `restore_part`. shot: with which frame the shot of frame `first` - 1 begins;
                None: not known, or told by the shots that were given.
        """
        walk = self._walk
        if walk.shots is not True:
            shot = max((cut for cut in walk.shots or () if cut <= first), default=0)
        if self.net.contract.kind == "stream":
            origin = begin if earlier is None else walk.origin(begin, shot)
        else:
            origin = walk.origin(first, shot)
        part = Part.between(first, stop, begin, earlier)
        return replace(part, starts_at=max(origin - walk.glance, 0), origin=origin)

    @property
    def lookahead(self) -> int:
        """How many frames after a frame its result can depend on."""
        return self._walk.lookahead

    def needs_until(self, stop: int) -> int:
        """Up to which frame, exclusive, the results of the frames before `stop` can depend on them."""
        return self._walk.needs_until(stop)

    @property
    def settings(self) -> dict[str, Any]:
        """What, beside the network, results depend on; in plain values."""
        walk, dtype = self._walk, self._runner.dtype
        return {
            "precision": "fp32" if dtype is None else str(dtype).removeprefix("torch."),
            "tile": self._runner.tile,
            "time_padding": walk.time_padding,
            "clip": [walk.clip_length, walk.clip_overlap],
            "shots": walk.shots if isinstance(walk.shots, bool) else sorted(walk.shots),
            "exact": walk.exact,
        }

    def with_shots(self, shots: Collection[int]) -> Restorer:
        """The same restorer, for a video whose shots begin with these frames."""
        twin = copy.copy(self)
        twin._walk = replace(self._walk, shots=shots)
        return twin

    @property
    def tile_in_use(self) -> int:
        """Side of the tiles that frames were last cut into; 0: whole frames."""
        return self._runner.side or 0

    def begin_with_tile(self, side: int) -> None:
        """Where tiles are automatic, take these, whatever memory is free: to go on with the work of an earlier run."""
        self._runner.begin_with(side)

    def restore(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Restore frames, one for each, of the kind that came in.

        Args:
            frames: arrays `(H, W, 3)`, RGB, uint8 or uint16; or tensors `(3, H, W)`, RGB, uint8 or float in [0, 1].

        Yields:
            arrays `(H * scale, W * scale, 3)` of the same dtype; or tensors `(3, H * scale, W * scale)` on the CPU,
            uint8, or float32 in [0, 1] that is not rounded.

        Raises:
            DataError: another kind of frame. And as `restore_tensors` and `to_pixels`.
        """
        kinds: deque[tuple[bool, Any]] = deque()

        def watched() -> Iterator[Pixels]:
            for number, frame in enumerate(frames):
                kinds.append((isinstance(frame, Tensor), frame.dtype))
                yield to_array(frame, number) if isinstance(frame, Tensor) else next(checked([frame], False, number))

        for _, restored in self._on_host(watched(), EVERYTHING):
            yield like(restored, *kinds.popleft())

    def restore_image(self, image: Frame) -> Frame:
        """Restore one picture, as `restore` a frame; a video network sees it as a video that stands still."""
        return next(self.restore([image]))

    def restore_video(
        self,
        source: str | Path,
        target: str | Path,
        *,
        codec: str | None = None,
        crf: int | None = None,
        lossless: bool = False,
        advance: Callable[[int], None] = lambda count: None,
    ) -> int:
        """Restore a video file into another one, with its sound, subtitles, timing and metadata.

        Args:
            source, target: files; the target's ending decides its container. An existing target is replaced at the end.
            codec, crf, lossless: see `deblurkit.video.writer.VideoWriter`.
            advance: called with 1 for every frame that is written.

        Returns:
            number of frames.

        Raises:
            VideoError: the source is no whole video, or the target cannot be written. And as `restore_tensors`.
        """
        from deblurkit.engine.pipeline import restore_into
        from deblurkit.video.reader import VideoReader
        from deblurkit.video.writer import VideoWriter

        reader = VideoReader(source)
        if Path(target).exists() and reader.path.samefile(target):
            raise DataError(f"{target}: is the input; choose another name for the result")
        with VideoWriter(target, reader, codec=codec, crf=crf, lossless=lossless) as writer:
            return restore_into(self, reader, writer, advance)
