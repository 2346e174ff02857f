from __future__ import annotations

import json
import os
import pickle
import shutil
import threading
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from deblurkit.data.lmdb_check import verify_lmdb
from deblurkit.data.lmdb_make import make_lmdb
from deblurkit.data.lmdb_store import LmdbStore, checksum, close
from deblurkit.data.store import DiskStore, PairedStores, open_stores
from deblurkit.errors import DataError
from deblurkit.image_io import encode_png, read_image, write_image
from deblurkit.picture_tags import png_chunk
from tests.support.trees import make_tree

WINDOWS = [None, (0, 0, 24, 40), (3, 5, 16, 16), (23, 39, 1, 1), (16, 16, 8, 16), (7, 15, 10, 2)]
FORMS = {"raw": {"codec": "raw"}, "png": {"codec": "png"}, "tiled": {"codec": "tiled", "tile": 16}}
FORMS |= {"raw tiles": {"codec": "raw", "tile": 16}, "one tile": {"codec": "tiled"}}


def frames_of(stores: PairedStores) -> list[str]:
    return [f"{name}/{frame}" for name, frames in stores.sequences.items() for frame in frames]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lmdb_holds_the_pixels_of_the_files(tmp_path, form, dtype):
    root = make_tree(tmp_path / "set", splits=("train",), frames=3, size=(24, 40), dtype=dtype)
    files = open_stores(root, "train")
    assert isinstance(files.lq, DiskStore)
    make_lmdb(root, **FORMS[form])
    stored = open_stores(root, "train")
    assert isinstance(stored.lq, LmdbStore)
    assert stored.lq.codec == FORMS[form]["codec"]
    assert stored.sequences == {name: tuple(frames) for name, frames in files.sequences.items()}
    for key in frames_of(files):
        for disk, made in ((files.lq, stored.lq), (files.gt, stored.gt)):
            assert disk.size(key) == made.size(key) == (24, 40)
            for window in WINDOWS:
                expected, found = disk.read(key, window), made.read(key, window)
                assert found.dtype == expected.dtype == dtype
                assert found.base is None or form == "png"
                assert found.flags.writeable
                np.testing.assert_array_equal(found, expected)
    first = frames_of(files)[0]
    np.testing.assert_array_equal(
        files.gt.read(first), read_image(root / "train" / "seq000" / "sharp" / "00000000.png")
    )


@pytest.mark.parametrize("form", ["disk", *FORMS])
def test_a_window_over_the_border_is_refused(tree, form):
    if form != "disk":
        make_lmdb(tree, **FORMS[form])
    stores = open_stores(tree, "train", storage="disk" if form == "disk" else "lmdb")
    with pytest.raises(DataError, match=r"window of 16x16 at \(30, 0\) does not fit into the frame of 40x24"):
        stores.lq.read("seq000/00000000", (0, 30, 16, 16))


def test_sizes_of_other_formats(tmp_path):
    root = make_tree(tmp_path / "set", splits=("train",), frames=1, size=(9, 11), ending=".jpg")
    stores = open_stores(root, "train")
    assert stores.lq.size("seq000/00000000") == stores.lq.size("seq000/00000000") == (9, 11)
    make_lmdb(root)
    np.testing.assert_array_equal(
        open_stores(root, "train", storage="lmdb").lq.read("seq000/00000000"), stores.lq.read("seq000/00000000")
    )


