"""Where the result of an input goes, and as what: a video, a picture, a folder of frames, standard output."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deblurkit.console import say
from deblurkit.engine.inputs import PIPE, is_copy
from deblurkit.errors import DataError
from deblurkit.image_io import IMAGE_ENDINGS
from deblurkit.video.frames import FolderSink, PictureSink, PictureSource

if TYPE_CHECKING:
    from deblurkit.video.reader import VideoReader
    from deblurkit.video.writer import VideoWriter


@dataclass(frozen=True)
class Encoding:
    """How results are written.

    Attributes:
        codec, crf, lossless: see `deblurkit.video.writer.VideoWriter`; a codec of pictures (`png`) makes a folder of
            frames of a video. rate: frames per second of a video that is made of a folder.
    """

    codec: str | None = None
    crf: int | None = None
    lossless: bool = False
    rate: Fraction = Fraction(25)


@dataclass(frozen=True)
class Target:
    """A result to be.

    Attributes:
        path: its name; for standard output one that is only shown. kind: what is made. piped: it goes to standard
            output. ending: of the pictures in a folder; None: as in the source.
    """

    path: Path
    kind: Literal["video", "picture", "folder"]
    piped: bool = False
    ending: str | None = None

    @property
    def page(self) -> Path:
        """Where the page with the slider goes."""
        return (
            self.path.with_name(self.path.name + ".html") if self.kind == "folder" else self.path.with_suffix(".html")
        )

    def exists(self) -> bool:
        """Whether something has its name.

        Raises:
            DataError: nothing can have that name.
        """
        return _exists(self.path)

    def page_exists(self) -> bool:
        """The same for its page."""
        return _exists(self.page)

    def check(self, source: Path, overwrite: bool) -> None:
        """Raise DataError where a file is in the way."""
        if self.piped or not self.exists():
            return
        if source.exists() and self.path.samefile(source):
            raise DataError(f"{self.path}: is the input itself; choose another name with -o")
        if not overwrite:
            raise DataError(f"{self.path}: exists already; use --overwrite to replace it, or another name with -o")
        if self.path.is_dir() != (self.kind == "folder"):
            kind = "folder" if self.path.is_dir() else "file"
            raise DataError(f"{self.path}: exists and is a {kind}; use another name with -o")

    def sink(
        self, source: VideoReader | PictureSource, encoding: Encoding, overwrite: bool, tell: bool = True
    ) -> VideoWriter | PictureSink | FolderSink:
        """What writes the result; a context manager.

        Args:
            tell: say what of a video cannot be carried over.

        Raises:
            DataError, VideoError: the settings do not fit the kind of file.
        """
        into = sys.stdout.buffer if self.piped else None
        if self.kind == "picture":
            return PictureSink(self.path, encoding.lossless, into)
        if self.kind == "folder":
            return FolderSink(self.path, overwrite, self.ending, encoding.lossless)
        from deblurkit.video.writer import VideoWriter

        codec, crf, lossless = encoding.codec, encoding.crf, encoding.lossless
        like = None if isinstance(source, PictureSource) else source
        writer = VideoWriter(self.path, like, rate=encoding.rate, codec=codec, crf=crf, lossless=lossless, into=into)
        if writer.left_out and tell:
            say(f"{source.name}: not carried over: {', '.join(writer.left_out)}")
        return writer


def target_of(
    source: VideoReader | PictureSource, output: str | None, several: bool, encoding: Encoding, mark: str
) -> Target:
    """Where the result of a source goes; says so where it becomes another kind of file.

    Args:
        output: what `-o` says. several: there are more inputs than this one. mark: goes behind the name of the input.

    Raises:
        DataError: several results for one file, or for standard output.
    """
    target = _kind_of_result(source, output, several, encoding)
    path = source.path.resolve() if source.path.name in ("", ".", "..") else source.path
    if output == PIPE:
        return _to_standard_output(target, several)
    if output is None and is_copy(path):
        raise DataError(f"{source.name}: the result of a pipe needs a name: -o FILE, or -o - for standard output")
    if output is not None and _is_name_of_result(target, path, output, several):
        return Target(Path(output), target.kind, False, target.ending)
    name = (path.name if path.is_dir() else path.stem) + mark + target.path.suffix
    made = path.with_name(name) if output is None else Path(output) / name
    if not path.is_dir() and made.suffix != path.suffix.lower() and target.kind != "folder":
        say(f"{source.name}: the result is a {made.suffix} file; {path.suffix or 'its own kind'} cannot hold it")
    return Target(made, target.kind, False, target.ending)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # mostly: a name that is too long
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be written: {reason}; give the result a name with -o") from None


def check_output(output: str | None, inputs: int) -> None:
    """Raise DataError where `-o` names one file, and there are several inputs."""
    from deblurkit.video.codecs import is_file_of_one

    if inputs < 2 or output is None or output == PIPE or output.endswith(("/", "\\")) or Path(output).is_dir():
        return
    if is_file_of_one(Path(output)):
        raise DataError(f"-o {output}: is the name of one file, and there are {inputs} inputs; name a folder")


def _kind_of_result(
    source: VideoReader | PictureSource, output: str | None, several: bool, encoding: Encoding
) -> Target:
    """The kind of result, and the ending that its name gets where the user gives none."""
    from deblurkit.video.codecs import ENCODERS, FORMATS, PICTURE_CODECS

    ending = PICTURE_CODECS.get(encoding.codec or "")
    named = "" if output is None or several or output == PIPE else Path(output).suffix.lower()
    if not isinstance(source, PictureSource):
        frames = ending or (".png" if output is not None and not several and _names_frames(output) else None)
        if frames:
            return Target(Path(), "folder", False, _lossless_ending(frames, encoding))
        from deblurkit.video.writer import result_suffix

        own = Path("x.mkv") if output == PIPE else Path("x" + result_suffix(source, encoding.codec, encoding.lossless))
        return Target(own, "video")
    if source.path.is_dir():
        if named and named not in IMAGE_ENDINGS:
            return Target(Path("x" + named), "video")
        if encoding.codec in ENCODERS or encoding.codec in FORMATS or output == PIPE:
            return Target(Path("x.mkv" if encoding.lossless or output == PIPE else "x.mp4"), "video")
        return Target(Path(), "folder", False, ending)
    own_ending = source.path.suffix.lower() if source.path.suffix.lower() in IMAGE_ENDINGS else ".png"
    return Target(Path("x" + (ending or _lossless_ending(own_ending, encoding))), "picture")


def _lossless_ending(ending: str, encoding: Encoding) -> str:
    return ".png" if encoding.lossless and ending in (".jpg", ".jpeg") else ending


def _names_frames(output: str) -> bool:
    """`-o frames/`: a folder that is not there yet, or that holds the frames of an earlier run."""
    return output.endswith(("/", "\\")) and (not Path(output).exists() or _holds_numbered_frames(Path(output)))


def _holds_numbered_frames(folder: Path) -> bool:
    """Nothing but what `FolderSink` makes of a video; other pictures are not to be replaced by mistake."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return bool(names) and all(re.fullmatch(r"\d{6,}\.(png|tif|jpg|webp|bmp)", name) for name in names)


def _is_name_of_result(target: Target, source: Path, output: str, several: bool) -> bool:
    """False where `-o` names a folder that results go into."""
    if several:
        return False
    path = Path(output)
    if target.kind == "folder":
        return not path.is_dir() or (not source.is_dir() and _holds_numbered_frames(path))
    return not output.endswith(("/", "\\")) and not path.is_dir() and bool(path.suffix)


def _to_standard_output(target: Target, several: bool) -> Target:
    if several:
        raise DataError("-o -: standard output takes the result of one input")
    if sys.stdout.isatty():
        raise DataError("-o -: standard output is a terminal; redirect it to a file or into a program")
    if target.kind == "folder":
        raise DataError("-o -: a folder of frames cannot go to standard output; leave --codec out")
    return Target(Path(f"standard output{target.path.suffix}"), target.kind, True)
