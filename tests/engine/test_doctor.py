from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
import torch

from deblurkit.engine import doctor


def test_codecs_are_tried_and_not_only_looked_up() -> None:
    found = [text for ok, text in doctor._codecs() if ok]
    assert found[1:] == [f"{codec}: 4 frames were encoded and 4 decoded" for codec in ("libx264", "libx265", "ffv1")]


def test_a_codec_that_is_missing_or_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = av.open

    def without_x265(file: Any, mode: str = "r", **more: Any) -> Any:
        container = plain(file, mode, **more)
        if mode == "r":
            return container
        add = container.add_stream

        def add_stream(codec: str, **options: Any) -> Any:
            if codec == "libx265":
                raise ValueError("no codec libx265")
            return add(codec, **options)

        return _Opened(container, add_stream)

    monkeypatch.setattr(av, "open", without_x265)
    found = list(doctor._codecs())
    assert [ok for ok, _ in found] == [True, True, False, True]
    assert found[2][1].startswith("libx265: no codec libx265; install PyAV from PyPI")


class _Opened:
    """An output whose `add_stream` is another."""

    def __init__(self, container: Any, add_stream: Any) -> None:
        self._container, self.add_stream, self.mux = container, add_stream, container.mux

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *error: object) -> None:
        self._container.close()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="looks at /dev/shm")
def test_little_shared_memory_matters_to_several_gpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=64 << 20))
    for devices, enough in ((0, True), (1, True), (2, False)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=devices: count)
        ((ok, text),) = doctor._shared_memory()
        assert ok == enough
        assert text.startswith("64 MiB free in /dev/shm")
        assert ("--shm-size=1g" in text) != enough

    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(multiprocessing, "Lock", full)
    ((ok, text),) = doctor._shared_memory()
    assert not ok
    assert "No space left on device; data loading workers cannot start" in text
