from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deblurkit.errors import DataError
from deblurkit.image_io import decode_image, decode_planes
from deblurkit.still import encode_still, read_still
from deblurkit.tiff import first_directory
from tests.support.pictures import DEFLATE, LZW, PACKBITS, make_tiff

RNG = np.random.default_rng(0)
GREY, RGB, WHITE_IS_ZERO = 1, 2, 0
MULTIPLIED, PLAIN = 1, 2


def numbers(channels: int, bits: int = 8) -> Any:
    return RNG.integers(0, 1 << bits, (11, 13, channels))


def colours(samples: Any, count: int) -> Any:
    return np.broadcast_to(samples[..., :count], (*samples.shape[:2], 3))


@pytest.mark.parametrize("form", [{}, {"apart": True}, {"tile": 16}, {"apart": True, "tile": 16}], ids=str)
@pytest.mark.parametrize(("compression", "predictor"), [(1, 1), (DEFLATE, 1), (DEFLATE, 2), (LZW, 2), (PACKBITS, 1)])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_transparent_pictures(order: str, bits: int, compression: int, predictor: int, form: dict[str, Any]) -> None:
    for photometric, count in ((GREY, 1), (RGB, 3)):
        samples = numbers(count + 1, bits)
        data = make_tiff(
            samples, bits, photometric, (PLAIN,), order=order, compression=compression, predictor=predictor, **form
        )
        pixels, alpha = decode_planes(data, "a.tif")
        assert pixels.dtype == np.dtype(f"u{bits // 8}")
        np.testing.assert_array_equal(pixels, colours(samples, count))
        np.testing.assert_array_equal(alpha, samples[..., -1])
        np.testing.assert_array_equal(decode_image(data, "a.tif"), pixels)


@pytest.mark.parametrize("bits", [8, 16])
def test_colours_that_lie_in_planes(bits: int) -> None:
    samples = numbers(3, bits)
    pixels, alpha = decode_planes(make_tiff(samples, bits, apart=True, compression=LZW), "a.tif")
    np.testing.assert_array_equal(pixels, samples)
    assert alpha is None


@pytest.mark.parametrize("order", ["<", ">"])
def test_files_of_more_than_4_gigabytes_have_another_form(order: str) -> None:
    samples = numbers(4)
    pixels, alpha = decode_planes(make_tiff(samples, extra=(PLAIN,), big=True, order=order), "a.tif")
    np.testing.assert_array_equal(np.dstack([pixels, alpha]), samples)


@pytest.mark.parametrize("bits", [2, 4, 10, 12, 14])
@pytest.mark.parametrize("photometric", [GREY, WHITE_IS_ZERO, RGB])
def test_other_depths_keep_white_white(bits: int, photometric: int) -> None:
    count, top = 3 if photometric == RGB else 1, (1 << bits) - 1
    samples = numbers(count, bits)
    samples[0, 0], samples[0, 1] = 0, top
    pixels = decode_image(make_tiff(samples, bits, photometric), "a.tif")
    white = np.iinfo(pixels.dtype).max
    assert white == (255 if bits < 8 else 65535)
    seen = top - samples if photometric == WHITE_IS_ZERO else samples
    np.testing.assert_array_equal(pixels, colours(np.rint(seen * (white / top)), count))


def test_white_is_zero_at_16_bits() -> None:
    samples = numbers(1, 16)
    np.testing.assert_array_equal(decode_image(make_tiff(samples, 16, WHITE_IS_ZERO), "a"), colours(65535 - samples, 1))


