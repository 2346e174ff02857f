"""The demo's footage: sizes, the same for the same number, enough motion for a blur, and lossless files."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from deblurkit.data.synthesis import Averaging, average_frames
from deblurkit.video.reader import VideoReader
from deblurkit.video.source import SequenceSource

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def scene() -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    try:
        import demo_scene
    finally:
        sys.path.remove(str(SCRIPTS))
    return demo_scene


def test_frames_are_the_same_for_the_same_number(scene: ModuleType) -> None:
    first, again, other = (scene.Room(seed).render(0.1) for seed in (1, 1, 2))
    assert first.shape == (scene.HEIGHT, scene.WIDTH, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 10


def test_an_exposure_is_blurred(scene: ModuleType) -> None:
    frames = list(scene.Room(3).frames(14))
    source = SequenceSource("room", [lambda frame=frame: frame for frame in frames])
    for blur, sharp in average_frames(source, Averaging(7)):
        error = np.square(blur.astype(float) - sharp).mean()
        assert 15 < 10 * np.log10(255**2 / error) < 40
        fine = [np.abs(np.diff(picture.astype(float), axis=1)).mean() for picture in (blur, sharp)]
        assert fine[0] < fine[1]


def test_files(scene: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["demo_scene.py", str(tmp_path), "--train", "1", "--test", "1", "--frames", "2"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setenv("PYTHONPATH", str(SCRIPTS))  # the rooms are rendered by processes of their own
    scene.main()
    for seed, path in ((1, tmp_path / "train" / "room_1.mkv"), (2, tmp_path / "test" / "room_2.mkv")):
        video = VideoReader(path)
        assert video.rate == scene.RATE
        for frame, expected in zip(video, scene.Room(seed).frames(2), strict=True):
            np.testing.assert_array_equal(frame, expected)