class TestChoice:
    """`storage: auto`."""

    def test_changed_files_are_read_instead_of_an_old_lmdb(self, tree, capsys):
        make_lmdb(tree)
        assert "LMDB" in open_stores(tree, "train").description
        os.utime(tree / "train" / "seq001" / "sharp" / "00000003.png", ns=(1, 1))
        capsys.readouterr()
        assert "files" in open_stores(tree, "train").description
        assert "does not match the files any more" in capsys.readouterr().err
        assert "LMDB" in open_stores(tree, "test").description
        assert "LMDB" in open_stores(tree, "train", storage="lmdb").description

    def test_another_kind_of_blur_is_not_mistaken(self, tmp_path):
        root = make_tree(tmp_path / "set", splits=("train",), frames=2, size=(8, 8), gamma=True)
        make_lmdb(root)
        stores = open_stores(root, "train", lq="blur_gamma")
        assert "files" in stores.description
        with pytest.raises(DataError, match="holds the frames of 'blur', not 'blur_gamma'"):
            open_stores(root, "train", lq="blur_gamma", storage="lmdb")

    def test_lmdb_alone_is_enough(self, tree):
        make_lmdb(tree)
        before = open_stores(tree, "train")
        expected = before.lq.read("seq001/00000006", (1, 2, 3, 4))
        shutil.rmtree(tree)
        for root in (tree, tree.with_name("tree.lmdb")):
            stores = open_stores(root, "train")
            assert stores.fingerprint == before.fingerprint
            np.testing.assert_array_equal(stores.lq.read("seq001/00000006", (1, 2, 3, 4)), expected)
        with pytest.raises(DataError, match="does not exist"):
            open_stores(tree, "val")

    def test_a_data_set_may_be_the_working_folder(self, tree, monkeypatch):
        monkeypatch.chdir(tree)
        make_lmdb(".")
        assert (tree.with_name("tree.lmdb") / "train_lq.lmdb" / "data.mdb").is_file()
        assert "LMDB" in open_stores(".", "train").description

    def test_lmdb_must_be_there_when_asked_for(self, tree):
        with pytest.raises(DataError, match=r"train_lq\.lmdb and .*train_gt\.lmdb: not there; make it with"):
            open_stores(tree, "train", storage="lmdb")

    def test_halves_that_differ_are_refused(self, tree, tmp_path):
        make_lmdb(tree)
        other = make_tree(tmp_path / "other", frames=(5, 6), size=(24, 40))
        make_lmdb(other)
        shutil.rmtree(tree / "train")
        shutil.rmtree(tmp_path / "tree.lmdb" / "train_gt.lmdb")
        shutil.copytree(tmp_path / "other.lmdb" / "train_gt.lmdb", tmp_path / "tree.lmdb" / "train_gt.lmdb")
        with pytest.raises(DataError, match="frames differ, for example seq001/00000006"):
            open_stores(tree, "train")

    def test_fingerprints_tell_contents_apart_not_times(self, tree, tmp_path):
        other = make_tree(tmp_path / "other", frames=(5, 7), size=(24, 40), seed=1)
        twin = make_tree(tmp_path / "twin", frames=(5, 7), size=(24, 40))
        for storage in ("disk", "lmdb"):
            if storage == "lmdb":
                for root in (tree, other, twin):
                    make_lmdb(root, splits=["train"])
            prints = [open_stores(root, "train", storage=storage).fingerprint for root in (tree, other, twin)]
            assert prints[0] == prints[2] != prints[1]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_fingerprint_is_of_pixels_however_they_are_stored(tmp_path, dtype):
    root = make_tree(tmp_path / "set", splits=("train",), frames=3, size=(24, 40), dtype=dtype)
    prints = set()
    for name, form in FORMS.items():
        for path in make_lmdb(root, output=tmp_path / name, **form):
            store = LmdbStore(path)
            prints.add((store.path.name, store.fingerprint()))
            assert json.loads((path / "manifest.json").read_text())["fingerprint"] == store.fingerprint()
    assert len(prints) == 4  # for each of the two roles one, and one of the copied PNGs, which were not decoded
    assert len({found for _, found in prints}) == 4


def test_lmdbs_without_checksums_of_pixels_keep_their_fingerprint(tree):
    """As they were made before: it is of the stored bytes, but for raw pixels, where these are the same thing."""
    for form in ({"codec": "tiled"}, {"codec": "png"}, {"codec": "raw"}):
        path = make_lmdb(tree, splits=["train"], force=True, **form)[0]
        now = LmdbStore(path).fingerprint()
        manifest = json.loads((path / "manifest.json").read_text())
        for entry in manifest["sequences"].values():
            assert ("pixels" in entry) == (form["codec"] == "tiled")
            entry.pop("pixels", None)
        (path / "manifest.json").write_text(json.dumps(manifest))
        old = LmdbStore(path)
        hashes = {name: entry["hash"] for name, entry in manifest["sequences"].items()}
        before = checksum(json.dumps([form["codec"], hashes]).encode())
        assert (old.fingerprint() == now) == (form["codec"] != "tiled")
        assert (old.fingerprint() == before) == (form["codec"] != "raw")
        assert old.read("seq000/00000001").shape == (24, 40, 3)
        next(iter(manifest["sequences"].values()))["pixels"] = ["0"]
        (path / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(DataError, match=r"is damaged .*checksums"):
            LmdbStore(path)


def test_forked_children_and_threads_read_for_themselves(tree):
    make_lmdb(tree)
    stores = open_stores(tree, "train", storage="lmdb")
    expected = stores.lq.read("seq000/00000001")
    wrong: list[int] = []

    def work() -> None:
        for _ in range(50):
            if not np.array_equal(stores.lq.read("seq000/00000001"), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):  # while the threads read
        child = os.fork()
        if child == 0:
            same = np.array_equal(stores.lq.read("seq000/00000001"), expected)
            again = np.array_equal(LmdbStore(stores.lq.path).read("seq000/00000001"), expected)
            os._exit(0 if same and again else 1)
        assert os.waitpid(child, 0)[1] == 0
    for thread in threads:
        thread.join()
    assert not wrong
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(stores.lq)).read("seq000/00000001"), expected)