@pytest.mark.parametrize("bits", [8, 16])
def test_colours_that_are_multiplied_by_alpha_are_divided_again(bits: int) -> None:
    white = (1 << bits) - 1
    plain, alpha = numbers(3, bits), RNG.integers(white // 2, white + 1, (11, 13, 1))
    alpha[0, 0] = 0
    stored = np.rint(plain * (alpha / white)).astype(int)
    pixels, found = decode_planes(make_tiff(np.dstack([stored, alpha]), bits, extra=(MULTIPLIED,)), "a.tif")
    np.testing.assert_array_equal(found, alpha[..., 0])
    assert np.abs(pixels.astype(int) - plain)[found > 0].max() <= 1
    assert pixels[0, 0].tolist() == [0, 0, 0]


def test_the_only_further_channel_is_alpha_unless_said_otherwise() -> None:
    samples = numbers(4)
    _, alpha = decode_planes(make_tiff(samples), "a.tif")
    np.testing.assert_array_equal(alpha, samples[..., 3])
    samples = numbers(5)
    _, alpha = decode_planes(make_tiff(samples, extra=(0, PLAIN)), "a.tif")
    np.testing.assert_array_equal(alpha, samples[..., 4])


def test_further_channels_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(make_tiff(numbers(5), extra=(PLAIN, 0)))
    _, still = read_still(tmp_path / "a.tif")
    assert still.alpha is not None
    assert still.notes == ("has transparency or channels beside its colours that are not kept",)
    (tmp_path / "b.tif").write_bytes(make_tiff(numbers(4), photometric=5))
    pixels, still = read_still(tmp_path / "b.tif")
    assert pixels.shape == (11, 13, 3)
    assert still.notes == ("is CMYK; the result is RGB, converted without its colour profile",)


@pytest.mark.parametrize("turn", range(1, 9))
def test_rotation(turn: int) -> None:
    samples = numbers(4)
    more = {274: ("H", (turn,))}
    data = make_tiff(samples, extra=(PLAIN,), more=more)
    opaque = cv2.imdecode(np.frombuffer(make_tiff(samples[..., :3], more=more), np.uint8), cv2.IMREAD_COLOR)
    pixels, alpha = decode_planes(data, "a.tif")
    np.testing.assert_array_equal(pixels, opaque[..., ::-1])
    where = {tuple(colour): int(value) for *colour, value in samples.reshape(-1, 4)}
    assert alpha is not None
    assert [where[tuple(p)] for p in pixels.reshape(-1, 3).tolist()] == alpha.reshape(-1).tolist()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (make_tiff(numbers(3), more={339: ("H", (3, 3, 3))}), "floating point pixels of 8 bits"),
        (make_tiff(numbers(3), more={339: ("H", (2, 2, 2))}), "signed pixels of 8 bits"),
        (make_tiff(numbers(4), more={258: ("H", (8, 8, 8, 16))}), "8 bits a channel"),
        (make_tiff(numbers(4), more={258: ("H", (32, 32, 32, 32))}), "32 bits a channel"),
        (make_tiff(numbers(4), more={258: ("H", (0, 0, 0, 0))}), "0 bits a channel"),
        (make_tiff(numbers(4), more={257: ("I", (1000,))}), "parts of the picture are missing"),
        (make_tiff(numbers(4), more={256: ("I", (1000,))}), "a part at byte 8 is too short"),
        (make_tiff(numbers(4), more={256: ("I", (0,))}), "its size cannot be true"),
        (make_tiff(numbers(4), more={256: ("I", (1 << 31,))}), "its size cannot be true"),
        (make_tiff(numbers(4), more={259: ("H", (DEFLATE,))}), "is damaged"),
        (make_tiff(numbers(3), more={259: ("H", (50000,))}), r"a way that is not supported \(compression 50000\)"),
        (make_tiff(numbers(3), more={279: ("I", (99, 99, 99, 999))}), "is cut off"),
        (make_tiff(numbers(4), 16, 5), "can be decoded; if other programs show it, save it as a TIFF or PNG of RGB"),
        (make_tiff(numbers(4))[:300], "can be decoded"),
    ],
)
def test_what_cannot_be_read_gets_one_line(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        decode_planes(data, "a.tif")
    assert str(caught.value).startswith("a.tif: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("big", [False, True])
def test_damaged_bytes_give_a_picture_or_one_line(tmp_path: Path, big: bool) -> None:
    more = {271: ("B", (75, 111, 100, 97, 107)), 34665: ("I", (8,)), 34675: ("B", (1, 2, 3, 4, 5))}
    whole = make_tiff(numbers(4), extra=(PLAIN,), compression=LZW, predictor=2, big=big, more=more)
    for number in range(600):
        rng = np.random.default_rng(number)
        data = bytearray(whole)
        for at in rng.integers(len(data) * (number % 2) * 3 // 4, len(data), 3):  # the directory, half of the times
            data[at] = rng.integers(256)
        (tmp_path / "a.tif").write_bytes(data)
        assert outcome(tmp_path / "a.tif") in ("a picture", "one line")


def outcome(path: Path) -> str:
    try:
        pixels, still = read_still(path)
    except DataError as error:
        return "one line" if str(error).startswith(f"{path}: ") and "\n" not in str(error) else str(error)
    assert encode_still(path, pixels, still)
    return "a picture" if pixels.ndim == 3 else str(pixels.shape)


def test_directories_of_other_files() -> None:
    for data in (b"", b"II*\0", b"MM\0*\xff\xff\xff\xff" + bytes(9), b"II*\0\x08\0\0\0\xff\xff" + bytes(9), bytes(99)):
        assert first_directory(data) is None
    big = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) + bytes(16)
    assert first_directory(big) is not None
