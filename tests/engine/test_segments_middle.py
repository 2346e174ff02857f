"""Parts of a video are read from the place where they begin, and that they meet is checked."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deblurkit.engine.parts import Parts
from deblurkit.engine.restore import Restorer
from deblurkit.errors import DeblurkitError
from deblurkit.video.index import FrameIndex
from deblurkit.video.reader import VideoReader
from deblurkit.video.segment_file import describe_segment
from tests.engine.test_segments import (
    NETWORKS,
    StopError,
    by_processes,
    frames_of,
    in_parts,
    interrupted_at,
    plain,
    restorer,
)
from tests.engine.test_shots import shot
from tests.support.videos import copied_packets, write_video

LENGTH = 120


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shots of 50, 30 and 40 frames, without loss, with key frames 6 frames apart and nowhere near the cuts."""
    frames = [*shot(0, 50), *shot(1, 30), *shot(2, 40)]
    small = [np.ascontiguousarray(frame[::3, ::4]) for frame in frames]
    path = tmp_path_factory.mktemp("video") / "a.mkv"
    return write_video(path, small, audio="aac", codec="ffv1", pixel_format="bgr0", options={"g": "6"})


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each frame was decoded since the counter was cleared."""
    count: Counter[int] = Counter()
    original = VideoReader._decode

    def decode(self: VideoReader, container: Any, entry: Any = None) -> Any:
        for position, frame in enumerate(original(self, container, entry), entry.position if entry else 0):
            if hasattr(self, "width"):  # not when the reader looks at the first frame
                count[position] += 1
            yield frame

    monkeypatch.setattr(VideoReader, "_decode", decode)
    return count


KINDS = [*((kind, True) for kind in NETWORKS), ("clip", False), ("stream", False)]


def interrupt(video: Path, target: Path, kind: str, at: int, **settings: Any) -> None:
    with pytest.raises(StopError):
        in_parts(video, target, restorer(kind, **settings), advance=interrupted_at(at))


@pytest.mark.parametrize(("kind", "shots"), KINDS)
@pytest.mark.parametrize("at", [53, 78, 115])
def test_who_goes_on_reads_from_there(
    video: Path, tmp_path: Path, decoded: Counter[int], kind: str, shots: bool, at: int
) -> None:
    """Shortly after a cut, at the end of a shot, and of the video."""
    target = tmp_path / "b.mkv"
    interrupt(video, target, kind, at, shots=shots)
    decoded.clear()
    assert in_parts(video, target, restorer(kind, shots=shots)) == LENGTH
    first = at // 8 * 8
    near = {"clip": 4 * 9}.get(kind, 4 + 4)  # segments of 9 frames; 4 of context, 4 that tell of a cut
    assert min(decoded) >= max(first - near - 4 - 6, 0)  # 4 that are noted, 6 from key frame to key frame
    assert max(decoded.values()) == 1
    np.testing.assert_array_equal(frames_of(target), plain(video, tmp_path / "plain.mkv", restorer(kind, shots=shots)))
    assert copied_packets(target) == copied_packets(video)


@pytest.mark.parametrize(("kind", "shots"), KINDS)
def test_processes_read_their_parts(video: Path, tmp_path: Path, decoded: Counter[int], kind: str, shots: bool) -> None:
    target = tmp_path / "b.mkv"
    done = by_processes(video, target, 3, kind, length=LENGTH, shots=shots)
    searched = kind in ("stream", "clip") and shots
    assert sum(decoded.values()) <= (2 if searched else 1) * LENGTH + 3 * (4 * 9 + 4 + 4 + 6)
    if kind == "stream":
        assert done == ([50, 30, 40] if shots else [LENGTH, 0, 0])
    np.testing.assert_array_equal(frames_of(target), plain(video, tmp_path / "plain.mkv", restorer(kind, shots=shots)))


@pytest.fixture
def wrong_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with a packet that gives no frame: its index counts one too many from there on."""
    original = FrameIndex.of.__func__  # type: ignore[attr-defined]

    def of(cls: Any, *arguments: Any) -> FrameIndex:
        index = original(cls, *arguments)
        times = np.insert(index.times, 3, index.times[2] + 1)
        entries = [type(e)(e.position + (e.position > 2), e.pts, e.dts, e.size) for e in index._entries]
        return FrameIndex(times, entries)

    monkeypatch.setattr(FrameIndex, "of", classmethod(of))


@pytest.mark.usefixtures("wrong_index")
@pytest.mark.parametrize("kind", NETWORKS)
def test_who_would_go_on_at_a_wrong_frame_reads_from_the_beginning(
    video: Path, tmp_path: Path, decoded: Counter[int], kind: str
) -> None:
    assert not np.array_equal(next(VideoReader(video).stamped(60))[0], frames_of(video)[60])
    target = tmp_path / "b.mkv"
    interrupt(video, target, kind, 61, shots=True)
    decoded.clear()
    in_parts(video, target, restorer(kind, shots=True))
    assert min(decoded) == 0
    np.testing.assert_array_equal(frames_of(target), plain(video, tmp_path / "plain.mkv", restorer(kind, shots=True)))


@pytest.mark.usefixtures("wrong_index")
@pytest.mark.parametrize("kind", NETWORKS)
def test_parts_that_do_not_meet_are_made_again(
    video: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "b.mkv"
    by_processes(video, target, 3, kind, length=LENGTH, shots=True)
    said = capsys.readouterr().err
    assert ("cannot be read from its middle" in said) == (kind in ("image", "window", "shared"))
    np.testing.assert_array_equal(frames_of(target), plain(video, tmp_path / "plain.mkv", restorer(kind, shots=True)))


def test_a_failure_of_one_process_is_known_to_all(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Restorer.part

    def part(self: Restorer, first: int, *arguments: Any) -> Any:
        if first > 0:
            raise DeblurkitError("no room")
        return original(self, first, *arguments)

    monkeypatch.setattr(Restorer, "part", part)
    with pytest.raises(AssertionError, match=r"(?s)no room.*process 2 of 2 failed|process 2 of 2 failed.*no room"):
        by_processes(video, tmp_path / "b.mkv", 2, "window", length=LENGTH)
    kept = Parts(tmp_path / "b.mkv")
    assert kept.done_from(0)[0] == 56
    monkeypatch.setattr(Restorer, "part", original)
    assert in_parts(video, tmp_path / "b.mkv", restorer("window")) == LENGTH


def test_segments_know_what_is_around_them(video: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.mkv"
    interrupt(video, target, "window", 60, shots=True)
    _, files = Parts(target).done_from(0)
    found = [describe_segment(file) for file in files]
    assert [one.shot for one in found] == [0] * 6 + [50]
    assert all(b.follows(a) for a, b in itertools.pairwise(found))
    assert not found[3].follows(found[1])
    assert [position for position, *_ in found[2].before] == [12, 13, 14, 15]
    assert [position for position, *_ in found[2].last] == [20, 21, 22, 23]
