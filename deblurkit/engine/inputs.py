"""What the inputs of `infer` stand for: files, folders, patterns, and standard input."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from deblurkit.errors import DataError, DeblurkitError
from deblurkit.image_io import natural_key

#: The name of standard input and standard output.
PIPE = "-"

#: Begins the name of the temporary folder that holds a copy of what came through a pipe.
_COPY = "deblurkit-input-"

_ENDINGS = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
    b"BM": ".bmp",
    b"GIF8": ".gif",
    b"\x1a\x45\xdf\xa3": ".mkv",
}


def expand(inputs: Sequence[str]) -> Iterator[Path]:
    """The files that inputs stand for; a pattern gives its matches in natural order.

    Raises:
        DataError: a pattern matches nothing, a folder on the way cannot be read, or there are no inputs.
    """
    if not inputs:
        raise DataError("no input: name videos, pictures, folders of frames or patterns")
    for name in inputs:
        path = Path(name)
        try:
            if name == PIPE or path.exists() or not any(sign in name for sign in "*?["):
                yield path
                continue
            matches = _matches(path)
        except OSError as error:
            raise DataError(f"{name}: cannot be read: {error.strerror or error}") from None
        if not matches:
            raise DataError(f"{name}: matches no file")
        yield from matches


def _matches(pattern: Path) -> list[Path]:
    """As a shell has it: what begins with a dot only where the pattern says so."""
    folder = Path(pattern.anchor)
    found = sorted(folder.glob(str(pattern.relative_to(folder))), key=lambda match: natural_key(str(match)))
    if any(part.startswith(".") and part.strip(".") for part in pattern.parts):
        return found
    return [match for match in found if not any(part.startswith(".") and part.strip(".") for part in match.parts)]


def without_results(paths: Sequence[Path], marks: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Inputs, and those among them that are results of others, from an earlier run beside them (`*.mp4` finds both).

    Args:
        marks: what the names of results end with.
    """
    sources = {(path.parent, path.stem) for path in paths}

    def is_result(path: Path) -> bool:
        return any(
            path.stem.endswith(mark) and (path.parent, path.stem.removesuffix(mark)) in sources for mark in marks
        )

    results = [path for path in paths if is_result(path)]
    return [path for path in paths if path not in results], results


def is_pipe(path: Path) -> bool:
    """True for a pipe that has a name."""
    try:
        return path.is_fifo()
    except OSError:  # what opens it says what is wrong
        return False


@contextlib.contextmanager
def named_pipe(path: Path) -> Iterator[Path]:
    """A file with what comes through a pipe that has a name (`<(program)`); it is removed again.

    Raises:
        DataError: it cannot be read. DeblurkitError: no room for the copy.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    with stream, _copied(stream, str(path)) as copy:
        yield copy


def is_copy(path: Path) -> bool:
    """True for the copy of what came through a pipe: no place for a result."""
    return path.parent.name.startswith(_COPY)


@contextlib.contextmanager
def standard_input() -> Iterator[Path]:
    """A file with what standard input holds: itself where it is one (`< video.mp4`), else a copy that is removed again.

    Videos are read more than once and out of order, which a pipe does not allow.

    Raises:
        DataError: standard input is a terminal or empty. DeblurkitError: no room for the copy.
    """
    stream = sys.stdin.buffer
    if stream.isatty():
        raise DataError("-: standard input is a terminal; pipe a video or a picture into it")
    file = _file_behind(stream)
    if file is not None:
        yield file
        return
    with _copied(stream, PIPE) as path:
        yield path


@contextlib.contextmanager
def _copied(stream: BinaryIO, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=_COPY) as folder:
        head = stream.read(64)
        path = Path(folder) / f"stdin{_ending(head)}"
        try:
            with path.open("wb") as copy:
                copy.write(head)
                shutil.copyfileobj(stream, copy, 1 << 20)
        except OSError as error:
            reason = f"{error.strerror or error}; set TMPDIR to a folder with more room"
            raise DeblurkitError(f"{name}: cannot be kept in {folder}: {reason}") from error
        yield path


def _file_behind(stream: BinaryIO) -> Path | None:
    """The regular file that a stream reads from its beginning, where the system can name it (Linux)."""
    try:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode) or stream.tell() != 0:
            return None
        path = Path(f"/proc/self/fd/{stream.fileno()}").readlink()
        return path if os.path.samestat(path.stat(), status) else None
    except (OSError, ValueError):
        return None


def _ending(head: bytes) -> str:
    """A file ending by the first bytes, for the name of the result; "" where they tell nothing."""
    if head[4:8] == b"ftyp":
        return ".mp4"
    if head[:4] == b"RIFF":
        return {b"WEBP": ".webp", b"AVI ": ".avi"}.get(head[8:12], "")
    return next((ending for start, ending in _ENDINGS.items() if head.startswith(start)), "")
