"""Frames between frames, by classical optical flow: more sub-frames for an exposure than a video has frames.

Averages of too few frames show ghosts, a series of sharp copies. The flow is DIS (Kroeger et al., ECCV 2016) in both
directions; a frame between two is put together of both, moved by their share of the way, as Super SloMo does it (Jiang
et al., CVPR 2018, equation 4), where each side counts as far as it can be seen: what the flow there and back does not
bring back to its place is hidden on the other side. It is no learned interpolator: where things move by many pixels,
are thin or turn, contours tear; the true frames stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from deblurkit.errors import DataError
from deblurkit.image_io import Pixels, cv2
from deblurkit.video.source import FrameSource

_Flow = NDArray[np.float32]

#: Most frames that can be made of one.
MOST_TIMES = 64


def check_times(times: int) -> None:
    """Raise DataError for a number of times that frames cannot be made as many."""
    if not 1 <= times <= MOST_TIMES:
        raise DataError(f"interpolation by {times}: frames are made {MOST_TIMES} times as many at most, 1: none")


class InterpolatedSource:
    """A source with `times - 1` frames put between any two, evenly in time: n frames become `(n - 1) * times + 1`.

    Args:
        source: frames `(H, W, 3)` RGB, uint8 or uint16, of one size. times: 1 changes nothing.

    Raises:
        DataError: `times` is out of range.
    """

    def __init__(self, source: FrameSource, times: int) -> None:
        check_times(times)
        self.name = source.name
        self._source, self._times = source, times

    @property
    def length(self) -> int | None:
        """Number of frames, where the source knows it."""
        length = self._source.length
        return length and (length - 1) * self._times + 1

    def __iter__(self) -> Iterator[Pixels]:
        """The source's frames with those between them."""
        last: Pixels | None = None
        for index, frame in enumerate(self._source):
            if last is not None and self._times > 1:
                if frame.shape != last.shape or frame.dtype != last.dtype:
                    raise DataError(f"{self.name}: frame {index} has another size or bit depth than the one before it")
                yield from _between(last, frame, [i / self._times for i in range(1, self._times)])
            yield frame
            last = frame


def _between(first: Pixels, second: Pixels, shares: list[float]) -> Iterator[Pixels]:
    """The frames at some shares (0 to 1) of the time between two."""
    forward, backward = _flow(first, second), _flow(second, first)
    seen_second = _seen(forward, backward)  # of the first frame's pixels: how well they can be found in the second
    seen_first = _seen(backward, forward)
    for t in shares:
        # flow from the moment in between to the two frames, from the flow at the same pixels
        to_first = -(1 - t) * t * forward + t * t * backward
        to_second = (1 - t) * (1 - t) * forward - t * (1 - t) * backward
        # a pixel that the first frame shows and the second does not is taken from the first alone
        weight_first = (1 - t) * _moved(seen_first, to_second)
        weight_second = t * _moved(seen_second, to_first)
        total = weight_first + weight_second
        share = (weight_first / total)[..., None]
        mixed = share * _moved(first, to_first) + (1 - share) * _moved(second, to_second)
        yield np.clip(np.rint(mixed), 0, np.iinfo(first.dtype).max).astype(first.dtype)


def _flow(first: Pixels, second: Pixels) -> _Flow:
    """Where each pixel of the first frame is in the second, relative to its place: `(H, W, 2)` (x, y)."""
    module = cv2()
    finder = module.DISOpticalFlow_create(module.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [module.cvtColor(_eight_bits(frame), module.COLOR_RGB2GRAY) for frame in (first, second)]
    # its coarsest scale needs some pixels: of tiny frames a mirrored border is looked at too
    height, width = grey[0].shape
    pad = [max(0, -(-(64 - side) // 2)) for side in (height, width)]
    if any(pad):
        sides = (pad[0], pad[0], pad[1], pad[1])
        grey = [module.copyMakeBorder(picture, *sides, module.BORDER_REPLICATE) for picture in grey]
    flow = finder.calc(grey[0], grey[1], None)
    return np.ascontiguousarray(flow[pad[0] : pad[0] + height, pad[1] : pad[1] + width])


def _seen(there: _Flow, back: _Flow) -> NDArray[np.float32]:
    """How far each pixel is seen on the other side, from near 0 to 1: those are whom the way back leads home."""
    missed = there + _moved(back, there)
    error = (missed**2).sum(-1)
    # Sundaram et al., ECCV 2010: larger motion may miss by more
    allowed = 0.01 * ((there**2).sum(-1) + (back**2).sum(-1)) + 0.5
    return np.exp(-error / allowed).astype(np.float32) + np.float32(1e-3)


def _moved(values: NDArray, flow: _Flow) -> NDArray[np.float32]:
    """Values at the places that a flow points to, as float32; beyond the borders those of the border."""
    module = cv2()
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.asarray(
        module.remap(
            values.astype(np.float32, copy=False),
            x + flow[..., 0],
            y + flow[..., 1],
            module.INTER_LINEAR if values.ndim == 2 or values.shape[2] == 2 else module.INTER_CUBIC,
            borderMode=module.BORDER_REPLICATE,
        )
    )


def _eight_bits(frame: Pixels) -> Pixels:
    return frame if frame.dtype == np.uint8 else (frame >> 8).astype(np.uint8)
