"""Files with random damage through `infer`: a result, or one line that says what is wrong; never anything else."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deblurkit.engine.infer import infer
from deblurkit.engine.restore import Restorer
from deblurkit.errors import DeblurkitError
from tests.support.networks import CopyImage
from tests.support.videos import RATE, pictures, write_video


def picture(path: Path) -> None:
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (20, 30, 4), np.uint8))


def gif(path: Path) -> None:
    write_video(path, pictures(5), codec="gif", pixel_format="rgb8", time_base=Fraction(1, RATE))


KINDS: dict[str, Callable[[Path], Any]] = {
    ".mp4": lambda path: write_video(path, pictures(8), audio="aac"),
    ".mkv": lambda path: write_video(path, pictures(8), audio="flac", subtitles=[(0, "text")]),
    ".webm": lambda path: write_video(path, pictures(4), codec="libvpx", audio="libopus"),
    ".avi": lambda path: write_video(path, pictures(8), codec="mjpeg", pixel_format="yuvj420p", audio="mp2"),
    ".ts": lambda path: write_video(path, pictures(8), audio="aac"),
    ".gif": gif,
    ".png": picture,
    ".jpg": picture,
    ".tif": picture,
    ".webp": picture,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    for suffix, make in KINDS.items():
        make(folder / f"a{suffix}")
    return {suffix: (folder / f"a{suffix}").read_bytes() for suffix in KINDS}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, taken out and put in, more of them near the beginning, where the headers are; perhaps cut off."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 10, 60])):
        at = rng.randrange(len(found) if rng.random() < 0.6 else min(len(found), 400))
        how = rng.random()
        if how < 0.6:
            found[at] = rng.randrange(256)
        elif how < 0.8:
            del found[at : at + rng.randrange(1, 200)]
        else:
            found[at:at] = rng.randbytes(rng.randrange(1, 50))
        found = found or bytearray(b"x")
    return bytes(found[: rng.randrange(1, len(found) + 1)] if rng.random() < 0.2 else found)


def check(tmp_path: Path, whole: dict[str, bytes], seed: int) -> None:
    rng = random.Random(seed)
    suffix = rng.choice(sorted(whole))
    content = damaged(whole[suffix], rng)
    source = tmp_path / f"in{suffix}"
    source.write_bytes(content)
    results: list[Path] = []
    message = ""
    try:
        results = infer(Restorer(CopyImage(), device="cpu"), [str(source)])
    except DeblurkitError as error:
        message = str(error)
    assert bool(results) != bool(message)
    assert "\n" not in message
    assert source.read_bytes() == content
    assert sorted(tmp_path.iterdir()) == sorted([source, *results])


@pytest.mark.parametrize("seed", range(30))
def test_damage(tmp_path: Path, whole: dict[str, bytes], seed: int) -> None:
    check(tmp_path, whole, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30, 1000))
def test_much_damage(tmp_path: Path, whole: dict[str, bytes], seed: int) -> None:
    check(tmp_path, whole, seed)
