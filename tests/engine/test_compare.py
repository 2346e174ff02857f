from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deblurkit.engine import compare
from deblurkit.engine.compare import Comparing, SliderPage, Watched, side_by_side
from deblurkit.engine.infer import Comparison, infer
from deblurkit.engine.restore import Restorer
from deblurkit.errors import DataError
from deblurkit.image_io import decode_image, read_image, write_image
from deblurkit.still import Still
from deblurkit.video.reader import Timing
from tests.support.networks import CopyImage, Enlarge
from tests.support.videos import pictures, write_video


def pairs(page: Path) -> list[dict[str, Any]]:
    """The frames that a page shows, as pixels."""
    [data] = re.findall(r"^const frames = (.*);$", page.read_text(encoding="utf-8"), re.MULTILINE)
    frames: list[dict[str, Any]] = json.loads(data)
    for frame in frames:
        for side in ("before", "after"):
            kind, _, content = frame[side].partition(";base64,")
            assert kind in ("data:image/png", "data:image/jpeg")
            frame[side] = decode_image(base64.b64decode(content), side)
    return frames


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_page_of_a_picture_shows_its_very_pixels(tmp_path: Path, dtype: Any) -> None:
    before, after = pictures(2, dtype=dtype)
    page = SliderPage("a.png")
    page.add(before, after, Still("a.png"))
    page.write(tmp_path / "a.html")
    [frame] = pairs(tmp_path / "a.html")
    assert frame["name"] == "a.png"
    for side, pixels in (("before", before), ("after", after)):
        expected = pixels if dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
        np.testing.assert_array_equal(frame[side], expected)


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    page = SliderPage("<b>&.png")
    page.add(*pictures(2), Still("</script><script>alert(1)"))
    page.write(tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert not re.findall(r"""https?:|//[a-z]+\.|<link|@import|url\(|src=["']""", text)
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;.png" in text
    assert text.count("</script>") == 1
    assert pairs(tmp_path / "a.html")[0]["name"] == "</script><script>alert(1)"


@pytest.mark.parametrize("count", [1, 5, 23, 24, 25, 400])
def test_the_page_of_a_video_holds_some_frames_from_beginning_to_end(tmp_path: Path, count: int) -> None:
    page = SliderPage("a.mp4")
    for index in range(count):
        picture = np.full((16, 16, 3), index * 250 // count, np.uint8)
        page.add(picture, picture, Timing(index, 1))
    page.write(tmp_path / "a.html")
    shown = [int(frame["name"].removeprefix("frame ")) for frame in pairs(tmp_path / "a.html")]
    assert len(shown) == count if count < 24 else 12 <= len(shown) < 24
    assert shown[0] == 0
    assert len(set(np.diff(shown).tolist())) <= 1  # evenly
    assert count - shown[-1] <= max(shown[1], 1) if len(shown) > 1 else count == 1
    for frame, index in zip(pairs(tmp_path / "a.html"), shown, strict=True):
        assert np.abs(frame["before"].astype(int) - index * 250 // count).max() <= 2


def test_large_frames_are_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_PAGE_BYTES", 20_000)
    page = SliderPage("a.mp4")
    for index in range(20):
        noise = np.random.default_rng(index).integers(0, 256, (48, 48, 3), np.uint8)
        page.add(noise, noise, Timing(index, 1))
    page.write(tmp_path / "a.html")
    assert 1 <= len(pairs(tmp_path / "a.html")) < 6
    assert (tmp_path / "a.html").stat().st_size < 40_000


@pytest.mark.parametrize("scale", [1, 2])
def test_side_by_side_has_both_and_a_line(scale: int) -> None:
    before = pictures(1, (32, 48))[0]
    after = pictures(1, (32 * scale, 48 * scale), seed=1)[0]
    both = side_by_side(before, after)
    height, width = after.shape[:2]
    assert both.shape[0] == height
    assert (both.shape[1] - 2 * width) % 2 == 0
    np.testing.assert_array_equal(both[:, -width:], after)
    assert (both[:, width:-width] == 255).all()
    if scale == 1:
        np.testing.assert_array_equal(both[:, :width], before)


def test_watched_frames_come_with_their_stamps() -> None:
    class Source:
        def stamped(self) -> Any:
            yield from ((np.full((2, 2, 3), index, np.uint8), Timing(index, 1)) for index in range(3))

    class Sink:
        def __init__(self) -> None:
            self.got: list[Any] = []

        def write(self, pixels: Any, stamp: Any) -> None:
            self.got.append((int(pixels[0, 0, 0]), stamp))

    sink = Sink()
    comparing = Comparing(sink)
    for pixels, stamp in Watched(Source()).stamped():
        comparing.write(pixels + 10, stamp)
    assert sink.got == [(10, Timing(0, 1)), (11, Timing(1, 1)), (12, Timing(2, 1))]


def test_where_pages_go(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", pictures(1)[0])
    write_video(tmp_path / "b.mp4", pictures(3))
    write_image(tmp_path / "shot" / "1.png", pictures(1)[0])
    restorer = Restorer(Enlarge(), device="cpu")
    inputs = [str(tmp_path / name) for name in ("a.png", "b.mp4", "shot")]
    assert len(infer(restorer, inputs, comparison=Comparison(page=True))) == 3
    for name in ("a_deblurred.html", "b_deblurred.html", "shot_deblurred.html"):
        frames = pairs(tmp_path / name)
        assert all(frame["before"].shape == frame["after"].shape == (64, 96, 3) for frame in frames)
    [frame] = pairs(tmp_path / "a_deblurred.html")
    np.testing.assert_array_equal(frame["after"], read_image(tmp_path / "a_deblurred.png"))
    (tmp_path / "a_deblurred.png").unlink()
    with pytest.raises(DataError, match=r"a_deblurred.html: exists already"):
        infer(Restorer(CopyImage(), device="cpu"), inputs[:1], comparison=Comparison(page=True))
    assert not (tmp_path / "a_deblurred.png").exists()
    assert infer(Restorer(CopyImage(), device="cpu"), inputs[:1], overwrite=True, comparison=Comparison(page=True))
