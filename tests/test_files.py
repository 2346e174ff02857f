from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from deblurkit.errors import DeblurkitError
from deblurkit.files import atomic_folder, atomic_path, remove_unfinished, write_json, write_text


def test_a_whole_file_appears_at_once(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("x")
        assert not target.exists()
        assert temporary.parent == target.parent
        assert temporary.suffix == ".txt"
        assert temporary.name.startswith(".")
    assert target.read_text() == "x"
    assert list(target.parent.iterdir()) == [target]


def write_and_fail(target: Path, failure: BaseException) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        raise failure


@pytest.mark.parametrize("failure", [RuntimeError("mine"), KeyboardInterrupt(), FileNotFoundError("elsewhere")])
def test_a_failure_leaves_the_old_file(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(type(failure)) as caught:
        write_and_fail(target, failure)
    assert caught.value is failure  # also an OSError about another file: it is not ours to explain
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_told_of_the_target(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with pytest.raises(DeblurkitError, match=r"a\.txt: cannot be written: No space left"), atomic_path(target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("a.txt", "b/c/a.txt"):
        with pytest.raises(DeblurkitError) as caught:
            write_text(tmp_path / "file" / name, "x")
        reason = f"{tmp_path / 'file'} is a file, not a folder; choose another place"
        assert str(caught.value) == f"{tmp_path / 'file' / name}: cannot be written: {reason}"
        with (
            pytest.raises(DeblurkitError, match="file is a file, not a folder"),
            atomic_folder(tmp_path / "file" / name),
        ):
            pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(DeblurkitError, match="folder: cannot be written: Is a directory"):
        write_text(tmp_path / "folder", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("name", ["n" * 255, "\U0001f600" * 63, "n." + "e" * 253, "n" * 251 + ".txt"])
def test_the_longest_names_can_be_written(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "x")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / name).unlink()
    for text in ("x", "y"):  # new, and in an older one's place
        with atomic_folder(tmp_path / name) as folder:
            write_text(folder / "a.txt", text)
        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert (tmp_path / name / "a.txt").read_text() == text


def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "old.txt", "x")

    def interrupted() -> None:
        with atomic_folder(tmp_path / "a") as folder:
            write_text(folder / "new.txt", "x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["old.txt"]


def test_what_a_killed_process_leaves_is_removed(tmp_path: Path) -> None:
    for name in ("a-b.txt", ".hidden", ".notes-2024.txt", ".a-0123abcd-x.txt"):
        (tmp_path / name).write_text("x")
    with atomic_path(tmp_path / "net_g_3.pth") as left, atomic_path(tmp_path / "no_ending") as other:
        assert left.exists()
        assert other.exists()
        remove_unfinished(tmp_path)
        names = sorted(path.name for path in tmp_path.iterdir())
        left.write_text("whole")
        other.write_text("whole")
    assert names == [".a-0123abcd-x.txt", ".hidden", ".notes-2024.txt", "a-b.txt"]


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "ä→\n")
    assert (tmp_path / "a.txt").read_bytes() == "ä→\n".encode()


def test_json_has_no_nan(tmp_path: Path) -> None:
    values = {"psnr": float("inf"), "list": (1.5, float("nan"), -np.float64("inf")), 3: {"deep": [None, True, "ä"]}}
    write_json(tmp_path / "a.json", values)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "psnr": "inf",
        "list": [1.5, "nan", "-inf"],
        "3": {"deep": [None, True, "ä"]},
    }
    assert text.endswith("}\n")
