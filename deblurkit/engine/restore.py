"""The one inference path: frames in, restored frames out, for any network, in bounded memory.

`deblurkit infer`, the evaluator and the Python API use it. It knows networks by their contract alone.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deblurkit.data.frame_sampling import window_indices
from deblurkit.engine.launch import resolve_device
from deblurkit.engine.runner import Feed, Precision, Runner, Tiling, autocast_dtype
from deblurkit.errors import DataError, DeblurkitError
from deblurkit.image_io import Pixels
from deblurkit.network import Network, State

if TYPE_CHECKING:
    from deblurkit.data.base import TimePadding


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
        time_padding: how windows are completed before the first and after the last frame (`window_indices`).
        clip_length, clip_overlap: networks of kind "clip" see at most this many frames at once; a longer video goes in
            segments, and each result has at least `clip_overlap` frames of its segment on both sides.

    Raises:
        DeviceError: the machine does not have the device. DeblurkitError: the network is not safe in that precision.
        ValueError: a negative tile, or an overlap that leaves nothing of a segment.
    """

    def __init__(
        self,
        net: Network,
        device: str | torch.device = "auto",
        precision: Precision = "fp32",
        tile: Tiling = 0,
        time_padding: TimePadding = "reflection",
        clip_length: int = 32,
        clip_overlap: int = 6,
    ) -> None:
        if tile != "auto" and tile < 0:
            raise ValueError(f"tile must be 0 or more, not {tile}")
        if not 0 <= 2 * clip_overlap < clip_length:
            raise ValueError(f"clip_overlap {clip_overlap} leaves nothing of segments of {clip_length} frames")
        device = resolve_device(str(device))
        self.net = net.to(device).eval()
        self._time_padding, self._overlap = time_padding, clip_overlap
        context, multiple = sum(net.contract.context), net.contract.time_multiple
        whole = -(-(clip_length + context) // multiple) * multiple
        self._clip_length = whole - context
        self._runner = Runner(self.net, device, autocast_dtype(net, precision, device), tile, whole)

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
        feed = Feed(frames, one_size=self.net.contract.kind != "image")
        ways = {"image": self._windows, "window": self._windows, "clip": self._segments}
        wanted = None if targets is None else sorted(set(targets))
        if wanted != []:
            if self.net.contract.kind == "stream":
                yield from self._stream(feed, wanted, start)
            else:
                yield from ways[self.net.contract.kind](feed, wanted)
            if wanted is not None and wanted[-1] >= feed.count:
                raise DataError(f"frame {wanted[-1]} is to be restored, but there are only {feed.count}")

    def restore(self, frames: Iterable[Pixels]) -> Iterator[Pixels]:
        """Restore frames: `(H, W, 3)` RGB in, `(H * scale, W * scale, 3)` RGB of the same dtype out, one for each.

        Raises:
            as `restore_tensors` and `to_pixels`.
        """
        dtypes: deque[Any] = deque()

        def watched() -> Iterator[Pixels]:
            for frame in frames:
                dtypes.append(frame.dtype)
                yield frame

        for _, restored in self.restore_tensors(watched()):
            yield to_pixels(restored, dtypes.popleft())

    def restore_image(self, image: Pixels) -> Pixels:
        """Restore one picture `(H, W, 3)`; a video network sees it as a video that stands still."""
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

    # How each kind of network goes through time.

    def _windows(self, feed: Feed, wanted: list[int] | None) -> Iterator[tuple[int, Tensor]]:
        past, future = self.net.contract.context
        reach = past + future  # paddings mirror within the window's length
        for center in itertools.count() if wanted is None else wanted:
            feed.forget_before(center - reach)
            feed.read_to(center + reach)
            if center >= feed.count:
                return
            positions = window_indices(center, past, future, feed.count, self._time_padding)
            yield center, self._runner.restore(feed, positions, self._runner.run)

    def _stream(self, feed: Feed, wanted: list[int] | None, start: int) -> Iterator[tuple[int, Tensor]]:
        past, future = self.net.contract.context
        reach = past + future
        states: dict[int | None, State] = {}  # by tile

        def step(x: Tensor, tile: int | None) -> Tensor:
            restored, states[tile] = self._runner.step(x, states.get(tile), on_host=tile is not None)
            return restored

        for now in itertools.count(start) if wanted is None else range(start, wanted[-1] + 1):
            feed.forget_before(now - reach)
            feed.read_to(now + reach)
            if now >= feed.count:
                return
            positions = window_indices(now, past, future, feed.count, self._time_padding)
            restored = self._runner.restore(feed, positions, step)
            if wanted is None or now in wanted:
                yield now, restored

    def _segments(self, feed: Feed, wanted: list[int] | None) -> Iterator[tuple[int, Tensor]]:
        past, future = self.net.contract.context
        length, start, done = self._clip_length, 0, 0
        while True:
            feed.forget_before(start - length - past)  # the last segment moves back to be of full length
            feed.read_to(start + length + past + future)
            last = feed.count <= start + length
            if last:
                start = max(feed.count - length, 0)
            stop = min(start + length, feed.count)
            until = stop if last else stop - self._overlap
            keep = [position for position in range(done, until) if wanted is None or position in wanted]
            if keep:
                call = self._picking([position - start for position in keep])
                restored = self._runner.restore(feed, self._segment(start, stop, feed.count), call)
                yield from zip(keep, restored, strict=True)
            if last or (wanted is not None and until > wanted[-1]):
                return
            start, done = until - self._overlap, until

    def _segment(self, start: int, stop: int, count: int) -> list[int]:
        """Positions that a clip network sees in order to restore `start` to `stop` - 1."""
        past, future = self.net.contract.context
        before = window_indices(start, past, 0, count, self._time_padding)[:-1]
        after = window_indices(stop - 1, 0, future, count, self._time_padding)[1:]
        positions = [*before, *range(start, stop), *after]
        return positions + positions[-1:] * (-len(positions) % self.net.contract.time_multiple)

    def _picking(self, rows: list[int]) -> Callable[[Tensor, int | None], Tensor]:
        """A call of the network that returns some of the frames of a clip."""
        return lambda x, tile: self._runner.run(x, tile)[rows]


def to_pixels(restored: Tensor, dtype: Any) -> Pixels:
    """Quantise a restored frame: clamp to [0, 1], times 255 (65535), round half to even.

    Args:
        restored: float `(C, h, w)`. dtype: uint8 or uint16.

    Returns:
        `(h, w, C)` pixels.

    Raises:
        DeblurkitError: the frame holds values that are not finite.
    """
    dtype = np.dtype(dtype)
    if dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels are uint8 or uint16, not {dtype}")
    if not bool(restored.isfinite().all()):
        raise DeblurkitError("the network returns values that are not numbers; its weights are damaged or diverged")
    scaled = (restored.float().clamp(0, 1) * np.iinfo(dtype).max).round()
    whole = scaled.to(torch.uint8 if dtype == np.uint8 else torch.int32)
    return whole.permute(1, 2, 0).contiguous().cpu().numpy().astype(dtype, copy=False)
