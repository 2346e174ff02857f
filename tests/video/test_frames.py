from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deblurkit.errors import DataError, DeblurkitError, VideoError
from deblurkit.image_io import encode_png, read_image, write_image
from deblurkit.still import Still
from deblurkit.video.frames import FolderSink, PictureSink, PictureSource, open_source
from deblurkit.video.reader import VideoReader
from deblurkit.video.source import FrameSource
from tests.support.videos import pictures, write_video


def test_the_content_decides_not_the_ending(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", pictures(2)).rename(tmp_path / "video.png")
    (tmp_path / "picture.mp4").write_bytes(encode_png(pictures(1)[0]))
    assert isinstance(open_source(tmp_path / "video.png"), VideoReader)
    source = open_source(tmp_path / "picture.mp4")
    assert isinstance(source, PictureSource)
    assert isinstance(source, FrameSource)
    np.testing.assert_array_equal(next(iter(source)), pictures(1)[0])


def test_a_folder_is_its_pictures_in_natural_order(tmp_path: Path) -> None:
    for number, picture in zip((10, 2, 1), pictures(3), strict=True):
        write_image(tmp_path / f"{number}.png", picture)
    (tmp_path / "notes.txt").write_text("x")
    source = open_source(tmp_path)
    assert isinstance(source, PictureSource)
    assert source.length == 3
    assert [still.name for _, still in source.stamped()] == ["1.png", "2.png", "10.png"]


def test_what_cannot_be_opened_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name, kind in (("text.mp4", VideoError), ("empty.png", DataError), ("folder", DataError), ("none", DataError)):
        with pytest.raises(kind) as caught:
            open_source(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_sinks_write_what_they_are_given(tmp_path: Path, dtype: type) -> None:
    frames = pictures(2, dtype=dtype)
    with PictureSink(tmp_path / "one.png") as sink:
        sink.write(frames[0], Still("one.png"))
    with FolderSink(tmp_path / "many") as folder:
        folder.write(frames[0], Still("a.png"))
        folder.write(frames[1], Still("b.png"))
        assert not (tmp_path / "many").exists()
    for path, frame in (("one.png", frames[0]), ("many/a.png", frames[0]), ("many/b.png", frames[1])):
        np.testing.assert_array_equal(read_image(tmp_path / path), frame)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["many", "one.png"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def interrupted() -> None:
        with FolderSink(tmp_path / "many") as folder:
            folder.write(pictures(1)[0], Still("a.png"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_an_older_result_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    old = tmp_path / "many"
    old.mkdir()
    write_image(old / "old.png", pictures(1)[0])
    with FolderSink(old, replace=True) as folder:
        folder.write(pictures(1)[0], Still("new.png"))
    assert [p.name for p in old.iterdir()] == ["new.png"]
    assert [p.name for p in tmp_path.iterdir()] == ["many"]
    (old / "thesis.txt").write_text("precious")
    for replace in (True, False):
        with pytest.raises(DataError, match="exists"):
            FolderSink(old, replace)


def test_a_frame_that_cannot_be_written_ends_the_folder(tmp_path: Path) -> None:
    def one_too_wide() -> None:
        with FolderSink(tmp_path / "many") as folder:
            for number, picture in enumerate(pictures(12)):
                folder.write(picture if number != 11 else np.zeros((8, 8, 4), np.uint8), Still(f"{number}.png"))

    with pytest.raises(DataError, match=r"11\.png: \(H, W, 3\) pixels"):
        one_too_wide()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_of_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        return own(Path("/dev/full"), data) if "000003" in path.name else own(path, data)

    def write() -> None:
        with FolderSink(tmp_path / "many") as folder:
            for number, picture in enumerate(pictures(5)):
                folder.write(picture, Still(f"{number:06d}.png"))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DeblurkitError) as caught:
        write()
    assert str(caught.value) == f"{tmp_path / 'many' / '000003.png'}: cannot be written: No space left on device"
    assert not list(tmp_path.iterdir())


def test_two_frames_of_one_name(tmp_path: Path) -> None:
    def twice() -> None:
        with FolderSink(tmp_path / "many", ending=".jpg") as folder:
            for name in ("a.png", "a.tif"):
                folder.write(pictures(1)[0], Still(name))

    with pytest.raises(DataError, match=r"two frames would be called a\.jpg"):
        twice()
    assert not list(tmp_path.iterdir())


def test_a_damaged_picture_comes_in_its_turn(tmp_path: Path) -> None:
    for number, picture in enumerate(pictures(9)):
        write_image(tmp_path / f"{number}.png", picture)
    (tmp_path / "5.png").write_bytes((tmp_path / "5.png").read_bytes()[:200])
    frames, seen = iter(open_source(tmp_path)), []
    with pytest.raises(DataError, match=r"5\.png: is cut off"):
        seen.extend(frames)
    assert len(seen) == 5


def test_a_picture_needs_a_pictures_ending(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pictures are written as"):
        PictureSink(tmp_path / "a.mp4")
