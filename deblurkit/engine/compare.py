"""Input and result beside each other: in one picture, or on a page with a slider."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from deblurkit.engine.pipeline import Sink, StampedSource
from deblurkit.files import write_text
from deblurkit.image_io import Pixels, cv2, encode_image
from deblurkit.still import Still, fitted_alpha
from deblurkit.video.reader import Timing

#: What the pictures of a page may take together.
_PAGE_BYTES = 32 << 20

#: Pairs of frames on the page of a video: so many stay after every second one was dropped, up to twice as many before.
_PAIRS = 12


class Watched:
    """A source whose frames go to the sink too, beside their stamps.

    Args:
        source: the frames.
    """

    def __init__(self, source: StampedSource) -> None:
        self._source = source

    def stamped(self) -> Iterator[tuple[Pixels, tuple[Pixels, Any]]]:
        """The frames in order, each with itself and its stamp."""
        for pixels, stamp in self._source.stamped():
            yield pixels, (pixels, stamp)


@dataclass
class Comparing:
    """A sink for the frames of a `Watched` source.

    Attributes:
        sink: where the results go. side_by_side: input and result go there as one frame. page: collects pairs.
    """

    sink: Sink
    side_by_side: bool = False
    page: SliderPage | None = None

    def write(self, pixels: Pixels, stamp: tuple[Pixels, Any]) -> None:
        """Append a result, with its input and the stamp of that."""
        before, own = stamp
        if self.page is not None:
            self.page.add(before, pixels, own)
        if self.side_by_side:
            own = _joined_stamp(own, pixels)
            pixels = side_by_side(before, pixels)
        self.sink.write(pixels, own)


def side_by_side(before: Pixels, after: Pixels) -> Pixels:
    """Input, a white line and result, `(H, 2 * W + line, 3)`; a smaller input is enlarged to the size of the result."""
    before = _enlarged(before, after)
    line = np.full((after.shape[0], _line(after), 3), np.iinfo(after.dtype).max, after.dtype)
    return np.hstack([before, line, after])


def _line(pixels: Pixels) -> int:
    """Width of the line between the halves; even, so that chroma samples lie as they did."""
    return max(round(pixels.shape[1] / 400), 1) * 2


def _joined_stamp(stamp: Any, after: Pixels) -> Any:
    alpha = fitted_alpha(stamp.alpha, after)
    if alpha is None:
        return stamp
    line = np.full((after.shape[0], _line(after)), np.iinfo(alpha.dtype).max, alpha.dtype)
    return replace(stamp, alpha=np.hstack([alpha, line, alpha]))


def _enlarged(before: Pixels, after: Pixels) -> Pixels:
    if before.shape == after.shape:
        return before
    height, width = after.shape[:2]
    return np.asarray(cv2().resize(before, (width, height), interpolation=cv2().INTER_CUBIC))


class SliderPage:
    """A page that shows input and result one over the other, with a line between them that can be moved.

    It is one file that needs nothing else, no network, no other file. Of a picture it holds all pixels; of a video
    some frames from beginning to end, a bounded number however long the video is.

    Args:
        title: above the pictures.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._pairs: list[tuple[str, bytes, bytes]] = []
        self._every, self._count = 1, 0

    def add(self, before: Pixels, after: Pixels, stamp: Still | Timing) -> None:
        """Take a pair of frames into account; both `(H, W, 3)`, not of one size where the network enlarges."""
        number, self._count = self._count, self._count + 1
        if number % self._every:
            return
        name = stamp.name if isinstance(stamp, Still) else f"frame {number}"
        first = number == 0 and isinstance(stamp, Still)  # perhaps the only one: without loss where that is not too big
        shown = [_encoded(_eight_bits(pixels), first) for pixels in (_enlarged(before, after), after)]
        self._pairs.append((name, shown[0], shown[1]))
        while len(self._pairs) >= 2 * _PAIRS or (len(self._pairs) > 1 and self._size() > _PAGE_BYTES):
            del self._pairs[1::2]
            self._every *= 2

    def _size(self) -> int:
        return sum(len(before) + len(after) for _, before, after in self._pairs)

    def write(self, target: Path) -> None:
        """Write the page; the file appears whole.

        Raises:
            DeblurkitError: it cannot be written.
        """
        frames = [{"name": name, "before": _uri(before), "after": _uri(after)} for name, before, after in self._pairs]
        page = resources.files("deblurkit.engine").joinpath("slider.html").read_text(encoding="utf-8")
        data = json.dumps(frames).replace("</", "<\\/")  # a name must not end the script
        write_text(target, page.replace("{{title}}", html.escape(self._title)).replace("{{frames}}", data))


def _eight_bits(pixels: Pixels) -> Pixels:
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def _encoded(pixels: Pixels, lossless: bool) -> bytes:
    if lossless:
        data = encode_image(pixels, ".png")
        if len(data) <= _PAGE_BYTES // 2:
            return data
    return encode_image(pixels, ".jpg")


def _uri(data: bytes) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
