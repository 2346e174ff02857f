"""Writing files so that a name always stands for a whole file: temporary file, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deblurkit.errors import DeblurkitError

#: No space, quota, file size limit, device error: about the disk, whatever was being written.
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}

#: Endings are kept in temporary names up to this number of characters; no format has a longer one.
_ENDING = 16


@contextlib.contextmanager
def atomic_path(target: str | Path, shown: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `target`; when the block ends well it is synced and renamed to `target`.

    The temporary file keeps the ending of `target` (encoders look at it). When the block raises, it is removed and
    `target` stays as it was.

    Args:
        shown: what messages call the file, where it lies in a folder that will have another name (`atomic_folder`).

    Raises:
        DeblurkitError: the folder cannot be written, or the disk is full.
    """
    target = Path(target)
    shown, temporary = shown or target, _hidden_beside(target)
    with _explained(shown):
        _make_parent(target)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        try:
            yield temporary
        except OSError as error:  # the block may also read: only what is about this file or its disk is ours to explain
            if error.errno in _DISK_ERRORS or error.filename == str(temporary):
                raise _not_written(shown, error) from error
            raise
        with _explained(shown):
            sync(temporary)
            temporary.replace(target)
            sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`; when the block ends well it takes the name, and an older folder's place.

    When the block raises, it is removed with all that is in it, and `target` stays as it was.

    Raises:
        DeblurkitError: the folder above cannot be written.
    """
    folder = _hidden_beside(target)
    with _explained(target):
        _make_parent(target)
        folder.mkdir()
    try:
        yield folder
        with _explained(target):
            if target.exists():
                aside = folder.with_name(folder.name + "-old")
                target.rename(aside)
                folder.rename(target)
                shutil.rmtree(aside)
            else:
                folder.rename(target)
            sync(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what `atomic_path` leaves in a folder when the process is killed within the block."""
    for path in folder.glob(".*"):
        if re.fullmatch(r"\..+-[0-9a-f]{8}(\.\w+)?", path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _hidden_beside(target: Path) -> Path:
    """A new name in the same folder. (Names may have 255 bytes, of which a character takes up to 4.)"""
    ending = target.suffix if len(target.suffix) <= _ENDING else ""
    return target.with_name(f".{target.stem[:40]}-{secrets.token_hex(4)}{ending}")


def _make_parent(target: Path) -> None:
    """Make the folder that `target` lies in."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        file = next((parent for parent in target.parents if parent.is_file()), None)
        if file is None:
            raise
        raise DeblurkitError(
            f"{target}: cannot be written: {file} is a file, not a folder; choose another place"
        ) from None


@contextlib.contextmanager
def _explained(target: Path) -> Iterator[None]:
    """What the operating system says of `target`, as an error for the user."""
    try:
        yield
    except OSError as error:
        raise _not_written(target, error) from error


def _not_written(target: Path, error: OSError) -> DeblurkitError:
    return DeblurkitError(f"{target}: cannot be written: {error.strerror or error}")


def sync(path: Path) -> None:
    """Ask the operating system to put a file's bytes (or a folder's entries, where it can) on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(target: str | Path, text: str) -> None:
    """Write `text` (UTF-8) to `target` atomically."""
    with atomic_path(target) as path:
        path.write_text(text, encoding="utf-8")


def write_json(target: str | Path, value: Any) -> None:
    """Write `value` as indented JSON to `target` atomically; NaN and infinity become "nan", "inf", "-inf"."""
    write_text(target, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity; PSNR of identical images is infinite."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
