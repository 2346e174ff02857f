"""Small videos for tests, written with PyAV alone."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

RATE = 25

#: A few pictures are cheap to hold: frames of tests are this size if nothing else is said.
SIZE = (32, 48)


def pictures(count: int, size: tuple[int, int] = SIZE, dtype: Any = np.uint8, seed: int = 0) -> list[NDArray[Any]]:
    """Smooth coloured pictures `(H, W, 3)` that differ from one another."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 6, 3)
    waves = [
        np.stack([0.5 + 0.3 * np.sin(x / 7 + y / 11 + t / 3 + p) for p in phase], -1) + 0.1 * np.cos(t + np.arange(3))
        for t in range(count)
    ]
    return [np.rint(np.clip(wave, 0, 1) * np.iinfo(dtype).max).astype(dtype) for wave in waves]


def write_video(
    path: Path,
    frames: Sequence[NDArray[Any]],
    *,
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 12800),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    audio: str | None = None,
    subtitles: Sequence[tuple[int, str]] = (),
    metadata: dict[str, str] | None = None,
    tags: dict[str, int] | None = None,
    chapters: Sequence[tuple[int, int, str]] = (),
    options: dict[str, str] | None = None,
    more_audio: Sequence[str] = (),
    language: Sequence[str] = (),
) -> Path:
    """Write pictures at `times` (in `time_base`; by default 25 a second), with a tone of the same length.

    Args:
        audio: name of an audio codec. subtitles: (milliseconds, text), for Matroska. tags: attributes of the encoder.
        chapters: (start, end in milliseconds, title). more_audio: further audio codecs. language: of the audio tracks.
    """
    step = round(1 / (RATE * time_base))
    times = list(times) if times is not None else [i * step for i in range(len(frames))]
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as out:
        out.metadata.update(metadata or {})
        video = out.add_stream(codec, rate=RATE, options=options or ({"preset": "ultrafast"} if "x26" in codec else {}))
        video.width, video.height, video.pix_fmt = width, height, pixel_format
        video.time_base = video.codec_context.time_base = time_base
        for name, value in (tags or {}).items():
            setattr(video.codec_context, name, value)
        sounds = [out.add_stream(name, rate=48000) for name in ([audio] if audio else []) + list(more_audio)]
        for sound, spoken in zip(sounds, language, strict=False):
            sound.metadata["language"] = spoken
        text = out.add_mux_stream("subrip") if subtitles else None
        if chapters:
            out.set_chapters(
                [
                    {"id": i, "start": a, "end": b, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
                    for i, (a, b, title) in enumerate(chapters)
                ]
            )
        kind = "rgb48le" if frames[0].dtype == np.uint16 else "rgb24"
        for picture, pts in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format=kind)
            frame.pts, frame.time_base = pts, time_base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for track, sound in enumerate(sounds):
            seconds = (times[-1] + step) * time_base
            samples = np.sin(np.arange(int(seconds * 48000)) / (20 + 3 * track)) * 8000
            resampler = av.AudioResampler(sound.codec_context.format, sound.codec_context.layout, 48000)
            frame = av.AudioFrame.from_ndarray(samples.astype(np.int16)[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
            for part in resampler.resample(frame):
                out.mux(sound.encode(part))
            out.mux(sound.encode(None))
        for start, line in subtitles:
            packet = av.Packet(line.encode())
            packet.stream, packet.pts, packet.dts, packet.duration = text, start, start, 400
            packet.time_base = Fraction(1, 1000)
            out.mux(packet)
    return path


def rotate(path: Path, degrees: int) -> Path:
    """Write a rotation by a quarter turn into the video track of an MP4, clockwise, as phones do."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    one = 1 << 16
    struct.pack_into(">9i", data, at, cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def decoded(path: Path) -> list[av.VideoFrame]:
    """All frames, by plain PyAV."""
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def seconds(path: Path) -> list[float]:
    """When the frames are shown."""
    return [float(frame.pts * frame.time_base) for frame in decoded(path)]


def copied_packets(path: Path) -> list[list[tuple[float, str]]]:
    """For every audio and subtitle stream its packets: time in seconds and a hash of the content."""
    with av.open(str(path)) as container:
        found: dict[int, list[tuple[float, str]]] = {
            stream.index: [] for stream in container.streams if stream.type in ("audio", "subtitle")
        }
        for packet in container.demux():
            if packet.stream_index in found and packet.size:
                time = round(float((packet.pts or 0) * packet.time_base), 3)
                found[packet.stream_index].append((time, hashlib.sha256(bytes(packet)).hexdigest()))
    return list(found.values())
