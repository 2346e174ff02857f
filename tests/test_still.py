from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from deblurkit.errors import DataError
from deblurkit.still import _grey_and_notes, lost, read_still, write_still
from deblurkit.video.frames import FolderSink, PictureSource, open_source
from tests.support.pictures import exif, make_png, make_tiff, png_chunk

RNG = np.random.default_rng(0)


def noise(channels: int, dtype: Any = np.uint8, size: tuple[int, int] = (7, 9)) -> Any:
    shape = (*size, channels) if channels > 1 else size
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def png_with(data: bytes, kind: bytes, body: bytes) -> bytes:
    return data[:33] + png_chunk(kind, body) + data[33:]


@pytest.mark.parametrize(
    ("ending", "dtype"),
    [
        (".png", np.uint8),
        (".png", np.uint16),
        (".tif", np.uint8),
        (".tif", np.uint16),
        (".webp", np.uint8),
        (".bmp", np.uint8),
    ],
)
def test_alpha_passes_through(tmp_path: Path, ending: str, dtype: Any) -> None:
    image, path = noise(4, dtype), tmp_path / f"a{ending}"
    image[..., 3] |= 1  # libwebp drops the colours of what is fully transparent
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if ending == ".webp" else []
    path.write_bytes(cv2.imencode(ending, image, options)[1].tobytes())
    pixels, still = read_still(path)
    np.testing.assert_array_equal(still.alpha, image[..., 3])
    write_still(tmp_path / f"b{ending}", pixels, still, lossless=True)
    again, kept = read_still(tmp_path / f"b{ending}")
    np.testing.assert_array_equal(again, image[..., 2::-1])
    np.testing.assert_array_equal(kept.alpha, image[..., 3])


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
    """OpenCV multiplies them."""
    image = noise(4)
    image[..., 3] = 200
    (tmp_path / "a.tif").write_bytes(make_tiff(image, extra=(2,)))
    pixels, still = read_still(tmp_path / "a.tif")
    np.testing.assert_array_equal(still.alpha, image[..., 3])
    np.testing.assert_array_equal(pixels, image[..., :3])


def test_palettes_and_marked_colours_are_transparent_too(tmp_path: Path) -> None:
    rgb = cv2.imencode(".png", noise(3))[1].tobytes()
    pixels, still = read_still(_saved(tmp_path / "plain.png", rgb))
    assert still.alpha is None
    key = pixels[2, 3]
    marked = png_with(rgb, b"tRNS", struct.pack(">3H", *key.tolist()))
    _, still = read_still(_saved(tmp_path / "marked.png", marked))
    np.testing.assert_array_equal(still.alpha == 0, (pixels == key).all(-1))


def _saved(path: Path, data: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("ending", "dtype"),
    [(".png", np.uint8), (".png", np.uint16), (".tif", np.uint8), (".tif", np.uint16), (".jpg", np.uint8)],
)
def test_grey_stays_grey(tmp_path: Path, ending: str, dtype: Any) -> None:
    _saved(tmp_path / f"a{ending}", cv2.imencode(ending, noise(1, dtype))[1].tobytes())
    pixels, still = read_still(tmp_path / f"a{ending}")
    assert pixels.shape == (7, 9, 3)
    assert still.grey
    write_still(tmp_path / f"b{ending}", pixels, still)
    stored = cv2.imread(str(tmp_path / f"b{ending}"), cv2.IMREAD_UNCHANGED)
    assert stored.shape == (7, 9)
    tolerance = 8 if ending == ".jpg" else 0
    assert np.abs(stored.astype(int) - pixels[..., 0]).max() <= tolerance


def test_animated_webp_is_refused_and_not_cut_to_one_frame(tmp_path: Path) -> None:
    still = cv2.imencode(".webp", noise(3), [cv2.IMWRITE_WEBP_QUALITY, 90])[1].tobytes()
    extended = b"VP8X" + struct.pack("<I", 10) + bytes([0x02, 0, 0, 0]) + bytes([8, 0, 0, 6, 0, 0])
    body = b"WEBP" + extended + still[12:]
    with pytest.raises(DataError, match="animated WebP is not supported"):
        read_still(_saved(tmp_path / "a.webp", b"RIFF" + struct.pack("<I", len(body)) + body))