def write_basicsr(path: Path, pictures: dict[str, np.ndarray], shapes: dict[str, str], extra: bytes = b"") -> None:
    """An LMDB as BasicSR's scripts write it; `extra`: a chunk before the pixels."""
    environment = lmdb.open(str(path), map_size=10 << 20)
    with environment.begin(write=True) as transaction:
        for key, picture in pictures.items():
            data = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
            at = data.index(b"IDAT") - 4  # the length stands before the type
            transaction.put(key.encode("ascii"), data[:at] + extra + data[at:])
    environment.close()
    (path / "meta_info.txt").write_text("".join(f"{key}.png {shapes[key]} 1\n" for key in pictures))


def test_basicsr_form_is_read_and_its_shapes_are_not_trusted(tmp_path, capsys):
    rng = np.random.default_rng(0)
    pictures = {
        key: rng.integers(0, 256, (9, 6, 3), np.uint8) for key in ("001/00000001", "000/00000000", "000/00000001")
    }
    shapes = dict.fromkeys(pictures, "(80,60,3)")
    folder = tmp_path / "REDS.lmdb"
    folder.mkdir()
    for role in ("lq", "gt"):
        write_basicsr(folder / f"train_{role}.lmdb", pictures, shapes)
    stores = open_stores(tmp_path / "REDS", "train")
    assert stores.sequences == {"000": ("00000000", "00000001"), "001": ("00000001",)}
    for key, picture in pictures.items():
        assert stores.lq.size(key) == (9, 6)
        np.testing.assert_array_equal(stores.gt.read(key, (1, 2, 5, 4)), picture[1:6, 2:6])
    text = capsys.readouterr().err
    assert text.count("meta_info.txt says (80, 60) pixels (h, w), the picture has (9, 6), which is used") == 1


def test_a_turned_png_of_basicsr_has_the_size_that_is_seen(tmp_path: Path) -> None:
    turned = png_chunk(b"eXIf", bytes.fromhex("4d4d002a00000008 0001 0112 0003 00000001 0006 0000 00000000"))
    write_basicsr(tmp_path / "gt.lmdb", {"a": np.zeros((4, 6, 3), np.uint8)}, {"a": "(6,4,3)"}, turned)
    store = LmdbStore(tmp_path / "gt.lmdb")
    assert store.size("a") == store.read("a").shape[:2] == (6, 4)
    verdict = verify_lmdb(store)
    assert (verdict.damages, verdict.notes) == ((), ())


def test_flat_basicsr_keys(tmp_path):
    picture = np.full((4, 5, 3), 7, np.uint8)
    write_basicsr(tmp_path / "gt.lmdb", {"baboon": picture}, {"baboon": "(4,5,3)"})
    store = LmdbStore(tmp_path / "gt.lmdb")
    assert list(store.keys()) == ["baboon"]
    np.testing.assert_array_equal(store.read("baboon"), picture)


def test_png_lmdb_has_basicsr_form(tmp_path):
    root = make_tree(tmp_path / "set", splits=("train",), sequences=1, frames=2, size=(8, 12))
    grey = root / "train" / "seq000" / "blur" / "00000001.png"
    cv2.imwrite(str(grey), read_image(grey)[..., 0])
    make_lmdb(root, codec="png")
    made = tmp_path / "set.lmdb" / "train_lq.lmdb"
    assert (made / "meta_info.txt").read_text() == "seq000/00000000.png (8,12,3) 1\nseq000/00000001.png (8,12,1) 1\n"
    (made / "manifest.json").unlink()
    store = LmdbStore(made)
    assert store.manifest is None
    environment = lmdb.open(str(made), readonly=True, lock=False)
    with environment.begin() as transaction:  # the files are copied byte for byte
        assert transaction.stat()["entries"] == 2
        assert transaction.get(b"seq000/00000001") == grey.read_bytes()
    environment.close()
    np.testing.assert_array_equal(store.read("seq000/00000001"), read_image(grey))


