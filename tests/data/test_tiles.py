"""Tiles: where they lie, what they cost, and what is refused."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from deblurkit.data.lmdb_make import make_lmdb
from deblurkit.data.lmdb_store import LmdbStore
from deblurkit.data.tiles import TileGrid, pack_lossless, pack_raw, pick_tiles, read_raw, unpack_tiles
from deblurkit.errors import DataError

KEY = "seq000/00000000"


def photo(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    """A smooth picture with a little noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(y / 17 + c) + np.cos(x / 23 - c) for c in range(3)]
    values = np.stack(waves, -1) * 0.2 + 0.5 + rng.normal(0, 0.005, (height, width, 3))
    return (values.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize(
    ("height", "width", "side"), [(64, 64, 32), (65, 33, 32), (20, 90, 32), (31, 31, 32), (48, 50, 1)]
)
def test_tiles_cover_a_frame_once(height, width, side):
    grid = TileGrid(height, width, side)
    seen = np.zeros((height, width), int)
    for number, tile in enumerate(grid):
        assert tile.number == number
        seen[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] += 1
    assert len(grid) == number + 1
    assert (seen == 1).all()


def test_only_touched_tiles_are_named():
    grid = TileGrid(100, 100, 32)
    assert [t.number for t in grid.touched((32, 32, 32, 32))] == [5]
    assert [t.number for t in grid.touched((31, 31, 2, 2))] == [0, 1, 4, 5]
    assert [t.number for t in grid.touched((96, 0, 4, 33))] == [12, 13]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("window", [(0, 0, 75, 110), (10, 20, 50, 60), (74, 109, 1, 1), (32, 64, 32, 32)])
def test_any_window_comes_back(dtype, window):
    pixels = photo(75, 110, dtype)
    pixels[0, 0], pixels[-1, -1] = 0, np.iinfo(dtype).max
    y, x, h, w = window
    expected = pixels[y : y + h, x : x + w]
    grid = TileGrid(75, 110, 32)
    plain = memoryview(pack_raw(pixels, 32))
    assert len(plain) == pixels.nbytes
    np.testing.assert_array_equal(read_raw(plain, grid, np.dtype(dtype).newbyteorder("<"), window), expected)
    packed = memoryview(pack_lossless(pixels, 32))
    found = unpack_tiles(pick_tiles(packed, grid, window, "x"), np.dtype(dtype), window, "x")
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == dtype
    assert found.flags.owndata


def test_other_tiles_bytes_are_not_looked_at():
    pixels = photo(64, 96)
    packed = bytearray(pack_lossless(pixels, 32))
    grid, window = TileGrid(64, 96, 32), (32, 32, 32, 32)
    table = np.frombuffer(packed, "<u4", 12).reshape(6, 2)
    first, end = 48 + int(table[3, 0]), 48 + int(table[4, 0])
    packed[48:first] = bytes(first - 48)
    packed[end:] = bytes(len(packed) - end)
    found = unpack_tiles(pick_tiles(memoryview(packed), grid, window, "x"), np.dtype(np.uint8), window, "x")
    np.testing.assert_array_equal(found, pixels[32:64, 32:64])


def test_packed_tiles_are_no_larger_than_png():
    pixels = photo(256, 384)
    png = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    assert len(pack_lossless(pixels, 128)) <= len(png)


def lmdb_of(tree: Path, **form: object) -> LmdbStore:
    make_lmdb(tree, splits=["train"], **form)  # type: ignore[arg-type]
    return LmdbStore(tree.with_name("tree.lmdb") / "train_lq.lmdb")


class TestDamage:
    """What a packed frame may be instead of one."""

    def message(self, data: bytes, size: tuple[int, int] = (24, 40), dtype: type = np.uint8) -> str:
        grid, window = TileGrid(*size, 16), (0, 0, *size)
        with pytest.raises(DataError) as caught:
            unpack_tiles(pick_tiles(memoryview(data), grid, window, "P: K"), np.dtype(dtype), window, "P: K")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_a_changed_byte_or_a_missing_end(self):
        whole = pack_lossless(photo(24, 40), 16)
        changed = bytearray(whole)
        changed[-3] ^= 1
        for data in (bytes(changed), whole[:-1]):
            assert self.message(data) == "P: K: its tile 5 is damaged (wrong checksum); make the LMDB again"
        assert self.message(whole[:47]) == "P: K: is damaged (47 bytes, its table alone has 48); make the LMDB again"

    @pytest.mark.parametrize("end", [0, 0xFFFFFFFF])
    def test_a_table_that_leads_nowhere(self, end):
        data = bytearray(pack_lossless(photo(24, 40), 16))
        data[8:12] = end.to_bytes(4, "little")
        assert "its tile 1 is damaged" in self.message(bytes(data))

    def test_what_a_tile_claims_is_checked_before_it_is_decoded(self, monkeypatch):
        """With a right checksum, so that nothing else would notice."""

        def packed(tile: bytes) -> bytes:
            return len(tile).to_bytes(4, "little") + zlib.crc32(tile).to_bytes(4, "little") + tile

        def png(pixels: np.ndarray) -> bytes:
            return cv2.imencode(".png", pixels)[1].tobytes()

        # the size at its place in each header, a small picture behind it
        large_png = bytearray(png(photo(16, 16)))
        large_png[16:20] = (100_000).to_bytes(4, "big")
        large_webp = bytearray(pack_lossless(photo(16, 16), 16)[8:])
        large_webp[21:25] = (0x3FFF | 0x3FFF << 14).to_bytes(4, "little")
        decoded: list[int] = []
        decode = cv2.imdecode
        monkeypatch.setattr(cv2, "imdecode", lambda *a: decoded.append(1) or decode(*a))
        for tile in (bytes(large_png), bytes(large_webp), png(photo(16, 17)), b"nothing", b""):
            assert "its tile 0 is no picture of 16x16 uint8" in self.message(packed(tile), (16, 16))
        assert not decoded
        assert "is no picture of 16x16 uint8" in self.message(packed(png(photo(16, 16, np.uint16))), (16, 16))
        cut_off = pack_lossless(photo(16, 16), 16)[8:60]
        assert "is no picture of 16x16 uint8" in self.message(packed(cut_off), (16, 16))
        assert len(decoded) == 2

    def test_the_key_is_named(self, tree):
        store = lmdb_of(tree, codec="tiled", tile=16)
        with store.value(KEY) as data:
            value = bytes(data)
        path = store.path / "data.mdb"
        content = path.read_bytes()
        at = content.find(value) + len(value) - 3
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        store.read(KEY, (0, 0, 16, 16))
        with pytest.raises(DataError, match=f"{store.path}: {KEY}: its tile 5 is damaged"):
            store.read(KEY)


def test_command_line(tree, cli):
    assert cli("lmdb", "make", tree, "--split", "train", "--codec", "tiled", "--tile", 16)[0] == 0
    path = tree.with_name("tree.lmdb") / "train_gt.lmdb"
    assert json.loads((path / "manifest.json").read_text())["tile"] == 16
    assert "tiled, tiles of 16" in cli("lmdb", "info", tree)[1]
    assert "12 entries, all whole" in cli("lmdb", "verify", path)[1]
    assert "is up to date" in cli("lmdb", "make", tree, "--split", "train", "--codec", "tiled", "--tile", 16)[2]
    code, _, text = cli("lmdb", "make", tree, "--split", "train", "--codec", "tiled")
    assert code == 2
    assert "train_lq.lmdb: has tile 16, not 128; --force makes it again" in text


@pytest.mark.parametrize(("codec", "tile"), [("png", 128), ("tiled", 8), ("raw", 5000), ("tiled", 0)])
def test_tiles_that_cannot_be(tree, cli, codec, tile):
    code, _, text = cli("lmdb", "make", tree, "--codec", codec, "--tile", tile)
    assert code == 2
    assert f"error: tile {tile}: tiles are for the codecs raw and tiled, with a side of 16 to 4096 pixels" in text


def test_a_pyav_without_webp_is_said(monkeypatch):
    def create(name: str, mode: str) -> None:
        raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr(av.CodecContext, "create", create)
    with pytest.raises(DataError, match="codec tiled needs libwebp, which this PyAV lacks"):
        pack_lossless(photo(17, 19), 64)


@pytest.mark.parametrize("tile", ["16", -1, 0, None, 1.5])
def test_a_manifest_with_an_impossible_tile_is_refused(tree, tile):
    store = lmdb_of(tree, codec="tiled", tile=16)
    manifest = json.loads((store.path / "manifest.json").read_text())
    (store.path / "manifest.json").write_text(json.dumps({**manifest, "tile": tile}))
    with pytest.raises(DataError, match=r"manifest\.json: is damaged"):
        LmdbStore(store.path)
