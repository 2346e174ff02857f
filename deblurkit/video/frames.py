"""What can be restored, and where results go: videos, single pictures, folders of frames."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from deblurkit.errors import DataError
from deblurkit.files import sync
from deblurkit.image_io import IMAGE_ENDINGS, Pixels, is_image, list_images, read_image, write_image
from deblurkit.video.probe import kind_of, read_head

if TYPE_CHECKING:
    from deblurkit.video.reader import VideoReader


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

    def stamped(self) -> Iterator[tuple[Pixels, str]]:
        """The pictures in order, each with its file name."""
        for file in self.files:
            yield read_image(file), file.name


def open_source(path: str | Path) -> VideoReader | PictureSource:
    """The frames behind a path: a folder's pictures, a picture, or a video; the content decides, not the ending.

    Raises:
        DataError: the path does not exist, or a folder holds no pictures. VideoError: neither picture nor video.
    """
    path = Path(path)
    if path.is_dir():
        files = list_images(path)
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
        target: the file; its ending decides the format.
    """

    def __init__(self, target: Path) -> None:
        if not is_image(target):
            raise DataError(f"{target}: pictures are written as {', '.join(IMAGE_ENDINGS)}")
        self.target = target

    def __enter__(self) -> PictureSink:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def write(self, pixels: Pixels, stamp: object = None) -> None:
        """Write `(H, W, 3)` pixels; the file appears whole."""
        write_image(self.target, pixels)


class FolderSink:
    """Writes frames into a folder that appears under its name only when the block ends well.

    Args:
        target: the folder. replace: an older result of that name is replaced at the end; it may hold pictures only.

    Raises:
        DataError: the folder to be replaced holds something else than pictures.
    """

    def __init__(self, target: Path, replace: bool = False) -> None:
        if target.exists() and (not replace or not target.is_dir() or any(not is_image(p) for p in target.iterdir())):
            raise DataError(f"{target}: exists and holds more than pictures; choose another name with -o")
        self.target = target

    def __enter__(self) -> FolderSink:
        with _writable(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=f".{self.target.name}-", dir=self.target.parent))
        return self

    def write(self, pixels: Pixels, stamp: str) -> None:
        """Write `(H, W, 3)` pixels under the file name `stamp`."""
        write_image(self._folder / stamp, pixels)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with _writable(self.target):
                    self._publish()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _publish(self) -> None:
        self._folder.chmod(0o777 & ~_umask())
        if self.target.exists():
            aside = self._folder.with_name(self._folder.name + "-old")
            self.target.rename(aside)
            self._folder.rename(self.target)
            shutil.rmtree(aside)
        else:
            self._folder.rename(self.target)
        sync(self.target.parent)


@contextlib.contextmanager
def _writable(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