def test_other_formats_are_encoded_for_a_png_lmdb(tmp_path):
    root = make_tree(tmp_path / "set", splits=("train",), sequences=1, frames=1, size=(8, 12), ending=".bmp")
    make_lmdb(root, codec="png")
    store = LmdbStore(tmp_path / "set.lmdb" / "train_gt.lmdb")
    picture = root / "train" / "seq000" / "sharp" / "00000000.bmp"
    with store.value("seq000/00000000") as data:
        assert bytes(data) == encode_png(read_image(picture), 1)


def test_damaged_lmdbs_are_refused(tree, tmp_path):
    make_lmdb(tree, splits=["train"])
    folder = tmp_path / "tree.lmdb" / "train_lq.lmdb"

    def message() -> str:
        with pytest.raises(DataError) as caught:
            LmdbStore(folder).read("seq001/00000006")
        return str(caught.value)

    whole = (folder / "data.mdb").read_bytes()
    (folder / "data.mdb").write_bytes(whole[: len(whole) // 2])
    assert "is cut off" in message()
    (folder / "data.mdb").write_bytes(b"no database" * 1000)
    assert "cannot be opened" in message()
    (folder / "data.mdb").write_bytes(whole)
    manifest = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(manifest.replace("00000006", "00000016"))
    assert "seq001/00000006" in LmdbStore(folder).place("seq001/00000006")
    with pytest.raises(DataError, match="seq001/00000016: there is no such entry"):
        LmdbStore(folder).read("seq001/00000016")
    (folder / "manifest.json").write_text(manifest.replace("40", "41"))
    assert "seq001/00000006: has 2880 bytes" in message()
    (folder / "manifest.json").write_text(manifest.replace("deblurkit-lmdb/1", "deblurkit-lmdb/9"))
    assert "this version of deblurkit reads deblurkit-lmdb/1" in message()
    (folder / "manifest.json").write_text(manifest[:200])
    assert "manifest.json: is damaged" in message()
    (folder / "manifest.json").unlink()
    assert "has neither manifest.json nor meta_info.txt" in message()
    (folder / "meta_info.txt").write_text("nothing of use\n")
    assert "line 1: is not of the form" in message()


@pytest.mark.parametrize("form", ["raw", "tiled", "png"])
@pytest.mark.parametrize("kind", ["branch", "leaf"])
def test_a_corrupt_page_is_told_and_does_not_end_the_process(tmp_path, form, kind):
    root = make_tree(tmp_path / "set", splits=("train",), sequences=1, frames=130, size=(24, 40))
    path = make_lmdb(root, **FORMS[form])[0]
    store = LmdbStore(path)
    expected = {key: store.read(key) for key in store.keys()}  # noqa: SIM118
    close(path.resolve())
    data = bytearray((path / "data.mdb").read_bytes())
    flag = {"branch": 1, "leaf": 2}[kind]
    page = next(p for p in range(0, len(data), 4096) if int.from_bytes(data[p + 10 : p + 12], "little") == flag)
    data[page : page + 4096] = np.random.default_rng(0).bytes(4096)
    (path / "data.mdb").write_bytes(data)
    messages = []
    for key, pixels in expected.items():
        try:
            np.testing.assert_array_equal(store.read(key), pixels)
        except DataError as error:
            messages.append((f"{path}: {key}: cannot be read: ", str(error)))
    assert all(message.startswith(start) for start, message in messages)
    assert messages
    assert kind == "leaf" or len(messages) == len(expected)
    assert len(verify_lmdb(store).damages) == len(messages)
    close(path.resolve())


def test_a_file_that_vanishes_is_named(tree):
    stores = open_stores(tree, "train")
    path = tree / "train" / "seq000" / "blur" / "00000001.png"
    path.unlink()
    for ask in (stores.lq.size, stores.lq.read):
        with pytest.raises(DataError, match=f"{path}: cannot be read: No such file"):
            ask("seq000/00000001")
    write_image(path, np.zeros((4, 4, 3), np.uint8))
    assert stores.lq.size("seq000/00000001") == (4, 4)
