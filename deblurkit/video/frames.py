"""What can be restored, and where results go: videos, single pictures, folders of frames."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from deblurkit.console import warn
from deblurkit.errors import DataError
from deblurkit.files import atomic_folder
from deblurkit.image_io import IMAGE_ENDINGS, Pixels, is_image, list_images
from deblurkit.pool import Behind, cores, ordered
from deblurkit.still import Still, encode_still, lost, read_still, write_still
from deblurkit.video.probe import kind_of, read_head

if TYPE_CHECKING:
    from deblurkit.video.reader import Timing, VideoReader

#: More pictures than these at a time would be kept in memory.
_MOST_THREADS = 4


class PictureSource:
    """Pictures as frames: one picture, or those of a folder in the order of their names.

    Args:
        path: the picture or the folder, for messages. files: the pictures.
    """

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.path, self.name, self.files = path, path.name, files

    @property
    def length(self) -> int:
        """Number of pictures."""
        return len(self.files)

    def __iter__(self) -> Iterator[Pixels]:
        """Read the pictures in order, `(H, W, 3)` RGB.

        Raises:
            DataError: a file is damaged.
        """
        for pixels, _ in self.stamped():
            yield pixels

    def stamped(self) -> Iterator[tuple[Pixels, Still]]:
        """The pictures in order, each with its file name and what else it has beside its pixels.

        What is not kept of them is named for the first one that it concerns.
        """
        said: set[str] = set()
        with contextlib.closing(ordered(read_still, self.files, _threads())) as stills:
            for file, (pixels, still) in zip(self.files, stills, strict=True):
                _tell(file, still.notes, said)
                yield pixels, still


def open_source(path: str | Path) -> VideoReader | PictureSource:
    """The frames behind a path: a folder's pictures, a picture, or a video; the content decides, not the ending.

    Raises:
        DataError: the path does not exist, cannot be read, or a folder holds no pictures. VideoError: neither picture
            nor video.
    """
    path = Path(path)
    if path.is_dir():
        try:
            files = list_images(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
        if not files:
            raise DataError(
                f"{path}: holds no pictures ({', '.join(IMAGE_ENDINGS)}); a folder is taken as the frames of one "
                "sequence, videos in it are named one by one or as FOLDER/*.mp4"
            )
        return PictureSource(path, files)
    if kind_of(read_head(path)) == "picture":
        return PictureSource(path, [path])

    from deblurkit.video.reader import VideoReader

    return VideoReader(path)


class PictureSink:
    """Writes the one frame of a picture.

    Args:
        target: the file; its ending decides the format. lossless: WebP keeps every value too.
        into: where the bytes go instead: a pipe.

    Raises:
        DataError: the ending is not a picture format.
    """

    def __init__(self, target: Path, lossless: bool = False, into: BinaryIO | None = None) -> None:
        if target.suffix.lower() not in IMAGE_ENDINGS:
            raise DataError(f"{target}: pictures are written as {', '.join(IMAGE_ENDINGS)}")
        self.target, self._lossless, self._into = target, lossless, into

    def __enter__(self) -> PictureSink:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def write(self, pixels: Pixels, still: Still) -> None:
        """Write `(H, W, 3)` pixels and what their source had besides; the file appears whole."""
        _tell(self.target, lost(still, pixels, self.target), set())
        if self._into is None:
            write_still(self.target, pixels, still, self._lossless)
        else:
            self._into.write(encode_still(self.target, pixels, still, self._lossless))
            self._into.flush()


class FolderSink:
    """Writes frames into a folder that appears under its name only when the block ends well.

    Args:
        target: the folder. replace: an older result of that name is replaced at the end; it may hold pictures only.
        ending: of the files, such as `.png`; None: as their sources. lossless: WebP keeps every value too.

    Raises:
        DataError: the folder to be replaced holds something else than pictures.
    """

    def __init__(self, target: Path, replace: bool = False, ending: str | None = None, lossless: bool = False) -> None:
        if target.exists() and (not replace or not target.is_dir() or any(not is_image(p) for p in target.iterdir())):
            raise DataError(f"{target}: exists and holds more than pictures; choose another name with -o")
        self.target, self._ending, self._lossless = target, ending, lossless
        self._count = 0
        self._names: set[str] = set()
        self._said: set[str] = set()

    def __enter__(self) -> FolderSink:
        with contextlib.ExitStack() as stack:
            self._folder = stack.enter_context(atomic_folder(self.target))
            self._writing = Behind(_threads())
            stack.callback(self._writing.close)
            stack.push(self._end)
            self._resources = stack.pop_all()
        return self

    def write(self, pixels: Pixels, stamp: Still | Timing) -> None:
        """Write `(H, W, 3)` pixels, under the name of their source or, for a video, under their number.

        Threads encode several pictures at a time; an error is raised at one of the next calls, or at the end.
        """
        if not isinstance(stamp, Still):
            stamp = Still(f"{self._count:06d}{self._ending or '.png'}", stamp.alpha)
        elif self._ending:
            stamp = replace(stamp, name=str(Path(stamp.name).with_suffix(self._ending)))
        path = self.target / stamp.name
        if stamp.name in self._names:
            raise DataError(f"{self.target}: two frames would be called {stamp.name}")
        self._names.add(stamp.name)
        _tell(path, lost(stamp, pixels, path), self._said)
        self._writing.call(write_still, self._folder / stamp.name, pixels, stamp, self._lossless, path)
        self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.__exit__(kind, error, trace)

    def _end(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self._writing.finish()


def _threads() -> int:
    """Threads that read or write the pictures of a folder; OpenCV takes one core for each picture."""
    return min(cores(), _MOST_THREADS)


def _tell(path: Path, notes: Iterable[str], said: set[str]) -> None:
    """Warn of each thing once; `said` holds what was."""
    for note in notes:
        if note not in said:
            said.add(note)
            warn(f"{path}: {note}")
