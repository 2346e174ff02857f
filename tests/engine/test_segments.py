"""Videos restored in parts: interrupted, resumed, shared by processes; the result is that of one piece."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deblurkit.engine.launch import Place
from deblurkit.engine.meeting import Meeting
from deblurkit.engine.parts import Parts
from deblurkit.engine.restore import Restorer
from deblurkit.engine.segments import restore_in_parts
from deblurkit.errors import DataError, DeblurkitError, VideoError
from deblurkit.network import Network
from deblurkit.video.reader import VideoReader
from tests.engine.test_shots import shot
from tests.support.networks import ConvWindow, CopyImage, NeighbourClip, RunningMean, SharedWindow
from tests.support.videos import copied_packets, pictures, seconds, write_video

NETWORKS: dict[str, Any] = {
    "image": CopyImage,
    "window": lambda: ConvWindow(5, 2),
    "shared": SharedWindow,
    "stream": lambda: RunningMean(1, 2),
    "clip": NeighbourClip,
}
TIMES = [i * 512 + (37 * i * i) % 300 for i in range(45)]


def restorer(kind: str, **settings: Any) -> Restorer:
    torch.manual_seed(0)
    return Restorer(NETWORKS[kind](), device="cpu", clip_length=9, clip_overlap=2, **settings)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shots of small frames, variable frame rate, sound."""
    frames = [*shot(0, 17), *shot(1, 9), *shot(2, 19)]
    small = [np.ascontiguousarray(frame[::3, ::4]) for frame in frames]
    path = tmp_path_factory.mktemp("video") / "a.mkv"
    return write_video(path, small, times=TIMES, audio="aac", codec="ffv1", pixel_format="bgr0")


def frames_of(path: Path) -> Any:
    return np.stack(list(VideoReader(path)))


def in_parts(video: Path, target: Path, one: Restorer, **more: Any) -> int:
    return restore_in_parts(one, VideoReader(video), target, {"lossless": True}, segment=8, **more)


def plain(video: Path, target: Path, one: Restorer) -> Any:
    one.restore_video(video, target, lossless=True)
    return frames_of(target)


@pytest.mark.parametrize("kind", NETWORKS)
def test_parts_joined_are_the_whole(video: Path, tmp_path: Path, kind: str) -> None:
    expected = plain(video, tmp_path / "plain.mkv", restorer(kind, shots=True))
    done: list[int] = []
    target = tmp_path / "b.mkv"
    assert in_parts(video, target, restorer(kind, shots=True), advance=done.append) == sum(done) == 45
    np.testing.assert_array_equal(frames_of(target), expected)
    assert seconds(target) == seconds(tmp_path / "plain.mkv")
    assert copied_packets(target) == copied_packets(video)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.mkv", "plain.mkv"]


class StopError(Exception):
    """What interrupts a job."""


def interrupted_at(count: int) -> Any:
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        if done >= count:
            raise StopError

    return advance


