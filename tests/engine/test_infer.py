from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deblurkit.engine.infer import Encoding, expand, infer
from deblurkit.engine.pipeline import restore_into
from deblurkit.engine.restore import Restorer
from deblurkit.errors import DataError, DeblurkitError
from tests.support.networks import CopyImage, CopyWindow
from tests.support.videos import decoded, pictures, write_video


def restorer(net: Any = None) -> Restorer:
    return Restorer(net or CopyWindow(), device="cpu")


def test_where_results_go(tmp_path: Path) -> None:
    one = write_video(tmp_path / "one.mp4", pictures(2))
    two = write_video(tmp_path / "two.mkv", pictures(2))
    (tmp_path / "there").mkdir()
    cases: list[tuple[list[Path], str | None, list[str]]] = [
        ([one], None, ["one_deblurred.mp4"]),
        ([one], "there", ["there/one_deblurred.mp4"]),
        ([one], "there/", ["there/one_deblurred.mp4"]),
        ([one], "newer", ["newer/one_deblurred.mp4"]),
        ([one], "sub/mine.mkv", ["sub/mine.mkv"]),
        ([one, two], "both", ["both/one_deblurred.mp4", "both/two_deblurred.mkv"]),
    ]
    for inputs, output, expected in cases:
        place = f"{tmp_path}/{output}" if output else None
        results = infer(restorer(), [str(p) for p in inputs], place, overwrite=True)
        assert results == [tmp_path / name for name in expected]
        assert all(len(decoded(path)) == 2 for path in results)


def test_patterns_stand_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("f10.png", "f2.png", "g.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [p.name for p in expand([f"{tmp_path}/f*.png"])] == ["f2.png", "f10.png"]
    monkeypatch.chdir(tmp_path)
    assert list(expand(["f*.png", "g.txt"])) == [Path("f2.png"), Path("f10.png"), Path("g.txt")]
    (tmp_path / "odd[1].png").write_bytes(b"x")
    assert list(expand(["odd[1].png"])) == [Path("odd[1].png")]  # a file of that very name
    with pytest.raises(DataError, match="matches no file"):
        list(expand(["*.mp4"]))


def test_two_inputs_of_one_name_do_not_replace_each_other(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_video(tmp_path / folder / "a.mp4", pictures(2))
    names = [str(tmp_path / folder / "a.mp4") for folder in ("x", "y")]
    with pytest.raises(DeblurkitError, match="1 of 2 inputs failed"):
        infer(restorer(), names, str(tmp_path / "out"), Encoding(), overwrite=True)


class Source:
    """Pictures with their numbers; counts how many of those made were not written yet."""

    def __init__(self, count: int, fail_at: int = -1, pause: float = 0.0) -> None:
        self.count, self.fail_at, self.pause = count, fail_at, pause
        self.made = 0

    def stamped(self) -> Iterator[tuple[Any, int]]:
        for index in range(self.count):
            time.sleep(self.pause)
            if index == self.fail_at:
                raise DataError("decode broke")
            self.made += 1
            yield np.full((4, 4, 3), index % 256, np.uint8), index


class Sink:
    """Remembers what is written."""

    def __init__(self, source: Source, fail_at: int = -1, pause: float = 0.0) -> None:
        self.source, self.fail_at, self.pause = source, fail_at, pause
        self.stamps: list[int] = []
        self.most_waiting = 0

    def write(self, pixels: Any, stamp: int) -> None:
        time.sleep(self.pause)
        if stamp == self.fail_at:
            raise DataError("encode broke")
        assert (pixels == stamp % 256).all()
        self.stamps.append(stamp)
        self.most_waiting = max(self.most_waiting, self.source.made - len(self.stamps))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_the_pipeline_loses_and_invents_nothing(count: int) -> None:
    source = Source(count)
    sink = Sink(source)
    assert restore_into(restorer(), source, sink) == count
    assert sink.stamps == list(range(count))


def test_the_pipeline_holds_a_bounded_number_of_frames() -> None:
    source = Source(200)
    sink = Sink(source, pause=0.001)
    restore_into(restorer(), source, sink)
    assert sink.most_waiting <= 20


def test_the_stages_overlap() -> None:
    """Decoding, restoring and encoding meet, each in the middle of its work on a frame of its own."""
    meeting = threading.Barrier(3, timeout=30)

    class Meets(CopyImage):
        calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            if self.calls == 5:
                meeting.wait()
            return x

    class MeetingSource(Source):
        def stamped(self) -> Iterator[tuple[Any, int]]:
            for pixels, index in super().stamped():
                if index == 7:
                    meeting.wait()
                yield pixels, index

    class MeetingSink(Sink):
        def write(self, pixels: Any, stamp: int) -> None:
            if stamp == 2:
                meeting.wait()
            super().write(pixels, stamp)

    source = MeetingSource(20)
    assert restore_into(restorer(Meets()), source, MeetingSink(source)) == 20


@pytest.mark.parametrize("stage", ["decode", "restore", "encode", "interrupt"])
@pytest.mark.parametrize("at", [0, 3, 59])
def test_an_error_in_any_stage_stops_all_of_them(stage: str, at: int) -> None:
    class Breaks(CopyImage):
        calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            if self.calls == at + 1 and stage in ("restore", "interrupt"):
                raise KeyboardInterrupt if stage == "interrupt" else DataError("restore broke")
            return x

    source = Source(60, fail_at=at if stage == "decode" else -1)
    sink = Sink(source, fail_at=at if stage == "encode" else -1)
    threads = threading.active_count()
    with pytest.raises(
        KeyboardInterrupt if stage == "interrupt" else DataError,
        match=None if stage == "interrupt" else f"{stage} broke",
    ):
        restore_into(restorer(Breaks()), source, sink)
    assert threading.active_count() == threads
    assert sink.stamps == list(range(len(sink.stamps)))
