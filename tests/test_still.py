from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deblurkit.errors import DataError
from deblurkit.image_io import encode_image
from deblurkit.picture_tags import PictureTags, jpeg_segments, read_tags, with_tags
from deblurkit.still import encode_still, read_still, write_still

RNG = np.random.default_rng(0)


def noise(channels: int, dtype: Any = np.uint8, size: tuple[int, int] = (7, 9)) -> Any:
    shape = (*size, channels) if channels > 1 else size
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def exif(orientation: int, order: str = "<") -> bytes:
    """A directory with the rotation and a maker, and the link to a thumbnail's directory."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    rotation = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    maker = struct.pack(order + "HHI4s", 0x010F, 2, 4, b"me!\0")
    return mark + struct.pack(order + "IH", 8, 2) + maker + rotation + struct.pack(order + "I", 4711)


def png_with(data: bytes, kind: bytes, body: bytes) -> bytes:
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data[:33] + chunk + data[33:]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("ending", [".png", ".tif", ".webp"])
def test_alpha_passes_through(tmp_path: Path, ending: str, dtype: Any) -> None:
    if ending == ".webp" and dtype == np.uint16:
        pytest.skip("WebP has 8 bits")
    image, path = noise(4, dtype), tmp_path / f"a{ending}"
    image[..., 3] |= 1  # libwebp drops the colours of what is fully transparent
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if ending == ".webp" else []
    path.write_bytes(cv2.imencode(ending, image, options)[1].tobytes())
    pixels, still = read_still(path)
    np.testing.assert_array_equal(still.alpha, image[..., 3])
    write_still(tmp_path / f"b{ending}", pixels, still, lossless=True)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / f"b{ending}"), cv2.IMREAD_UNCHANGED), image)


def test_alpha_grows_with_the_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", noise(4))[1].tobytes())
    pixels, still = read_still(tmp_path / "a.png")
    write_still(tmp_path / "b.png", np.repeat(np.repeat(pixels, 2, 0), 2, 1), still)
    assert cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED).shape == (14, 18, 4)


def test_alpha_of_a_picture_that_is_turned_is_turned_too(tmp_path: Path) -> None:
    image = noise(4)
    plain = cv2.imencode(".png", image)[1].tobytes()
    expected = {1: image, 2: image[:, ::-1], 3: image[::-1, ::-1], 4: image[::-1], 5: image.swapaxes(0, 1),
                6: np.rot90(image, -1), 7: np.rot90(image, 2).swapaxes(0, 1), 8: np.rot90(image)}  # fmt: skip
    for orientation, turned in expected.items():
        (tmp_path / "a.png").write_bytes(png_with(plain, b"eXIf", exif(orientation)))
        pixels, still = read_still(tmp_path / "a.png")
        np.testing.assert_array_equal(pixels, turned[..., 2::-1])
        np.testing.assert_array_equal(still.alpha, turned[..., 3])


def test_tiff_with_plain_colours_beside_its_alpha(tmp_path: Path) -> None:
    """OpenCV multiplies them; what is visible comes back within the rounding of that."""
    image = noise(4, size=(16, 16))
    image[..., 3] = 200
    strip = image.tobytes()
    shorts = {256: 16, 257: 16, 259: 1, 262: 2, 277: 4, 278: 16, 284: 1, 338: 2}
    entries = sorted(
        [(tag, struct.pack("<HHIHH", tag, 3, 1, value, 0)) for tag, value in shorts.items()]
        + [(258, struct.pack("<HHII", 258, 3, 4, 8)), (273, struct.pack("<HHII", 273, 4, 1, 16)),
           (279, struct.pack("<HHII", 279, 4, 1, len(strip)))]
    )  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(entry for _, entry in entries) + bytes(4)
    data = b"II*\0" + struct.pack("<I4H", 16 + len(strip), 8, 8, 8, 8) + strip + directory
    (tmp_path / "a.tif").write_bytes(data)
    pixels, still = read_still(tmp_path / "a.tif")
    np.testing.assert_array_equal(still.alpha, image[..., 3])
    assert np.abs(pixels.astype(int) - image[..., :3]).max() <= 1


def test_palettes_and_marked_colours_are_transparent_too(tmp_path: Path) -> None:
    rgb = cv2.imencode(".png", noise(3))[1].tobytes()
    pixels, still = read_still(_saved(tmp_path / "plain.png", rgb))
    assert still.alpha is None
    key = pixels[2, 3]
    marked = png_with(rgb, b"tRNS", struct.pack(">3H", *key.tolist()))
    _, still = read_still(_saved(tmp_path / "marked.png", marked))
    np.testing.assert_array_equal(still.alpha == 0, (pixels == key).all(-1))


def _saved(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("ending", [".png", ".tif", ".jpg"])
def test_grey_stays_grey(tmp_path: Path, ending: str, dtype: Any) -> None:
    if ending == ".jpg" and dtype == np.uint16:
        pytest.skip("JPEG has 8 bits")
    _saved(tmp_path / f"a{ending}", cv2.imencode(ending, noise(1, dtype))[1].tobytes())
    pixels, still = read_still(tmp_path / f"a{ending}")
    assert pixels.shape == (7, 9, 3)
    assert still.grey
    write_still(tmp_path / f"b{ending}", pixels, still)
    stored = cv2.imread(str(tmp_path / f"b{ending}"), cv2.IMREAD_UNCHANGED)
    assert stored.shape == (7, 9)
    tolerance = 8 if ending == ".jpg" else 0
    assert np.abs(stored.astype(int) - pixels[..., 0]).max() <= tolerance


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_profile_and_camera_notes_are_kept_but_for_the_rotation(tmp_path: Path, ending: str, order: str) -> None:
    profile = RNG.bytes(150_000)  # more than one JPEG segment
    plain = encode_image(noise(3), ending)
    tags = PictureTags(profile, exif(6, order))
    pixels, still = read_still(_saved(tmp_path / f"a{ending}", with_tags(plain, tags)))
    assert pixels.shape == (9, 7, 3)
    data = encode_still(tmp_path / f"b{ending}", pixels, still)
    found = read_tags(data)
    assert found.icc == profile
    assert b"me!" in found.exif
    again, _ = read_still(_saved(tmp_path / f"b{ending}", data))
    assert again.shape == (9, 7, 3)  # not turned twice
    assert struct.pack(order + "I", 4711) not in found.exif  # no thumbnail of the blurry picture


def test_png_colours_are_kept(tmp_path: Path) -> None:
    data = png_with(encode_image(noise(3), ".png"), b"gAMA", struct.pack(">I", 45455))
    pixels, still = read_still(_saved(tmp_path / "a.png", data))
    assert b"gAMA" + struct.pack(">I", 45455) in encode_still(tmp_path / "b.png", pixels, still)
    assert b"gAMA" not in encode_still(tmp_path / "b.jpg", pixels, still)


@pytest.mark.parametrize("data", [b"", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"Exif"])
def test_damaged_camera_notes_are_left_out(data: bytes) -> None:
    jpeg = with_tags(encode_image(noise(3), ".jpg"), PictureTags(b"", data))
    assert read_tags(jpeg).exif == b""


def test_a_jpeg_keeps_jfif_first() -> None:
    jpeg = with_tags(encode_image(noise(3), ".jpg"), PictureTags(b"profile", exif(1)))
    assert [marker for marker, _ in jpeg_segments(jpeg)][:3] == [0xE0, 0xE1, 0xE2]
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) is not None


def test_animated_webp_is_refused_and_not_cut_to_one_frame(tmp_path: Path) -> None:
    still = cv2.imencode(".webp", noise(3), [cv2.IMWRITE_WEBP_QUALITY, 90])[1].tobytes()
    extended = b"VP8X" + struct.pack("<I", 10) + bytes([0x02, 0, 0, 0]) + bytes([8, 0, 0, 6, 0, 0])
    body = b"WEBP" + extended + still[12:]
    with pytest.raises(DataError, match="animated WebP is not supported"):
        read_still(_saved(tmp_path / "a.webp", b"RIFF" + struct.pack("<I", len(body)) + body))


def test_a_tiff_of_several_pages_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = [noise(3), noise(3)]
    cv2.imwritemulti(str(tmp_path / "a.tif"), pages)
    pixels, _ = read_still(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels, pages[0][..., ::-1])
    assert "a.tif: holds several pictures; the first is restored" in capsys.readouterr().err
    cv2.imwrite(str(tmp_path / "b.tif"), pages[0])
    read_still(tmp_path / "b.tif")
    assert capsys.readouterr().err == ""


def test_pictures_of_telephones_are_not_taken_for_videos(tmp_path: Path) -> None:
    from deblurkit.video.frames import PictureSource, open_source

    for brand in (b"heic", b"avif", b"mif1"):
        data = struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + brand + b"miaf" + b"nothing"
        source = open_source(_saved(tmp_path / "a.heic", data))
        assert isinstance(source, PictureSource)
        with pytest.raises(DataError, match="no AVIF or HEIC, convert it to PNG or JPEG"):
            next(source.stamped())
