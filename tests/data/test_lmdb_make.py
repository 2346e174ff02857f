from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from deblurkit.data import lmdb_writer
from deblurkit.data.lmdb_make import make_lmdb
from deblurkit.data.lmdb_store import LmdbStore, close
from deblurkit.errors import DataError
from deblurkit.image_io import encode_png, read_image
from tests.support.trees import make_tree

# `deblurkit` with commits after every few frames, and so slow that a test can stop it on its way
SLOW = """
import sys, time
from deblurkit.cli import main
from deblurkit.data import lmdb_make, lmdb_writer
lmdb_writer.BATCH_BYTES = 8192
load = lmdb_make._load_file
def slow(*arguments):
    time.sleep(0.02)
    return load(*arguments)
lmdb_make._load_file = slow
main()
"""


def contents(root: Path) -> dict[str, object]:
    """Manifests and values of all LMDBs under a `ROOT.lmdb`."""
    found: dict[str, object] = {}
    for path in sorted(root.iterdir()):
        found[path.name] = json.loads((path / "manifest.json").read_text())
        store = LmdbStore(path)
        for key in store.keys():  # noqa: SIM118
            with store.value(key) as data:
                found[f"{path.name}:{key}"] = bytes(data)
    return found


def start_slow(tree: Path) -> subprocess.Popen[str]:
    """`lmdb make`, stopped by the caller, once the journal has a few entries."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, "lmdb", "make", str(tree), "--split", "train", "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = tree.with_name(f"{tree.name}.lmdb") / "train_gt.lmdb.partial" / "journal.jsonl"
    deadline = time.monotonic() + 60
    while not journal.is_file() or journal.read_text().count("\n") < 5:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.fixture
def long_tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "long", splits=("train",), frames=(20, 20), size=(24, 40))


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_a_stopped_run_is_continued(long_tree, tmp_path, capsys, sent, code):
    process = start_slow(long_tree)
    process.send_signal(sent)
    _, text = process.communicate(timeout=60)
    assert process.returncode == code
    made = tmp_path / "long.lmdb"
    assert {path.name for path in made.iterdir()} == {"train_lq.lmdb.partial", "train_gt.lmdb.partial"}
    if sent == signal.SIGINT:
        assert "what is finished is kept; the same command goes on from there" in text
        assert "Traceback" not in text
    make_lmdb(long_tree)
    messages = capsys.readouterr().err
    assert "continuing an interrupted run" in messages
    assert "40 of 40 pairs" not in messages
    unbroken = tmp_path / "unbroken.lmdb"
    make_lmdb(long_tree, output=unbroken)
    assert contents(made) == contents(unbroken)
    assert {path.name for path in (made / "train_lq.lmdb").iterdir()} == {"data.mdb", "manifest.json"}


def test_what_changed_since_the_interruption_is_made_again(long_tree, tmp_path, capsys):
    process = start_slow(long_tree)
    process.kill()
    process.communicate()
    partial = tmp_path / "long.lmdb" / "train_lq.lmdb.partial"
    journal = (partial / "journal.jsonl").read_text()
    first = json.loads(journal.splitlines()[1])["key"]
    assert first == "seq000/00000000"
    source = long_tree / "train" / "seq000" / "blur" / "00000000.png"
    source.write_bytes(encode_png(255 - read_image(source)))
    gone = [long_tree / "train" / "seq000" / kind / "00000001.png" for kind in ("blur", "sharp")]
    for path in gone:
        path.unlink()
    spoilt = journal.splitlines(keepends=True)
    spoilt[3] = spoilt[3][:20]  # runs into the next line, as after a full disk
    (partial / "journal.jsonl").write_text("".join(spoilt) + '{"key": "seq000/0000')
    make_lmdb(long_tree)
    made = LmdbStore(tmp_path / "long.lmdb" / "train_lq.lmdb")
    np.testing.assert_array_equal(made.read("seq000/00000000"), read_image(source))
    assert "00000001" not in made.sequences["seq000"]
    assert contents(tmp_path / "long.lmdb") == contents_of_new(long_tree, tmp_path)


def contents_of_new(tree: Path, folder: Path) -> dict[str, object]:
    make_lmdb(tree, output=folder / "new.lmdb")
    return contents(folder / "new.lmdb")


def test_a_partial_one_of_other_settings_is_begun_again(long_tree, tmp_path, capsys):
    process = start_slow(long_tree)
    process.kill()
    process.communicate()
    make_lmdb(long_tree, codec="png")
    assert "was begun with other settings; starting again" in capsys.readouterr().err
    assert LmdbStore(tmp_path / "long.lmdb" / "train_lq.lmdb").codec == "png"


def test_two_at_a_time_are_refused(long_tree):
    process = start_slow(long_tree)
    try:
        with pytest.raises(DataError, match="another `lmdb make` is at work on it"):
            make_lmdb(long_tree)
    finally:
        process.kill()
        process.communicate()


def test_the_map_grows_and_a_full_disk_leaves_nothing_whole(tree, tmp_path, monkeypatch, cli):
    monkeypatch.setattr(lmdb_writer, "BATCH_BYTES", 8192)
    make_lmdb(tree, splits=["train"])
    assert (tmp_path / "tree.lmdb" / "train_lq.lmdb" / "data.mdb").stat().st_size > 4 * 8192

    script = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000)){SLOW}"
    ended = subprocess.run(
        [sys.executable, "-c", script, "lmdb", "make", str(tree), "--split", "test"], capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert "test_lq.lmdb.partial: cannot be written" in ended.stderr
    assert "give the same command again" in ended.stderr
    assert "Traceback" not in ended.stderr
    names = {path.name for path in (tmp_path / "tree.lmdb").iterdir()}
    assert not names & {"test_lq.lmdb", "test_gt.lmdb"}
    code, _, text = cli("lmdb", "make", tree, "--split", "test")
    assert code == 0
    assert "continuing an interrupted run" in text


def test_command_line(tree, tmp_path, cli):
    code, out, text = cli("lmdb", "make", tree, "--workers", 2)
    made = [f"{tmp_path}/tree.lmdb/{split}_{role}.lmdb" for split in ("test", "train") for role in ("lq", "gt")]
    assert (code, out.split()) == (0, made)
    assert "12 of 12 pairs" in text

    code, out, text = cli("prepare-lmdb", tree, "--split", "train")
    assert code == 0
    assert text.count("is up to date") == 2

    for path in (tree, tmp_path / "tree.lmdb"):
        code, out, _ = cli("lmdb", "info", path)
        assert code == 0
        assert "40x24 uint8" in out
        assert LmdbStore(made[2]).fingerprint() in out
        assert out.count("unchanged") == 4
    code, out, _ = cli("lmdb", "verify", made[0])
    assert (code, out) == (0, f"{made[0]}: 12 entries, all whole\n")

    os.utime(tree / "train" / "seq000" / "sharp" / "00000000.png", ns=(5, 5))
    assert cli("lmdb", "info", tree)[1].count("changed") == 4
    assert cli("lmdb", "info", tree)[1].count("unchanged") == 3
    code, _, text = cli("lmdb", "make", tree)
    assert code == 2
    assert "train_gt.lmdb: does not match the files any more; --force makes it again" in text
    assert cli("lmdb", "make", tree, "--force")[0] == 0
    assert cli("lmdb", "info", tree)[1].count("unchanged") == 4
    code, _, text = cli("lmdb", "make", tree, "--codec", "png")
    assert code == 2
    assert "test_lq.lmdb: has codec raw, not png; --force makes it again" in text


def test_one_missing_half_is_made_beside_the_other(tree, tmp_path, capsys):
    make_lmdb(tree, splits=["train"])
    before = contents(tmp_path / "tree.lmdb")
    path = tmp_path / "tree.lmdb" / "train_gt.lmdb"
    close(path)
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    make_lmdb(tree, splits=["train"])
    assert contents(tmp_path / "tree.lmdb") == before
    assert "train_lq.lmdb: is up to date" in capsys.readouterr().err


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace_by_text(path: Path) -> None:
    path.write_text("no picture")


def shrink(path: Path) -> None:
    path.write_bytes(encode_png(read_image(path)[:20]))


def deepen(path: Path) -> None:
    path.write_bytes(encode_png(read_image(path).astype(np.uint16) * 257))


@pytest.mark.parametrize("codec", ["raw", "png", "tiled"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "{0}: is cut off ("),
        (flip_a_byte, "{0}: is damaged (wrong checksum"),
        (replace_by_text, "{0}: is not a picture that can be decoded"),
        (shrink, "{0}: is 40x20 uint8, but "),
        (deepen, "{0}: is 40x24 uint16, but "),
        (Path.unlink, "have no partner in"),
    ],
)
def test_bad_pictures_are_named(tree, tmp_path, cli, codec, spoil, message):
    path = tree / "train" / "seq001" / "sharp" / "00000004.png"
    spoil(path)
    code, out, text = cli("lmdb", "make", tree, "--split", "train", "--codec", codec)
    assert code == 2
    assert not out
    (line,) = [line for line in text.splitlines() if line.startswith("error:")]
    assert message.format(path) in line
    if spoil is not Path.unlink:
        assert not {p.name for p in (tmp_path / "tree.lmdb").iterdir()} & {"train_lq.lmdb", "train_gt.lmdb"}


@pytest.mark.parametrize("kind", ["blur", "sharp"])
def test_sequences_of_unequal_length_are_refused(tree, tmp_path, cli, kind):
    for path in sorted((tree / "train" / "seq001" / kind).iterdir())[4:]:
        path.unlink()
    code, out, text = cli("lmdb", "make", tree, "--split", "train")
    assert (code, out) == (2, "")
    assert "seq001" in text
    assert "3 of 7 frames have no partner in" in text
    assert not (tmp_path / "tree.lmdb").exists()


def test_partners_of_different_size_are_named_both(tree, cli):
    for path in (tree / "test" / "seq000" / "blur").iterdir():
        shrink(path)
    code, _, text = cli("lmdb", "make", tree)
    folder = tree / "test" / "seq000"
    assert code == 2
    assert f"{folder}/sharp/00000000.png: is 40x24 uint8, but its partner {folder}/blur/00000000.png is 40x20" in text


def test_names_that_do_not_fit_into_keys(tree, cli):
    for kind in ("blur", "sharp"):
        path = tree / "train" / "seq000" / kind / "00000000.png"
        path.rename(path.with_name("a.b.png"))
    assert cli("lmdb", "make", tree)[0] == 0
    code, _, text = cli("lmdb", "make", tree, "--codec", "png", "-o", tree.with_name("png.lmdb"))
    assert code == 2
    assert "'seq000/a.b' has a dot" in text


@pytest.mark.parametrize("command", ["make", "info", "verify"])
def test_wrong_paths(tmp_path, cli, command):
    code, _, text = cli("lmdb", command, tmp_path / "nowhere")
    assert code == 2
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_verify_names_every_damaged_entry(tree, tmp_path, cli):
    make_lmdb(tree, splits=["train"])
    path = tmp_path / "tree.lmdb" / "train_gt.lmdb"
    store = LmdbStore(path)
    data = bytearray((path / "data.mdb").read_bytes())
    for key in ("seq000/00000003", "seq001/00000006"):
        with store.value(key) as value:
            at = data.find(bytes(value))
        data[at + 100] ^= 0x10
    close(path)
    (path / "data.mdb").write_bytes(data)
    code, out, text = cli("lmdb", "verify", tree)
    assert code == 2
    assert f"{path}: 12 entries, 2 damaged" in out
    assert f"{tmp_path}/tree.lmdb/train_lq.lmdb: 12 entries, all whole" in out
    assert f"{path}: seq000/00000003: its bytes have changed (wrong checksum)" in text
    assert f"{path}: seq001/00000006: its bytes have changed" in text
    assert "2 entries are damaged: make the LMDB again (--force)" in text
    close(path)


def test_verify_of_basicsr_form(tree, tmp_path, cli):
    make_lmdb(tree, splits=["train"], codec="png")
    path = tmp_path / "tree.lmdb" / "train_gt.lmdb"
    (path / "manifest.json").unlink()
    assert "png, BasicSR" in cli("lmdb", "info", tree)[1]
    meta = (path / "meta_info.txt").read_text()
    (path / "meta_info.txt").write_text(meta.replace("(24,40,3)", "(80,60,3)", 1) + "seq009/00000000.png (24,40,3) 1\n")
    code, out, text = cli("lmdb", "verify", path)
    assert code == 2
    assert "meta_info.txt says (80, 60) pixels (h, w), the picture has (24, 40)" in text
    assert "seq009/00000000: there is no such entry" in text
    assert "13 entries, 1 damaged" in out
