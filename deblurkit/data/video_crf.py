"""What a video encoder at a constant quality (CRF) makes of frames, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from deblurkit.errors import DataError
from deblurkit.image_io import Pixels

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

#: The worst quality on libx264's scale; 0 would be lossless but for the colours.
MOST_CRF = 51


def check_crf(crf: int | None) -> None:
    """Raise DataError for a number that libx264 does not have; None (no compression) is fine."""
    if crf is not None and not 0 <= crf <= MOST_CRF:
        raise DataError(f"crf {crf}: libx264's scale goes from 0 (best) to {MOST_CRF}")


def compress(frames: Iterable[Pixels], crf: int, preset: str = "fast") -> Iterator[Pixels]:
    """Encode frames with libx264 at a constant quality, decode them again; the same result every time.

    Args:
        frames: `(H, W, 3)` RGB uint8 of one size; uint16 keeps its upper 8 bits. crf: 0 (best) to 51; phones and web
            video have 18 to 32. preset: of libx264.

    Yields:
        as many frames, `(H, W, 3)` uint8: 4:2:0 colours, odd sizes are kept. They come some frames late.

    Raises:
        DataError: `crf` is outside the scale.
    """
    import av
    from av.codec.context import ThreadType

    from deblurkit.video.color import BT709, LIMITED, ColorTags, FromRGB, ToRGB

    check_crf(crf)
    encoder: VideoCodecContext | None = None
    decoder = av.CodecContext.create("h264", "r")
    tags = ColorTags(BT709, BT709, BT709, LIMITED)
    to_yuv, to_rgb = FromRGB("yuv420p", tags), ToRGB("h264")
    height = width = 0

    def decoded(packets: list[av.Packet]) -> Iterator[Pixels]:
        for packet in packets:
            for frame in decoder.decode(packet):
                yield to_rgb(frame)[:height, :width]

    for index, pixels in enumerate(frames):
        if encoder is None:
            height, width = pixels.shape[:2]
            encoder = av.CodecContext.create("libx264", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
            encoder.framerate = 25  # type: ignore[assignment]
            encoder.options = {"preset": preset, "crf": str(crf), "x264-params": "log-level=error"}
            # with one thread each the bits are the same on every machine
            encoder.thread_count, encoder.thread_type = 1, ThreadType.NONE
            encoder.color_primaries, encoder.color_trc = tags.primaries, tags.transfer
            encoder.colorspace, encoder.color_range = tags.matrix, tags.range
        eight = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
        if (height % 2, width % 2) != (0, 0):
            eight = np.pad(eight, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = to_yuv(eight)
        frame.pts = index
        yield from decoded(encoder.encode(frame))
    if encoder is not None:
        yield from decoded(encoder.encode(None))
        yield from (to_rgb(frame)[:height, :width] for frame in decoder.decode(None))
