from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deblurkit.data.picture_size import jpeg_size, picture_size
from deblurkit.errors import DataError
from deblurkit.image_io import cv2, read_image, write_image
from deblurkit.picture_tags import png_chunk

#: An EXIF block that asks to turn the picture by 90 degrees.
TURNED = bytes.fromhex("ffe1 0022 457869660000 4d4d002a00000008 0001 0112 0003 00000001 0006 0000 00000000")


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_sizes_are_those_of_the_decoded_picture(tmp_path, ending):
    path = tmp_path / f"picture{ending}"
    write_image(path, np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8))
    assert picture_size(path) == read_image(path).shape[:2] == (24, 40)
    if ending == ".jpg":
        data = path.read_bytes()
        assert jpeg_size(data) == (24, 40)
        # fill bytes and a comment before the header
        assert jpeg_size(data[:2] + b"\xff\xff\xfe\x00\x04ab" + data[2:]) == (24, 40)
        assert jpeg_size(data[:30]) is None


def test_progressive_and_grey_jpeg(tmp_path):
    grey = np.random.default_rng(0).integers(0, 255, (17, 33), np.uint8)
    for name, options in (("grey", []), ("progressive", [cv2().IMWRITE_JPEG_PROGRESSIVE, 1])):
        path = tmp_path / f"{name}.jpg"
        cv2().imwrite(str(path), grey, options)
        assert jpeg_size(path.read_bytes()) == picture_size(path) == (17, 33)


def test_a_turned_picture_has_the_size_that_is_seen(tmp_path):
    path = tmp_path / "picture.jpg"
    write_image(path, np.zeros((24, 40, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:2] + TURNED + path.read_bytes()[2:])
    assert jpeg_size(path.read_bytes()) == (24, 40)  # as it lies in the file
    assert read_image(path).shape == (40, 24, 3)
    assert picture_size(path) == (40, 24)


@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind the pixels"])
@pytest.mark.parametrize("number", [1, 3, 6, 8])
def test_a_turned_png_has_the_size_that_is_seen(tmp_path: Path, number: int, behind: bool) -> None:
    path = tmp_path / "picture.png"
    write_image(path, np.zeros((24, 40, 3), np.uint8))
    data = path.read_bytes()
    at = data.index(b"IEND" if behind else b"IDAT") - 4  # the length stands before the type
    exif = TURNED[10:].replace(b"\x00\x06\x00\x00", bytes((0, number, 0, 0)))
    path.write_bytes(data[:at] + png_chunk(b"eXIf", exif) + data[at:])
    assert picture_size(path) == read_image(path).shape[:2] == ((40, 24) if number > 4 else (24, 40))


def test_what_is_no_picture(tmp_path):
    path: Path = tmp_path / "picture.jpg"
    with pytest.raises(DataError, match=r"picture\.jpg: cannot be read: No such file"):
        picture_size(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(DataError, match="is not a picture"):
        picture_size(path)