@pytest.mark.parametrize(("kind", "tile"), [*((kind, 0) for kind in NETWORKS), ("shared", 16), ("stream", 16)])
def test_an_interrupted_job_goes_on(video: Path, tmp_path: Path, kind: str, tile: int) -> None:
    """Three times; each run goes on at the last whole segment."""
    expected = plain(video, tmp_path / "plain.mkv", restorer(kind, shots=True, tile=tile))
    target = tmp_path / "b.mkv"
    for stop in (11, 26, 44):
        with pytest.raises(StopError):
            in_parts(video, target, restorer(kind, shots=True, tile=tile), advance=interrupted_at(stop))
        whole = Parts(target).segments()
        assert sorted(whole) == list(range(0, stop // 8 * 8, 8))
        assert not target.exists()
        assert not [path for path in Parts(target).folder.iterdir() if path.suffix == ".unfinished"]
    worked = restorer(kind, shots=True, tile=tile)
    calls: list[int] = []
    original = worked._runner.restore
    worked._runner.restore = lambda *a: calls.append(1) or original(*a)  # type: ignore[method-assign, func-returns-value]
    assert in_parts(video, target, worked) == 45
    assert len(calls) <= 5  # frames 40 to 44
    np.testing.assert_array_equal(frames_of(target), expected)
    assert not Parts(target).folder.exists()


def test_a_lost_state_is_made_again(video: Path, tmp_path: Path) -> None:
    expected = plain(video, tmp_path / "plain.mkv", restorer("stream"))
    with pytest.raises(StopError):
        in_parts(video, tmp_path / "b.mkv", restorer("stream"), advance=interrupted_at(30))
    states = sorted(Parts(tmp_path / "b.mkv").folder.glob("*.state"))
    assert "00000024.state" in [path.name for path in states]
    assert len(states) <= 2  # the network may be ahead of the encoder
    for path in states:
        path.unlink()
    in_parts(video, tmp_path / "b.mkv", restorer("stream"))
    np.testing.assert_array_equal(frames_of(tmp_path / "b.mkv"), expected)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_times_and_sound_survive_codecs_with_reordered_frames(tmp_path: Path, codec: str) -> None:
    video = write_video(tmp_path / "a.mkv", pictures(45, (64, 64)), times=TIMES, audio="aac", codec="ffv1",
                        pixel_format="bgr0")  # fmt: skip
    target = tmp_path / "b.mp4"
    one = restorer("image")
    assert restore_in_parts(one, VideoReader(video), target, {"codec": codec}, segment=7) == 45
    assert seconds(target) == pytest.approx(seconds(video), abs=1e-3)
    one.restore_video(video, tmp_path / "plain.mp4", codec=codec)
    assert seconds(target) == seconds(tmp_path / "plain.mp4")
    assert copied_packets(target) == copied_packets(tmp_path / "plain.mp4")
    errors = [
        np.abs(frames_of(path).astype(int) - frames_of(video)).mean() for path in (target, tmp_path / "plain.mp4")
    ]
    assert errors[0] < 1.1 * errors[1]


def by_processes(video: Path, target: Path, count: int, kind: str, length: int = 45, **settings: Any) -> list[int]:
    """A job shared by `count` threads that stand for processes; how many frames each has restored."""
    gate = threading.Barrier(count, timeout=60)
    told: list[Any] = [None] * count
    done, errors = [0] * count, []

    class ThreadMeeting(Meeting):
        def wait(self) -> None:
            gate.wait()

        def gather(self, value: Any) -> list[Any]:
            told[self.place.rank] = value
            self.wait()
            all_told = list(told)
            self.wait()
            return all_told

    restorers = [restorer(kind, **settings) for _ in range(count)]

    def work(rank: int) -> None:
        def advance(more: int) -> None:
            done[rank] += more

        try:
            meeting = ThreadMeeting(Place(torch.device("cpu")))
            meeting.place = Place(torch.device("cpu"), rank, count)
            assert in_parts(video, target, restorers[rank], advance=advance, meeting=meeting) == length
        except DeblurkitError as error:  # the others learn of it
            errors.append(error)
        except BaseException as error:
            errors.append(error)
            gate.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    return done


@pytest.mark.parametrize(("kind", "shots"), [*((kind, True) for kind in NETWORKS), ("stream", False)])
def test_a_video_shared_by_processes(video: Path, tmp_path: Path, kind: str, shots: bool) -> None:
    expected = plain(video, tmp_path / "plain.mkv", restorer(kind, shots=shots))
    for count in (2, 3):
        target = tmp_path / f"b{count}.mkv"
        done = by_processes(video, target, count, kind, shots=shots)
        assert sum(done) == 45
        if kind != "stream":
            assert max(done) <= {2: 24, 3: 16}[count] + 1
        else:
            assert done == ([45, 0, 0][:count] if not shots else {2: [26, 19], 3: [17, 9, 19]}[count])
        np.testing.assert_array_equal(frames_of(target), expected)
        assert copied_packets(target) == copied_packets(video)


def test_a_job_goes_on_with_another_number_of_processes(video: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.mkv"
    with pytest.raises(StopError):
        in_parts(video, target, restorer("window"), advance=interrupted_at(27))
    done = by_processes(video, target, 2, "window")
    assert done == [24, 21]  # those that were done are counted
    np.testing.assert_array_equal(frames_of(target), plain(video, tmp_path / "plain.mkv", restorer("window")))


def test_parts_of_another_job_are_not_taken(video: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.mkv"
    with pytest.raises(StopError):
        in_parts(video, target, restorer("window"), advance=interrupted_at(20))
    other = restorer("window")
    with torch.no_grad():
        other.net.up.bias[0] += 1e-3  # type: ignore[operator, union-attr, index]
    with pytest.raises(DataError, match=r"b\.mkv\.parts: holds parts of another job \(weights differ\)"):
        in_parts(video, target, other)
    with pytest.raises(DataError, match=r"\(settings differ\)"):
        in_parts(video, target, restorer("window", tile=16))
    with pytest.raises(DataError, match=r"\(network, weights differ\)"):
        in_parts(video, target, restorer("shared"))
    with pytest.raises(DataError, match=r"\(encoding differ\)"):
        restore_in_parts(restorer("window"), VideoReader(video), target, {"codec": "libx264"})
    again = write_video(tmp_path / "a.mkv", pictures(9))
    with pytest.raises(DataError, match=r"\(source differ\)"):
        in_parts(again, target, restorer("window"))


def test_a_job_that_fails_at_once_leaves_nothing_and_damage_is_named(video: Path, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        in_parts(video, tmp_path / "b.mkv", restorer("window"), advance=interrupted_at(1))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StopError):
        in_parts(video, tmp_path / "b.mkv", restorer("window"), advance=interrupted_at(20))
    segment = Parts(tmp_path / "b.mkv").segment(0, 8)
    segment.write_bytes(segment.read_bytes()[:100])
    with pytest.raises(VideoError, match=r"00000000-00000008\.segment: is no segment"):
        in_parts(video, tmp_path / "b.mkv", restorer("window"))


def test_the_tiles_of_the_first_run_are_kept(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deblurkit.engine import runner

    monkeypatch.setattr(runner, "_TILE_STEP", 16)
    first = restorer("window", tile="auto")
    first._runner.begin_with(16)
    with pytest.raises(StopError):
        in_parts(video, tmp_path / "b.mkv", first, advance=interrupted_at(20))
    second = restorer("window", tile="auto")
    in_parts(video, tmp_path / "b.mkv", second)
    assert second.tile_in_use == 16


SCRIPT = """
import sys, time
from pathlib import Path
import torch
from deblurkit.engine.restore import Restorer
from deblurkit.engine.segments import restore_in_parts
from deblurkit.video.reader import VideoReader
from tests.support.networks import RunningMean
restore_in_parts(Restorer(RunningMean(1, 2), device="cpu"), VideoReader(sys.argv[1]), Path(sys.argv[2]),
                 {"lossless": True}, segment=4, advance=lambda n: time.sleep(float(sys.argv[3])))
"""


def test_a_killed_process_loses_a_segment_at_most(video: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.mkv"
    command = [sys.executable, "-c", SCRIPT, str(video), str(target)]
    root = Path(__file__).parents[2]
    process = subprocess.Popen([*command, "0.05"], cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while len(Parts(target).segments()) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = Parts(target).segments()
    assert len(before) >= 3
    assert not target.exists()
    kept = {path: path.stat().st_mtime_ns for _, path in before.values()}
    with pytest.raises(StopError):  # stop once more, to see that nothing was done again
        restore_in_parts(
            Restorer(RunningMean(1, 2), device="cpu"), VideoReader(video), target, {"lossless": True},
            segment=4, advance=interrupted_at(len(before) * 4 + 6),
        )  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    subprocess.run([*command, "0"], cwd=root, check=True)
    np.testing.assert_array_equal(frames_of(target), plain(video, tmp_path / "plain.mkv", restorer("stream")))


def test_the_part_of_a_network_needs_no_more_frames_than_it_says(video: Path) -> None:
    frames = list(VideoReader(video))
    for kind in NETWORKS:
        for shots in (False, True):
            one = restorer(kind, shots=shots)
            whole = [tensor for _, tensor in one.restore_tensors(frames)]
            for first, stop in ((0, 10), (13, 20), (30, 31)):
                part = list(one.restore_part(frames[: stop + one.lookahead], first, stop))
                assert [position for position, _ in part] == list(range(first, stop))
                assert all(torch.equal(tensor, whole[position]) for position, tensor in part)


def test_kinds_are_all_there() -> None:
    assert {net().contract.kind for net in NETWORKS.values() if isinstance(net(), Network)} == {
        "image", "window", "stream", "clip"
    }  # fmt: skip
