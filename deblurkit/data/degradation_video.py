"""Degrading a clip by a video encoder: what a fixed, low bit rate leaves of it."""

from __future__ import annotations

import io

import av
import numpy as np

from deblurkit.data.degradation_base import Choice, Clip, Degradation, Range, Size, checked_range
from deblurkit.data.degradation_ops import Frame, as_pixels
from deblurkit.errors import OptionsError
from deblurkit.image_io import Pixels, cv2

CODECS = ("libx264", "h264", "mpeg4")
#: Settings by encoder. With its macroblock tree and AVX-512, x264 (build 165) gives other bits for the same small
#: frames (100x60) from one time to the next, as if it read memory that was never set; without either it does not.
_SETTINGS = {"libx264": {"mbtree": "0"}}


class RandomVideoCompression(Degradation):
    """The whole clip through an encoder at one frame a second, in memory, as RealBasicVSR does it.

    Frames are rounded and saturated to 8 bits first (upstream lets values beyond them wrap around). All of them get the
    size of the first one. An odd size is completed for the encoder by repeating the last row or column.

    Args:
        codec: encoders out of libx264, h264 (the one that PyAV takes for it), mpeg4. codec_prob: how probable each is.
        bitrate: range in bits per second, which are bits per frame. prob: how probable it is that a clip is compressed.

    Raises:
        OptionsError: also when this build of PyAV lacks one of the encoders.
    """

    def __init__(self, codec: list[str], codec_prob: list[float], bitrate: Range, prob: float = 1.0) -> None:
        super().__init__(prob)
        self._codecs = Choice("codec", codec, "codec_prob", codec_prob, CODECS)
        for name in codec:
            check_encoder(name)
        self._bitrate = checked_range("bitrate", bitrate, 1)

    def degrade(self, clip: Clip, rng: np.random.Generator, lq_size: Size | None) -> Clip:
        """See `Degradation`."""
        codec = self._codecs.draw(rng)
        low, high = self._bitrate
        rate = int(rng.integers(int(low), int(high) + 1))
        height, width = clip[0].shape[:2]
        decoded = through_encoder([_prepared(frame, (height, width)) for frame in clip], codec, rate)
        return [frame[:height, :width].astype(np.float32) for frame in decoded]


def check_encoder(name: str) -> None:
    """Refuse an encoder that is not there.

    Raises:
        OptionsError: this build of PyAV lacks it.
    """
    try:
        av.Codec(name, "w")
    except ValueError:
        raise OptionsError(
            f"codec: this build of PyAV (av {av.__version__}) has no encoder {name!r}; take the wheel from PyPI, or "
            "leave it out"
        ) from None


def through_encoder(frames: list[Pixels], codec: str, bitrate: int) -> list[Pixels]:
    """Encode frames to an MP4 in memory, 4:2:0 at one frame a second, and decode them again.

    The same frames give the same result: one thread on either side, since what an encoder does within its bit rate
    depends on their number, and `_SETTINGS`.

    Args:
        frames: uint8 `(h, w, 3)` RGB of one size with even sides. codec: PyAV's name. bitrate: bits per second.

    Returns:
        as many frames of the same size.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=1, options=_SETTINGS.get(av.Codec(codec, "w").name, {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", bitrate
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer, "r", format="mp4") as container:
        container.streams.video[0].codec_context.thread_count = 1
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if len(decoded) != len(frames):
        raise RuntimeError(f"{codec} gave {len(decoded)} frames back of {len(frames)}")
    return decoded


def _prepared(frame: Frame, size: Size) -> Pixels:
    """A frame as pixels of a given size, with even sides: in 4:2:0 two pixels share a colour."""
    height, width = size
    if frame.shape[:2] != size:
        module = cv2()
        frame = module.resize(frame, (width, height), interpolation=module.INTER_LINEAR)
    pixels = as_pixels(frame)
    odd = height % 2, width % 2
    return np.pad(pixels, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge") if any(odd) else pixels
