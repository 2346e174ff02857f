from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from deblurkit.image_io import decode_planes, encode_image
from deblurkit.picture_tags import PictureTags, jpeg_segments, orientation, read_tags, with_tags
from deblurkit.still import Still, encode_still, lost, read_still
from deblurkit.tiff import edited, shorts
from tests.support.pictures import exif, make_tiff, png_chunk

RNG = np.random.default_rng(0)
ENDINGS = [".png", ".jpg", ".webp", ".tif"]
XMP = b'<x:xmpmeta><rdf:Description xmp:Rating="3" tiff:Orientation="6"/></x:xmpmeta>'


def noise(channels: int = 3, size: tuple[int, int] = (7, 9)) -> Any:
    return RNG.integers(0, 255, (*size, channels), dtype=np.uint8)


def profile(space: bytes = b"RGB ", size: int = 150_000) -> bytes:
    """What begins like a colour profile; larger than one JPEG segment."""
    return RNG.bytes(16) + space + RNG.bytes(size - 20)


def camera_notes() -> bytes:
    """EXIF as cameras write it: with a directory of its own for the exposure and one for the place."""
    notes = Image.Exif()
    notes[ExifTags.Base.Model] = "Kodak Brownie 127"
    notes[ExifTags.Base.XResolution] = 300.5
    notes.get_ifd(ExifTags.IFD.Exif).update(
        {ExifTags.Base.ExposureTime: 0.04, ExifTags.Base.UserComment: b"ASCII at sea"}
    )
    notes.get_ifd(ExifTags.IFD.GPSInfo).update(
        {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (54.0, 9.0, 6.5)}
    )
    return notes.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_are_kept_but_for_the_rotation(tmp_path: Path, ending: str, order: str) -> None:
    icc = profile()
    data = with_tags(encode_image(noise(), ending), PictureTags(icc, exif(6, order), XMP))
    if ending == ".tif":  # which says itself how it is turned
        data = edited(data, {274: shorts(6)})
    (tmp_path / f"a{ending}").write_bytes(data)
    pixels, still = read_still(tmp_path / f"a{ending}")
    assert pixels.shape == (9, 7, 3)
    data = encode_still(tmp_path / f"b{ending}", pixels, still)
    found = read_tags(data)
    assert found.icc == icc
    assert b"me!" in found.exif
    assert found.xmp == XMP.replace(b"6", b"1")
    assert decode_planes(data, "b").pixels.shape == (9, 7, 3)  # not turned twice
    assert struct.pack(order + "I", 4711) not in found.exif  # no thumbnail of the blurry picture


@pytest.mark.parametrize("source", ENDINGS)
@pytest.mark.parametrize("target", ENDINGS)
@pytest.mark.parametrize("alpha", [False, True])
def test_other_programs_read_the_tags(source: str, target: str, alpha: bool) -> None:
    """Pillow reads what was written, from any kind to any."""
    icc = profile()
    before = read_tags(with_tags(encode_image(noise(), source), PictureTags(icc, camera_notes(), XMP)))
    mask = noise(1)[..., 0] if alpha else None
    pixels = noise()
    data = encode_still(Path("b" + target), pixels, Still("b", mask, tags=before), lossless=True)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.info["icc_profile"] == icc
        notes = picture.getexif()
        assert notes[ExifTags.Base.Model] == "Kodak Brownie 127"
        assert float(notes[ExifTags.Base.XResolution]) == 300.5
        exposure, place = notes.get_ifd(ExifTags.IFD.Exif), notes.get_ifd(ExifTags.IFD.GPSInfo)
        assert float(exposure[ExifTags.Base.ExposureTime]) == pytest.approx(0.04)
        assert exposure[ExifTags.Base.UserComment] == b"ASCII at sea"
        assert [float(part) for part in place[ExifTags.GPS.GPSLatitude]] == [54.0, 9.0, 6.5]
        found = picture.info.get("xmp") or picture.tag_v2[700]
        assert bytes(found if isinstance(found, bytes) else found.encode()) == XMP.replace(b"6", b"1")
        if target != ".jpg":
            shown = np.asarray(picture)
            seen = shown[..., 3] > 0 if alpha else slice(None)  # WebP may drop what is not seen
            np.testing.assert_array_equal(shown[..., :3][seen], pixels[seen])
            assert shown.shape[2] == 3 + alpha
            assert mask is None or (shown[..., 3] == mask).all()


