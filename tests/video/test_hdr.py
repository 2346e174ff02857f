from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from deblurkit.video.hdr import StaticHDR, with_static_hdr
from deblurkit.video.reader import VideoReader
from deblurkit.video.writer import VideoWriter
from tests.support.videos import pictures, write_video

#: Display P3 with the white point D65, 0.0001 to 1000 candela, as most HDR10 films say.
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
P3 = tuple(Fraction(n, 50000) for n in (34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450))


def hdr_video(path: Path) -> Path:
    params = f"log-level=error:master-display={DISPLAY}:max-cll=1000,400"
    tags = {"color_primaries": 9, "color_trc": 16, "colorspace": 9, "color_range": 1}
    options = {"preset": "ultrafast", "x265-params": params}
    frames = pictures(4, (64, 96), np.uint16)
    return write_video(path, frames, codec="libx265", pixel_format="yuv420p10le", tags=tags, options=options)


@pytest.mark.parametrize("codec", [None, "libsvtav1"])
def test_hdr_metadata_survives(tmp_path: Path, codec: str | None) -> None:
    reader = VideoReader(hdr_video(tmp_path / "a.mp4"))
    assert reader.hdr == StaticHDR(P3, (Fraction(1, 10000), Fraction(1000)), (1000, 400))
    with VideoWriter(tmp_path / "b.mp4", reader, codec=codec) as writer:
        for pixels, timing in reader.stamped():
            writer.write(pixels, timing)
    result = VideoReader(tmp_path / "b.mp4")
    assert result.tags == reader.tags
    assert result.hdr.light == (1000, 400)
    numbers = [*result.hdr.primaries, *result.hdr.luminance]
    expected = [*P3, Fraction(1, 10000), Fraction(1000)]
    assert [float(n) for n in numbers] == pytest.approx([float(n) for n in expected], abs=1e-4)


def test_videos_without_it_and_other_encoders_are_left_alone(tmp_path: Path) -> None:
    assert VideoReader(write_video(tmp_path / "a.mp4", pictures(2))).hdr == StaticHDR()
    options = {"x265-params": "log-level=error"}
    assert with_static_hdr("libx265", options, StaticHDR()) == options
    assert with_static_hdr("libx264", {"crf": "17"}, StaticHDR(P3, (Fraction(0), Fraction(1)))) == {"crf": "17"}
