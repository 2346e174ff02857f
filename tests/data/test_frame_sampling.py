from __future__ import annotations

import json
from pathlib import Path

import pytest

from deblurkit.data.frame_sampling import FrameWindow, sample_windows, window_indices
from deblurkit.errors import DataError

TABLE = json.loads((Path(__file__).parents[1] / "parity" / "frame_indices.json").read_text())
PADDINGS = ("replicate", "reflection", "reflection_circle", "circle")


@pytest.mark.parametrize("padding", PADDINGS)
def test_windows_equal_basicsr_table(padding):
    half = TABLE["num_frames"] // 2
    for center, expected in TABLE["table"][padding].items():
        assert window_indices(int(center), half, half, TABLE["max_frame_num"], padding) == expected


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("length", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(("past", "future"), [(3, 3), (0, 4), (5, 1), (0, 0)])
@pytest.mark.parametrize("interval", [1, 2, 3])
def test_short_clips_give_valid_positions(padding, length, past, future, interval):
    for center in range(length):
        window = window_indices(center, past, future, length, padding, interval)
        assert len(window) == past + 1 + future
        assert all(0 <= p < length for p in window)
        assert window[past] == center


def test_one_frame_and_two_frames():
    assert window_indices(0, 2, 2, 1, "circle") == [0] * 5
    assert window_indices(0, 2, 2, 2, "reflection") == [0, 1, 0, 1, 0]
    assert window_indices(0, 2, 2, 2, "replicate") == [0, 0, 0, 1, 1]


def test_interval_steps_over_frames():
    assert window_indices(4, 2, 2, 10, "replicate", interval=2) == [0, 2, 4, 6, 8]
    assert window_indices(1, 2, 2, 10, "reflection", interval=2) == [3, 1, 1, 3, 5]
    assert window_indices(0, 2, 2, 20, "circle", interval=2) == [6, 8, 0, 2, 4]


def test_wrong_window_arguments():
    with pytest.raises(ValueError, match="not in a sequence of 3"):
        window_indices(3, 1, 1, 3, "circle")
    with pytest.raises(ValueError, match="'mirror' is not a boundary padding"):
        window_indices(0, 1, 1, 3, "mirror")  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, 3, 5, 6, 17])
@pytest.mark.parametrize("interval", [1, 2])
@pytest.mark.parametrize("num_frame", [1, 3, 5])
def test_sampling_tables(length, interval, num_frame):
    """The counts and index formulas of archs/FRAME_SAMPLING.md, spelled with an anchor p."""
    n, k, span = num_frame, interval, (num_frame - 1) * interval + 1
    middle = [((*range(p - n // 2 * k, p + n // 2 * k + 1, k),), (p,)) for p in range(span // 2, length - span // 2)]
    assert sample_windows("n_c", length, n, k) == middle
    assert len(middle) == max(length - 2 * (span // 2), 0)
    starts = range(max(length - span + 1, 0))
    runs = [tuple(p + j * k for j in range(n)) for p in starts]
    assert sample_windows("n_l", length, n, k) == [(run, (p,)) for run, p in zip(runs, starts, strict=True)]
    assert sample_windows("n_n", length, n, k) == [(run, run) for run in runs]
    ends = range(span - 1, length)
    assert sample_windows("n_r", length, n, k) == [
        (tuple(p - (n - 1 - j) * k for j in range(n)), (p,)) for p in ends
    ]  # fmt: skip


@pytest.mark.parametrize("sampling", ["n_c", "n_l", "n_r", "n_n"])
def test_not_overlapping_takes_every_span(sampling):
    everything = sample_windows(sampling, 23, 3, 2)
    assert sample_windows(sampling, 23, 3, 2, overlapping=False) == everything[::5]


def test_padding_makes_every_frame_an_anchor():
    windows = sample_windows("n_c", 4, 5, padding="replicate")
    assert [w.targets for w in windows] == [(0,), (1,), (2,), (3,)]
    assert windows[0] == FrameWindow((0, 0, 0, 1, 2), (0,))
    assert sample_windows("n_c", 4, 5) == []


def test_refusals():
    with pytest.raises(DataError, match="num_frame must be odd; it is 4"):
        sample_windows("n_c", 10, 4)
    with pytest.raises(DataError, match="sampling is n_r"):
        sample_windows("n_r", 10, 4, padding="circle")
    with pytest.raises(DataError, match="n_x"):
        sample_windows("n_x", 10, 4)  # type: ignore[arg-type]
