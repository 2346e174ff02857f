"""Averages against the reference values, exposures in time, files on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from deblurkit.data.layouts import PairedLayout
from deblurkit.data.light import SensorNoise
from deblurkit.data.synthesis import CURVES, Averaging, Pair, ShrunkSource, average_frames, compress_pairs
from deblurkit.data.synthesis_files import AverageOptions, synthesise
from deblurkit.errors import DataError, DeblurkitError
from deblurkit.image_io import Pixels, read_image
from deblurkit.video.source import SequenceSource

#: Three frames a pair.
THREE = AverageOptions(Averaging(3))
PARITY = Path(__file__).parent.parent / "parity" / "frame_averages.npz"


def source(frames: np.ndarray, name: str = "clip") -> SequenceSource:
    return SequenceSource(name, [lambda frame=frame: frame for frame in frames])


def noise(count: int, size: tuple[int, int] = (4, 6), dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, (count, *size, 3), dtype=dtype, endpoint=True)


def grey(values: list[int], dtype: type = np.uint8) -> np.ndarray:
    return np.stack([np.full((2, 2, 3), value, dtype) for value in values])


@pytest.mark.parametrize(
    ("curve", "key"), [("linear", "avg_linear"), ("gamma2.2", "avg_gamma22"), ("srgb", "avg_srgb")]
)
def test_reference_values(curve: str, key: str) -> None:
    with np.load(PARITY) as reference:
        frames, expected = reference["avg_frames"], reference[key].astype(np.float64)
    (eight,) = average_frames(source(frames), Averaging(7, curve=curve))
    assert eight.blur.dtype == np.uint8
    np.testing.assert_array_equal(eight.blur, np.floor(expected * 255 + 0.5))
    np.testing.assert_array_equal(eight.sharp, frames[3])
    (sixteen,) = average_frames(source(frames.astype(np.uint16) * 257), Averaging(7, curve=curve))
    assert sixteen.blur.dtype == np.uint16
    np.testing.assert_allclose(sixteen.blur, expected * 65535, atol=0.51)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_scene_that_stands_still_is_unchanged(curve: str, dtype: type) -> None:
    levels = np.arange(256 if dtype == np.uint8 else 65536, dtype=dtype)
    frame = np.repeat(levels.reshape(-1, 64), 3).reshape(-1, 64, 3)
    (pair,) = average_frames(source(np.stack([frame] * 5)), Averaging(5, curve=curve))
    np.testing.assert_array_equal(pair.blur, frame)
    assert pair.blur.dtype == dtype


def test_plain_means_are_exact_and_halves_go_up() -> None:
    frames = noise(6, (16, 16))
    for count in (2, 3, 4, 6):
        pair = next(average_frames(source(frames), Averaging(count, curve="linear")))
        total = frames[:count].astype(int).sum(0)
        np.testing.assert_array_equal(pair.blur, (2 * total + count) // (2 * count))


def test_light_is_averaged_not_pixel_values() -> None:
    (pair,) = average_frames(source(grey([0, 255])), Averaging(2))
    assert pair.blur[0, 0, 0] == round(255 * 0.5 ** (1 / 2.2)) == 186


@pytest.mark.parametrize("stride", [None, 1, 2, 5, 8])
@pytest.mark.parametrize("frames", [2, 3, 5])
def test_exposures_in_time(frames: int, stride: int | None) -> None:
    clip = noise(17)
    averaging = Averaging(frames, stride, "linear")
    starts = range(0, 17 - frames + 1, stride or frames)
    pairs = list(average_frames(source(clip), averaging))
    assert len(pairs) == len(starts) == averaging.pairs(17)
    for start, pair in zip(starts, pairs, strict=True):
        np.testing.assert_array_equal(pair.sharp, clip[start + frames // 2])
        np.testing.assert_allclose(pair.blur, clip[start : start + frames].mean(0), atol=0.501)


def test_no_frame_is_read_before_it_is_needed() -> None:
    class Counted:
        name, length = "endless", None
        read = 0

        def __iter__(self) -> Iterator[Pixels]:
            while True:
                self.read += 1
                yield np.zeros((2, 2, 3), np.uint8)

    endless = Counted()
    pairs = average_frames(endless, Averaging(3, 5))
    next(pairs)
    assert endless.read == 3
    next(pairs)
    assert endless.read == 8


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"frames": 1}, "at least 2"),
        ({"stride": 0}, "stride"),
        ({"curve": "gama2.2"}, "did you mean 'gamma2.2'"),
        ({"curve": "log"}, "gamma2.2, reds, srgb, linear"),
    ],
)
def test_wrong_numbers(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(DataError, match=text):
        Averaging(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("odd", [np.zeros((3, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint16)])
def test_frames_of_two_kinds(odd: Pixels) -> None:
    clip = SequenceSource("clip", [lambda: np.zeros((2, 2, 3), np.uint8), lambda: odd])
    with pytest.raises(DataError, match=r"clip: frame 1 is 2x. with .* bits, the first is 2x2 with 8 bits"):
        list(average_frames(clip, Averaging(2)))


def test_shrinking_averages_areas() -> None:
    clip = noise(1, (8, 12))
    (small,) = ShrunkSource(source(clip), 0.5)
    np.testing.assert_allclose(small, clip[0].reshape(4, 2, 6, 2, 3).mean((1, 3)), atol=0.501)
    for scale in (0.0, -1.0, 2.0):
        with pytest.raises(DataError, match="scale"):
            ShrunkSource(source(clip), scale)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_files(tmp_path: Path, dtype: type) -> None:
    clip = noise(11, dtype=dtype)
    assert synthesise(source(clip), tmp_path, "train", "walk", THREE) == 3
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["walk"]
    pairs = PairedLayout().scan(tmp_path, "train")["walk"]
    assert [pair.name for pair in pairs] == ["000000", "000001", "000002"]
    for pair, expected in zip(pairs, average_frames(source(clip), Averaging(3)), strict=True):
        np.testing.assert_array_equal(read_image(pair.lq), expected.blur)
        np.testing.assert_array_equal(read_image(pair.gt), expected.sharp)
        assert read_image(pair.lq).dtype == dtype


def test_scale_and_limit(tmp_path: Path) -> None:
    options = AverageOptions(Averaging(3), scale=0.5, limit=2)
    assert synthesise(source(noise(20, (8, 12))), tmp_path, "test", "walk", options) == 2
    assert len(list((tmp_path / "test" / "walk" / "sharp").iterdir())) == 2
    assert read_image(tmp_path / "test" / "walk" / "blur" / "000001.png").shape == (4, 6, 3)
    with pytest.raises(DataError, match="limit"):
        AverageOptions(limit=0)


def test_videos_have_the_blurred_frames_and_the_slower_rate(tmp_path: Path) -> None:
    from deblurkit.video.reader import VideoReader

    clip = np.stack([np.full((32, 48, 3), 20 * i, np.uint8) for i in range(12)])
    synthesise(source(clip), tmp_path, "test", "ramp", THREE, frame_rate=Fraction(240))
    for kind in ("blur", "sharp"):
        video = VideoReader(tmp_path / "test" / f"ramp_{kind}.mp4")
        assert video.rate == 80
        frames = list(video)
        assert len(frames) == 4
        for i, frame in enumerate(frames):
            png = read_image(tmp_path / "test" / "ramp" / kind / f"{i:06d}.png")
            np.testing.assert_allclose(frame.astype(int), png, atol=4)


def test_nothing_is_left_of_a_run_that_fails(tmp_path: Path) -> None:
    def damaged() -> Pixels:
        raise DataError("frame 7 is damaged")

    frame = np.zeros((16, 16, 3), np.uint8)
    clip = SequenceSource("clip", [lambda: frame] * 7 + [damaged])
    with pytest.raises(DataError, match="frame 7 is damaged"):
        synthesise(clip, tmp_path, "train", "walk", THREE, frame_rate=Fraction(30))
    assert list((tmp_path / "train").iterdir()) == []


def test_too_few_frames_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="clip: has fewer than 7 frames"):
        synthesise(source(noise(6)), tmp_path / "out", "train", "walk")
    assert not (tmp_path / "out").exists()


def test_existing_output_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    first, second = source(noise(9)), source(noise(6, seed=1))
    synthesise(first, tmp_path, "train", "walk", THREE)
    with pytest.raises(DataError, match="exists already"):
        synthesise(second, tmp_path, "train", "walk", THREE)
    assert len(PairedLayout().scan(tmp_path, "train")["walk"]) == 3
    assert synthesise(second, tmp_path, "train", "walk", THREE, overwrite=True) == 2
    assert len(PairedLayout().scan(tmp_path, "train")["walk"]) == 2
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["walk"]


def test_what_a_killed_run_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "train" / ".walk.partial" / "blur").mkdir(parents=True)
    (tmp_path / "train" / ".walk.old" / "blur").mkdir(parents=True)
    synthesise(source(noise(3)), tmp_path, "train", "walk", THREE)
    synthesise(source(noise(3)), tmp_path, "train", "walk", THREE, overwrite=True)
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["walk"]


def test_overwriting_takes_nothing_but_pairs_away(tmp_path: Path) -> None:
    mine = tmp_path / "train" / "walk" / "holiday.mp4"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"precious")
    with pytest.raises(DataError, match="is not overwritten"):
        synthesise(source(noise(3)), tmp_path, "train", "walk", THREE, overwrite=True)
    assert mine.read_bytes() == b"precious"
    mine = tmp_path / "train" / "run"
    mine.write_bytes(b"precious")
    with pytest.raises(DataError, match="is not overwritten"):
        synthesise(source(noise(3)), tmp_path, "train", "run", THREE, overwrite=True)
    assert mine.read_bytes() == b"precious"


def test_names_that_readers_would_not_find(tmp_path: Path) -> None:
    for name in ("", ".hidden", "..", "a/b"):
        with pytest.raises(DataError, match="cannot be a sequence's name"):
            synthesise(source(noise(3)), tmp_path, "train", name, THREE, overwrite=True)


def test_overwriting_without_videos_takes_those_of_before_away(tmp_path: Path) -> None:
    clip = source(noise(9, (32, 48)))
    synthesise(clip, tmp_path, "train", "walk", THREE, frame_rate=Fraction(30))
    other = tmp_path / "train" / "other_blur.mp4"
    other.write_bytes(b"mine")
    assert len(list((tmp_path / "train").iterdir())) == 4
    synthesise(clip, tmp_path, "train", "walk", THREE, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == ["other_blur.mp4", "walk"]


def test_what_was_made_of_an_unknown_source_is_never_taken_for_done(tmp_path: Path) -> None:
    synthesise(source(noise(9)), tmp_path, "train", "walk", THREE)
    with pytest.raises(DataError, match="exists already"):
        synthesise(source(noise(9)), tmp_path, "train", "walk", THREE)


@pytest.mark.parametrize(
    ("averaging", "samples", "start", "middles"),
    [
        (Averaging(7), 7, 0, (3, 10)),
        (Averaging(9, interpolate=8), 65, 0, (4, 13)),  # RSBlur
        (Averaging(5, interpolate=16), 65, 0, (2, 7)),
        (Averaging(stride=5, duty=0.8, interpolate=16), 65, 0, (2, 7)),  # REDS
        (Averaging(stride=10, duty=0.5), 5, 0, (2, 12)),
        (Averaging(stride=5, duty=1.0, interpolate=4), 19, 3, (3, 8)),
        (Averaging(3, 8, first=4), 3, 4, (5, 13)),
    ],
)
def test_exposures_of_interpolated_and_closed_shutters(
    averaging: Averaging, samples: int, start: int, middles: tuple[int, int]
) -> None:
    assert (averaging.samples, averaging.start) == (samples, start)
    assert (averaging.middle(0), averaging.middle(1)) == middles
    assert averaging.pairs(averaging.needed) == 1
    assert averaging.pairs(averaging.needed - 1) == 0
    clip = noise(averaging.needed + averaging.step, (32, 32), seed=3)
    pairs = list(average_frames(source(clip), averaging))
    assert len(pairs) == averaging.pairs(len(clip)) == 2
    for pair, middle in zip(pairs, middles, strict=True):
        np.testing.assert_array_equal(pair.sharp, clip[middle])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"duty": 0.5}, "state the stride too"),
        ({"stride": 5, "duty": 1.5}, "at most 1"),
        ({"stride": 5, "duty": 0.1}, "leaves fewer than 2"),
        ({"frames": 4, "interpolate": 2}, "the middle would be no true frame"),
        ({"interpolate": 100}, "64 times as many at most"),
        ({"interpolate": 0}, "64 times as many at most"),
        ({"first": -1}, "0 or more"),
    ],
)
def test_more_wrong_numbers(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(DataError, match=text):
        Averaging(**arguments)  # type: ignore[arg-type]


def test_noise_is_in_the_blurred_frames_only_and_drawn_by_the_generator() -> None:
    clip = np.stack([np.full((64, 64, 3), 128, np.uint8)] * 6)
    averaging, strong = Averaging(3), SensorNoise(20.0)

    def noisy(seed: int) -> list[Pair]:
        return list(average_frames(source(clip), averaging, strong, np.random.default_rng(seed)))

    one, again, other = noisy(1), noisy(1), noisy(2)
    for pair, same, differs in zip(one, again, other, strict=True):
        np.testing.assert_array_equal(pair.sharp, clip[0])
        np.testing.assert_array_equal(pair.blur, same.blur)
        assert (pair.blur != differs.blur).mean() > 0.5
        assert abs(pair.blur.astype(float).mean() - 128) < 0.5
    assert (one[0].blur != one[1].blur).mean() > 0.5


def test_compression_keeps_frames_together() -> None:
    clip = np.stack([np.full((48, 64, 3), 20 * i, np.uint8) for i in range(12)])
    pairs = [Pair(frame, frame) for frame in clip]
    made = list(compress_pairs(iter(pairs), 10))
    assert len(made) == 12
    for pair, frame in zip(made, clip, strict=True):
        np.testing.assert_array_equal(pair.sharp, frame)
        np.testing.assert_allclose(pair.blur.astype(int), frame, atol=6)
    deep = [Pair(frame.astype(np.uint16) * 257, frame.astype(np.uint16) * 257) for frame in clip]
    for pair, eight in zip(compress_pairs(iter(deep), 10), made, strict=True):
        np.testing.assert_array_equal(pair.blur, eight.blur)
        np.testing.assert_array_equal(pair.sharp, eight.sharp)
    assert list(compress_pairs(iter(pairs), None)) == pairs


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeblurkitError, match="cannot be written"):
        synthesise(source(noise(3)), tmp_path / "file", "train", "walk", THREE)