def test_notes_of_a_big_endian_tiff_can_be_read_in_another_order() -> None:
    data = make_tiff(noise(), order=">", more={296: ("H", (2,)), 282: ("I", (601, 2))})
    data = data.replace(struct.pack(">HHI", 282, 4, 2), struct.pack(">HHI", 282, 5, 1))  # two numbers are one fraction
    notes = Image.Exif()
    notes.load(read_tags(data).exif)
    assert float(notes[282]) == 300.5
    assert notes[296] == 2


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (300, 517)])
def test_webp_says_its_size(size: tuple[int, int], lossless: bool) -> None:
    data = encode_still(Path("a.webp"), noise(3, size), Still("a", tags=PictureTags(profile())), lossless)
    assert data[12:16] == b"VP8X"
    assert data[20] == 0x20
    assert int.from_bytes(data[24:27], "little") + 1 == size[1]
    assert int.from_bytes(data[27:30], "little") + 1 == size[0]
    assert len(data) == 8 + int.from_bytes(data[4:8], "little")
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (*size, 3)


def test_profiles_for_other_pixels_are_left_out(tmp_path: Path) -> None:
    pixels = noise()
    for space, grey, ending, kept in (
        (b"RGB ", False, ".png", True),
        (b"GRAY", True, ".png", True),
        (b"GRAY", True, ".webp", False),
        (b"CMYK", False, ".jpg", False),
        (b"RGB ", True, ".tif", False),
    ):
        path = tmp_path / f"a{ending}"
        still = Still("a", grey=grey, tags=PictureTags(profile(space)))
        assert bool(read_tags(encode_still(path, pixels, still)).icc) == kept
        assert (f"not for these pixels, but for {space.decode().strip()}" in "".join(lost(still, pixels, path))) != kept
    assert lost(still, pixels, tmp_path / "a.bmp")


def test_png_colours_are_kept(tmp_path: Path) -> None:
    plain = encode_image(noise(), ".png")
    (tmp_path / "a.png").write_bytes(plain[:33] + png_chunk(b"gAMA", struct.pack(">I", 45455)) + plain[33:])
    pixels, still = read_still(tmp_path / "a.png")
    assert b"gAMA" + struct.pack(">I", 45455) in encode_still(tmp_path / "b.png", pixels, still)
    assert b"gAMA" not in encode_still(tmp_path / "b.jpg", pixels, still)


def test_notes_behind_the_pixels_of_a_png_are_found() -> None:
    plain = encode_image(noise(), ".png")
    data = plain[:-12] + png_chunk(b"eXIf", exif(6)) + plain[-12:]
    assert b"me!" in read_tags(data).exif
    assert decode_planes(data, "a").pixels.shape == (9, 7, 3)


@pytest.mark.parametrize("data", [b"", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"Exif"])
@pytest.mark.parametrize("ending", [".jpg", ".webp"])
def test_damaged_camera_notes_are_left_out(ending: str, data: bytes) -> None:
    picture = with_tags(encode_image(noise(), ending), PictureTags(b"", data))
    assert read_tags(picture).exif == b""
    assert orientation(picture) == 1


def test_a_jpeg_keeps_jfif_first() -> None:
    jpeg = with_tags(encode_image(noise(), ".jpg"), PictureTags(b"profile", exif(1)))
    assert [marker for marker, _ in jpeg_segments(jpeg)][:3] == [0xE0, 0xE1, 0xE2]
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) is not None