def test_a_tiff_of_several_pages_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = [noise(3), noise(3)]
    cv2.imwritemulti(str(tmp_path / "a.tif"), pages)
    (tmp_path / "b.tif").write_bytes((tmp_path / "a.tif").read_bytes())
    for pixels, _ in PictureSource(tmp_path, [tmp_path / "a.tif", tmp_path / "b.tif"]).stamped():
        np.testing.assert_array_equal(pixels, pages[0][..., ::-1])
    said = capsys.readouterr().err
    assert "a.tif: holds several pictures; the first is restored" in said
    assert "b.tif" not in said  # once for a sequence
    cv2.imwrite(str(tmp_path / "b.tif"), pages[0])
    _, still = read_still(tmp_path / "b.tif")
    assert not still.notes


def test_pictures_of_telephones_are_not_taken_for_videos(tmp_path: Path) -> None:
    for brand in (b"heic", b"avif", b"mif1"):
        data = struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + brand + b"miaf" + b"nothing"
        source = open_source(_saved(tmp_path / "a.heic", data))
        assert isinstance(source, PictureSource)
        with pytest.raises(DataError, match="no AVIF or HEIC, convert it to PNG or JPEG"):
            next(source.stamped())


def kept(tmp_path: Path, name: str, data: bytes, result: str) -> tuple[Any, Any]:
    """What comes out of a picture whose pixels are left as they are."""
    pixels, still = read_still(_saved(tmp_path / name, data))
    assert not still.notes
    assert not lost(still, pixels, tmp_path / result)
    write_still(tmp_path / result, pixels, still, lossless=True)
    return read_still(tmp_path / result)


