from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from deblurkit.data.frame_sampling import (
    DVD_TEST_ANCHORS,
    FrameSampling,
    FrameWindow,
    chunk_windows,
    window_indices,
)
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
    assert FrameSampling("n_c", n, k).windows(length) == middle
    assert len(middle) == max(length - 2 * (span // 2), 0)
    starts = range(max(length - span + 1, 0))
    runs = [tuple(p + j * k for j in range(n)) for p in starts]
    assert FrameSampling("n_l", n, k).windows(length) == [(run, (p,)) for run, p in zip(runs, starts, strict=True)]
    assert FrameSampling("n_n", n, k).windows(length) == [(run, run) for run in runs]
    ends = range(span - 1, length)
    assert FrameSampling("n_r", n, k).windows(length) == [
        (tuple(p - (n - 1 - j) * k for j in range(n)), (p,)) for p in ends
    ]  # fmt: skip


@pytest.mark.parametrize(("length", "n"), [(12, 8), (8, 8), (7, 8), (30, 12)])
def test_context_with_two_and_two_is_strcnn(length, n):
    """Inputs p - 2 .. p + n - 3, restored p .. p + n - 5, anchors 2 .. L - n + 2."""
    expected = [(tuple(range(p - 2, p + n - 2)), tuple(range(p, p + n - 4))) for p in range(2, length - n + 3)]
    assert FrameSampling("context", n).windows(length) == expected


@pytest.mark.parametrize(("past", "future"), [(2, 2), (0, 3), (1, 0), (0, 0)])
def test_context_tiles_what_it_restores(past, future):
    sampling = FrameSampling("context", 8, past=past, future=future, overlapping=False)
    windows = sampling.windows(8 + 3 * (8 - past - future))
    assert [t for w in windows for t in w.targets] == list(range(past, past + 4 * (8 - past - future)))
    spread = FrameSampling("context", 5, 3, past=1, future=1).windows(13)
    assert spread == [((0, 3, 6, 9, 12), (3, 6, 9))]


@pytest.mark.parametrize("sampling", ["n_c", "n_l", "n_r", "n_n"])
def test_not_overlapping_takes_every_span(sampling):
    everything = FrameSampling(sampling, 3, 2).windows(23)
    assert FrameSampling(sampling, 3, 2, overlapping=False).windows(23) == everything[::5]


def test_padding_makes_every_frame_an_anchor():
    windows = FrameSampling("n_c", 5, padding="replicate").windows(4)
    assert [w.targets for w in windows] == [(0,), (1,), (2,), (3,)]
    assert windows[0] == FrameWindow((0, 0, 0, 1, 2), (0,))
    assert FrameSampling("n_c", 5).windows(4) == []


@pytest.mark.parametrize("sampling", ["n_c", "n_l", "n_r", "n_n", "context"])
def test_backwards_the_restored_frame_keeps_its_place(sampling):
    forward = FrameSampling(sampling, 5, 2, past=1, future=2)
    for window in forward.windows(12):
        back = forward.reversed(window)
        assert back.inputs == window.inputs[::-1]
        assert [back.inputs.index(t) for t in back.targets] == [window.inputs.index(t) for t in window.targets]
        # the mirrored sequence has this very sample
        assert tuple(11 - p for p in back.inputs) in [w.inputs for w in forward.windows(12)]
    padded = FrameSampling("n_c", 5, padding="reflection")
    assert padded.reversed(padded.window(0, 9)) == ((2, 1, 0, 1, 2), (0,))


@pytest.mark.parametrize("sampling", ["n_c", "n_l", "n_r", "n_n", "context"])
@pytest.mark.parametrize("redraw", [0.0, 0.5, 0.999])
def test_another_interval_moves_a_window_that_does_not_fit(sampling, redraw):
    frames = FrameSampling(sampling, 5, past=1, future=1)
    for position in frames.positions(12):
        for interval in (1, 2):
            window = frames.window(position, 12, interval, redraw)
            assert {b - a for a, b in pairwise(window.inputs)} == {interval}
            assert window.inputs[0] >= 0
            assert window.inputs[-1] <= 11
            if 0 <= position - frames.slots[0] * interval <= 12 - frames.span(interval):
                assert window.targets[0] == position
    position = frames.positions(12)[0 if sampling == "n_r" else -1]  # frames at 2 would lie outside: anywhere, then
    assert {frames.window(position, 12, 2, r / 100).inputs[0] for r in range(100)} == {0, 1, 2, 3}


def test_anchors():
    assert DVD_TEST_ANCHORS == (
        2, 5, 8, 11, 15, 18, 21, 24, 28, 31, 34, 38, 41, 44, 47, 51, 54, 57, 60, 64, 67, 70, 74, 77, 80, 83, 87, 90, 93,
        97,
    )  # fmt: skip
    windows = FrameSampling("n_c", 5, anchors="dvd_test").windows(100)
    assert tuple(w.targets[0] for w in windows) == DVD_TEST_ANCHORS
    assert windows[0].inputs == (0, 1, 2, 3, 4)
    assert FrameSampling("n_c", 7, anchors="middle").windows(7) == [(tuple(range(7)), (3,))]
    assert FrameSampling("n_l", 1, anchors=(9, 19)).positions(20) == [9, 19]
    assert FrameSampling("n_c", 5, anchors="dvd_test").windows(3) == []  # too short for any window
    with pytest.raises(DataError, match="anchors 97 have no window in a sequence of 99 frames, where 2 to 96"):
        FrameSampling("n_c", 5, anchors="dvd_test").positions(99)
    with pytest.raises(DataError, match=r"anchors name single restored frames .* sampling is n_n"):
        FrameSampling("n_n", 5, anchors="middle")


@pytest.mark.parametrize(("past", "future"), [(0, 0), (2, 2), (0, 3), (1, 0)])
@pytest.mark.parametrize(("size", "more"), [(None, 0), (20, 0), (20, 3), (7, 1), (200, 0)])
@pytest.mark.parametrize("length", [1, 5, 19, 20, 21, 50, 100])
@pytest.mark.parametrize("padded", [False, True])
def test_chunks_restore_every_frame_once(length, size, more, past, future, padded):
    chunks = chunk_windows(length, size, past + future + more, past, future, padded)
    wanted = range(length) if padded else range(past, length - future)
    assert [t for chunk in chunks for t in chunk.targets] == list(wanted)
    for chunk in chunks:
        assert chunk.inputs == tuple(range(chunk.inputs[0], chunk.inputs[0] + min(size or length, length)))
        assert chunk.targets[0] - chunk.inputs[0] >= (0 if padded and chunk.inputs[0] == 0 else past)
        assert chunk.inputs[-1] - chunk.targets[-1] >= (0 if padded and chunk.inputs[-1] == length - 1 else future)


def test_chunks_of_estrnn():
    """Chunks of 20 frames that overlap by 4, the last one moved back; the first and last 2 frames have no result."""
    chunks = chunk_windows(100, 20, 4, 2, 2)
    assert [c.inputs[0] for c in chunks] == [0, 16, 32, 48, 64, 80]
    assert [c.inputs[0] for c in chunk_windows(90, 20, 4, 2, 2)] == [0, 16, 32, 48, 64, 70]
    with pytest.raises(DataError, match="overlap 3 must be at least 4"):
        chunk_windows(100, 20, 3, 2, 2)
    with pytest.raises(DataError, match="less than length 20"):
        chunk_windows(100, 20, 20)


def test_refusals():
    with pytest.raises(DataError, match="num_frame must be odd; it is 4"):
        FrameSampling("n_c", 4)
    with pytest.raises(DataError, match="sampling is n_r"):
        FrameSampling("n_r", 4, padding="circle")
    with pytest.raises(DataError, match="'n_x' is unknown; did you mean"):
        FrameSampling("n_x", 4)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"past 2 and future 2 must .* leave a frame of num_frame 4"):
        FrameSampling("context", 4)
    with pytest.raises(DataError, match="num_frame 0 and interval 1"):
        FrameSampling("n_n", 0)
