from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deblurkit.errors import DataError, DeblurkitError
from deblurkit.image_io import (
    check_whole,
    decode_image,
    encode_png,
    is_image,
    list_images,
    natural_key,
    read_image,
    write_image,
)


def picture(dtype: Any = np.uint8, height: int = 24, width: int = 32) -> np.ndarray:
    """A smooth picture in which red, green and blue differ."""
    y, x = np.mgrid[:height, :width]
    white = np.iinfo(dtype).max
    return (np.stack((x / width, y / height, (x + y) / (height + width)), -1) * white).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("ending", [".png", ".PNG", ".tif", ".tiff"])
def test_lossless_formats_keep_every_bit(tmp_path: Path, ending: str, dtype: Any) -> None:
    image = picture(dtype)
    write_image(tmp_path / f"a{ending}", image)
    found = read_image(tmp_path / f"a{ending}")
    assert found.dtype == dtype
    assert np.array_equal(found, image)
    assert list(tmp_path.iterdir()) == [tmp_path / f"a{ending}"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("ending", [".jpg", ".jpeg", ".webp", ".bmp"])
def test_eight_bit_formats_are_close(tmp_path: Path, ending: str, dtype: Any) -> None:
    image = picture(dtype)
    write_image(tmp_path / f"a{ending}", image)
    found = read_image(tmp_path / f"a{ending}")
    expected = image if dtype == np.uint8 else (image >> 8)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).mean() < 3


def test_pixels_are_rgb(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    write_image(tmp_path / "a.png", red)
    assert cv2.imread(str(tmp_path / "a.png"))[0, 0].tolist() == [0, 0, 255]


def test_grey_and_alpha_become_rgb(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((8, 8), 1000, np.uint16))
    assert read_image(tmp_path / "grey.png")[3, 3].tolist() == [1000, 1000, 1000]
    cv2.imwrite(str(tmp_path / "alpha.png"), np.full((8, 8, 4), (1, 2, 3, 128), np.uint8))
    assert read_image(tmp_path / "alpha.png")[3, 3].tolist() == [3, 2, 1]


def with_exif(jpeg: bytes, orientation: int, thumbnail: bytes = b"") -> bytes:
    """A JPEG with an EXIF header: how the camera was held, and perhaps a small JPEG."""
    tiff = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x112, 3, 1, orientation, 0) + thumbnail
    header = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(header) + 2) + header + jpeg[2:]


def jpeg_bytes() -> bytes:
    return cv2.imencode(".jpg", picture())[1].tobytes()


def test_exif_rotation_is_applied() -> None:
    assert decode_image(jpeg_bytes(), "a").shape == (24, 32, 3)
    assert decode_image(with_exif(jpeg_bytes(), 6), "a").shape == (32, 24, 3)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_truncated_files_are_refused(tmp_path: Path, ending: str, part: float) -> None:
    path = tmp_path / f"a{ending}"
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    write_image(path, noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(DataError, match=rf"a\{ending}: is cut off \(\d+ bytes, the end of the file is missing\)"):
        read_image(path)


def test_a_thumbnail_does_not_hide_that_the_picture_is_cut_off() -> None:
    data = with_exif(jpeg_bytes(), 1, thumbnail=jpeg_bytes())
    check_whole(data, "whole")
    with pytest.raises(DataError, match="cut off"):
        check_whole(data[:-30], "cut")


def test_what_cameras_append_to_a_jpeg_does_no_harm() -> None:
    data = jpeg_bytes() + b"a film of some seconds" * 1000
    assert decode_image(data, "a motion photo").shape == (24, 32, 3)


def test_padding_before_jpeg_markers() -> None:
    data = jpeg_bytes()
    assert decode_image(data[:2] + b"\xff\xff" + data[2:], "padded").shape == (24, 32, 3)


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"0" * 40 + b"IEND\xaeB`\x82"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"thing\.png: is not a picture that can be decoded"):
        decode_image(data, "thing.png")


def test_float_pictures_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tiff"), np.zeros((8, 8, 3), np.float32))
    with pytest.raises(DataError, match="floating point pixels of 32 bits; whole numbers of 8 or 16 bits"):
        read_image(tmp_path / "a.tiff")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: cannot be read: No such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 4), np.uint8)]
)
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_only_rgb_of_8_or_16_bits_is_written(tmp_path: Path, name: str, image: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"\(H, W, 3\) pixels of uint8 or uint16 are written"):
        write_image(tmp_path / name, image)
    assert list(tmp_path.iterdir()) == []


def test_other_endings_and_folders_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pictures are written as \.png, \.jpg"):
        write_image(tmp_path / "a.xyz", picture())
    (tmp_path / "file").write_text("")
    with pytest.raises(DeblurkitError, match="cannot be written"):
        write_image(tmp_path / "file" / "a.png", picture())


def test_png_levels_change_the_size_only() -> None:
    sizes = {level: len(encode_png(picture(height=200, width=200), level)) for level in (0, 9)}
    assert sizes[9] < sizes[0]
    assert np.array_equal(decode_image(encode_png(picture(), 0), "a"), picture())


def test_names_sort_as_people_count(tmp_path: Path) -> None:
    names = ["1.png", "01.png", "2.PNG", "10.jpg", "a2.png", "a10.png", "a²3.png"]
    for name in [*names, ".hidden.png", "notes.txt"]:
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in list_images(tmp_path)] == ["01.png", "1.png", *names[2:]]
    assert natural_key(Path("x/2.png")) == natural_key("2.png")
    assert is_image(Path("A.JPEG"))
    assert not is_image(Path("a.mp4"))


def test_a_flipped_bit_in_a_png_is_found() -> None:
    data = bytearray(encode_png(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)))
    at = data.index(b"IDAT") + 50
    data[at] ^= 0x10
    length = struct.unpack(">I", data[data.index(b"IDAT") - 4 : data.index(b"IDAT")])[0]
    start = data.index(b"IDAT")
    stored = struct.unpack(">I", data[start + 4 + length : start + 8 + length])[0]
    assert zlib.crc32(data[start : start + 4 + length]) != stored
    with pytest.raises(DataError):
        decode_image(bytes(data), "damaged.png")