@pytest.mark.parametrize(
    ("result", "bits"),
    [
        *((result, bits) for result in ("b.png", "b.tif") for bits in (1, 2, 4, 8, 16)),
        *(("b.webp", bits) for bits in (1, 2, 4, 8)),
    ],
)
def test_grey_png_with_a_value_that_is_transparent(tmp_path: Path, bits: int, result: str) -> None:
    white = 65535 if bits == 16 else 255
    grey = RNG.integers(0, 1 << bits, (7, 9, 1))
    key = int(grey[2, 3, 0])
    again, still = kept(tmp_path, "a.png", make_png(grey, bits, 0, (b"tRNS", struct.pack(">H", key))), result)
    np.testing.assert_array_equal(still.alpha, np.where(grey[..., 0] == key, 0, white))
    shown = np.repeat(grey * (white // ((1 << bits) - 1)), 3, 2)
    seen = still.alpha > 0 if result == "b.webp" else np.full(still.alpha.shape, True)  # WebP may drop what is not seen
    np.testing.assert_array_equal(again[seen], shown[seen])
    assert still.grey == (result != "b.webp")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("result", ["b.png", "b.tif"])
@pytest.mark.parametrize("source", ["a.png", "a.tif"])
def test_grey_with_alpha_stays_grey_with_alpha(tmp_path: Path, source: str, result: str, bits: int) -> None:
    samples = RNG.integers(0, 1 << bits, (7, 9, 2))
    data = make_png(samples, bits, 4) if source == "a.png" else make_tiff(samples, bits, 1, (2,))
    again, still = kept(tmp_path, source, data, result)
    np.testing.assert_array_equal(again, np.repeat(samples[..., :1], 3, 2))
    np.testing.assert_array_equal(still.alpha, samples[..., 1])
    assert still.grey
    assert (still.alpha.dtype, again.dtype) == (np.dtype(f"u{bits // 8}"),) * 2


def test_other_programs_read_grey_with_alpha(tmp_path: Path) -> None:
    samples = noise(2)
    for result in ("b.png", "b.tif"):
        kept(tmp_path, "a.png", make_png(samples, 8, 4), result)
        with Image.open(tmp_path / result) as picture:
            assert picture.mode == "LA"
            np.testing.assert_array_equal(np.asarray(picture), samples)
    rgba = noise(4)
    kept(tmp_path, "a.png", make_png(rgba, 8, 6), "b.tif")
    with Image.open(tmp_path / "b.tif") as picture:
        assert (picture.mode, picture.tag_v2[338]) == ("RGBA", (2,))
        np.testing.assert_array_equal(np.asarray(picture), rgba)


@pytest.mark.parametrize("bits", [8, 16])
def test_rgb_png_with_a_colour_that_is_transparent(tmp_path: Path, bits: int) -> None:
    rgb = RNG.integers(0, 1 << bits, (7, 9, 3))
    key = rgb[2, 3]
    rgb[5, 5] = key
    rgb[5, 5, 2] ^= 1  # the lowest bit counts
    data = make_png(rgb, bits, 2, (b"tRNS", struct.pack(">3H", *key.tolist())))
    again, still = kept(tmp_path, "a.png", data, "b.png")
    np.testing.assert_array_equal(still.alpha > 0, (rgb != key).any(-1))
    np.testing.assert_array_equal(again, rgb)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_with_transparent_entries(tmp_path: Path, bits: int) -> None:
    count = 1 << bits
    index, palette, table = (
        RNG.integers(0, count, (7, 9, 1)),
        noise(3, size=(1, count))[0],
        noise(1, size=(1, count))[0],
    )
    data = make_png(index, bits, 3, (b"PLTE", palette.tobytes()), (b"tRNS", table.tobytes()))
    again, still = kept(tmp_path, "a.png", data, "b.png")
    np.testing.assert_array_equal(still.alpha, table[index[..., 0]])
    np.testing.assert_array_equal(again, palette[index[..., 0]])


def test_an_alpha_channel_that_is_opaque_stays_one(tmp_path: Path) -> None:
    image = noise(4)
    image[..., 3] = 255
    again, still = kept(tmp_path, "a.png", make_png(image, 8, 6), "b.png")
    assert still.alpha is None
    assert still.opaque
    assert cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED).shape == (7, 9, 4)
    assert not lost(still, again, tmp_path / "b.jpg")


def test_what_a_format_cannot_keep_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        _saved(tmp_path / "in" / f"{number}.png", make_png(noise(4, np.uint16), 16, 6))
    with FolderSink(tmp_path / "out", ending=".jpg") as sink:
        for pixels, still in PictureSource(tmp_path / "in", sorted((tmp_path / "in").iterdir())).stamped():
            sink.write(pixels, still)
    said = capsys.readouterr().err
    assert said.count("warning:") == 2
    assert "0.jpg: .jpg files are written without transparency" in said
    assert "0.jpg: .jpg files have 8 bits a channel, of 16 the upper ones are written" in said


@pytest.mark.skipif(not cv2.haveImageWriter("a.avif"), reason="this OpenCV has no AVIF")
def test_avif(tmp_path: Path) -> None:
    image = noise(4, size=(16, 16))
    image[..., 3] = np.arange(16)[:, None] * 17
    data = cv2.imencode(".avif", image)[1].tobytes()
    pixels, still = read_still(_saved(tmp_path / "a.avif", data))
    np.testing.assert_array_equal(still.alpha, cv2.imdecode(np.frombuffer(data, np.uint8), -1)[..., 3])
    assert still.alpha.std() > 50
    assert not still.notes
    at = data.index(b"ispe")  # no room for a property more: one is renamed
    turned = data[:at] + b"irot\1" + data[at + 5 :]
    assert _grey_and_notes(turned) == (False, ("is marked as turned, which is not applied",))
    assert pixels.shape == (16, 16, 3)


def test_a_jpeg_of_other_depths_is_named(tmp_path: Path) -> None:
    data = bytearray(cv2.imencode(".jpg", noise(3))[1].tobytes())
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(DataError, match=r"a\.jpg: .*it has 12 bits a channel, JPEGs of 8 bits are supported"):
        read_still(_saved(tmp_path / "a.jpg", bytes(data)))
