from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deblurkit.build import build_dataset
from deblurkit.engine import evaluate, exact
from deblurkit.engine.exact import restore_exactly
from deblurkit.engine.launch import Place
from deblurkit.engine.map_store import MapStore
from deblurkit.engine.pixels import to_pixels
from deblurkit.engine.restore import Restorer
from deblurkit.engine.runner import Runner
from deblurkit.errors import DeblurkitError
from deblurkit.image_io import read_image
from deblurkit.metrics import PROTOCOLS
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY
from deblurkit.testing import stir
from tests.support.networks import NeighbourClip
from tests.support.trees import write_pairs

CPU = torch.device("cpu")
SIZE = (22, 27)
CASES = [
    pytest.param("BasicVSR", {}, id="BasicVSR"),
    pytest.param("BasicVSRPlusPlus", {}, id="BasicVSR++"),
    pytest.param("BasicVSRPlusPlus", {"is_low_res_input": True}, id="BasicVSR++ x4"),
    pytest.param("RealBasicVSRNet", {}, id="RealBasicVSR"),
    pytest.param("RealBasicVSRNet", {"dynamic_refine_thres": 1e-6}, id="RealBasicVSR, three cleanings"),
]


def _runner(name: str, arguments: dict[str, Any], dtype: torch.dtype | None = None) -> Runner:
    cls = ARCH_REGISTRY.get(name)
    net: Network = cls(**{**cls.check_args, **arguments})  # type: ignore[attr-defined]
    stir(net.eval())
    return Runner(net, CPU, dtype, 0, 1)


def _frames(count: int) -> list[Any]:
    return list(np.random.randint(0, 256, (count, *SIZE, 3), np.uint8))


def _whole(runner: Runner, frames: list[Any]) -> torch.Tensor:
    """What the network gives on the whole clip at once."""
    contract = runner.net.contract
    height, width = contract.padded_size(*SIZE)
    x = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2) / 255
    x = torch.nn.functional.pad(x, (0, width - SIZE[1], 0, height - SIZE[0]), mode=contract.pad)
    with torch.no_grad():
        restored = runner.net.run(x[None])["restored"][0]
    return restored[..., : SIZE[0] * contract.scale, : SIZE[1] * contract.scale]


@pytest.mark.parametrize("budget", [None, 0, 300_000], ids=["in memory", "on disk", "both"])
@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_equals_the_whole_clip(name: str, arguments: dict[str, Any], budget: int | None, tmp_path: Path) -> None:
    runner, frames = _runner(name, arguments), _frames(5)
    found = list(restore_exactly(runner, iter(frames), budget=budget, folder=tmp_path))
    assert [position for position, _ in found] == list(range(5))
    torch.testing.assert_close(torch.stack([one for _, one in found]), _whole(runner, frames), rtol=1e-5, atol=1e-5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_short_clips(name: str, arguments: dict[str, Any], count: int) -> None:
    runner, frames = _runner(name, arguments), _frames(count)
    found = [one for _, one in restore_exactly(runner, frames)]
    torch.testing.assert_close(torch.stack(found), _whole(runner, frames), rtol=1e-5, atol=1e-5)


def test_how_often_is_cleaned_depends_on_all_frames() -> None:
    """A threshold between the changes of the first and the second cleaning stops after the second."""
    runner, frames = _runner("RealBasicVSRNet", {}), _frames(4)
    net: Any = runner.net
    x = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None] / 255
    with torch.no_grad():
        torch.nn.init.zeros_(net.image_cleaning[1].weight)
        net.image_cleaning[1].bias.fill_(0.1)
        net.image_cleaning[0].main[0].weight.zero_()
        net.dynamic_refine_thres = 0.1 - 1e-4  # three passes
        cleaned = net.run(x)["cleaned"]
        torch.testing.assert_close(cleaned, x + 0.3)
        net.dynamic_refine_thres = 0.1 + 1e-4  # one
    walks: list[str] = []
    list(restore_exactly(runner, frames, advance=lambda sweep, done, count: walks.append(sweep)))
    assert walks == ["clean"] * 4 + ["backward"] * 4  # and the last one, whose results show how far it is
    net.dynamic_refine_thres = 0.1 - 1e-4
    walks.clear()
    list(restore_exactly(runner, frames, advance=lambda sweep, done, count: walks.append(sweep)))
    assert walks.count("clean") == 12


def test_bf16_and_no_frames() -> None:
    runner, frames = _runner("BasicVSRPlusPlus", {}, torch.bfloat16), _frames(3)
    found = torch.stack([one for _, one in restore_exactly(runner, frames)])
    expected = _whole(runner, frames)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).norm() / expected.norm() < 0.05
    assert list(restore_exactly(runner, [])) == []


def test_deep_pixels_and_floats_keep_their_depth(tmp_path: Path) -> None:
    runner = _runner("BasicVSR", {})
    floats = [np.random.default_rng(i).random((*SIZE, 3), np.float32) for i in range(3)]
    deep = [(frame * 65535).round().astype(np.uint16) for frame in floats]
    with torch.no_grad():
        x = torch.from_numpy(np.stack(floats)).permute(0, 3, 1, 2)
        expected = runner.net.run(x[None])["restored"][0]
    for frames, tolerance in ((floats, 1e-5), (deep, 1e-4)):
        found = [one for _, one in restore_exactly(runner, frames, budget=0, folder=tmp_path)]
        torch.testing.assert_close(torch.stack(found), expected, rtol=0, atol=tolerance)


def test_the_restorer_takes_this_way_shot_by_shot() -> None:
    net, frames = _runner("BasicVSRPlusPlus", {}).net, _frames(5)
    restorer = Restorer(net, "cpu", clip_length=2, clip_overlap=0, shots=[0, 3], exact=True)
    found = torch.stack([one for _, one in restorer.restore_tensors(frames)])
    runner = Runner(net, CPU, None, 0, 1)
    expected = torch.cat([_whole(runner, frames[:3]), _whole(runner, frames[3:])])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    some = dict(restorer.restore_tensors(frames, [1, 4]))
    assert list(some) == [1, 4]
    torch.testing.assert_close(some[4], expected[4], rtol=1e-5, atol=1e-5)
    segments = torch.stack(
        [one for _, one in Restorer(net, "cpu", clip_length=2, clip_overlap=0).restore_tensors(frames)]
    )
    assert (segments - expected).abs().max() > 1e-4


@pytest.mark.parametrize("at_once", [2, 100])
def test_long_clips_are_evaluated_exactly(at_once: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The figures are those of the whole clip, whether it is seen at once or frame by frame."""
    write_pairs(tmp_path / "test/clip/blur", tmp_path / "test/clip/sharp", [f"{i}.png" for i in range(5)], size=SIZE)
    dataset = build_dataset(
        {"type": "VideoDataset", "dataroot": str(tmp_path), "split": "test", "layout": "paired", "sampling": "n_n",
         "num_frame": 2, "chunk": "whole"}
    )  # fmt: skip
    runner = _runner("BasicVSRPlusPlus", {})
    steps: list[str] = []
    step = runner.net.sweep_step
    monkeypatch.setattr(runner.net, "sweep_step", lambda *given: steps.append(given[0]) or step(*given))
    monkeypatch.setattr(evaluate, "AT_ONCE", at_once)
    protocol = PROTOCOLS.get("basicsr-rgb/1")
    found = evaluate.evaluate(runner.net, dataset, protocol, Place(CPU), "clips")
    assert len(found.scores) == 5
    assert bool(steps) == (at_once == 2)
    frames = [read_image(tmp_path / f"test/clip/blur/{i}.png") for i in range(5)]
    sharp = [read_image(tmp_path / f"test/clip/sharp/{i}.png") for i in range(5)]
    restored = [to_pixels(one, np.uint8) for one in _whole(runner, frames)]
    expected = np.mean(
        [10 * np.log10(255**2 / np.mean((a - 1.0 * b) ** 2)) for a, b in zip(restored, sharp, strict=True)]
    )
    assert found.average["psnr"] == pytest.approx(expected, abs=1e-3)


def test_a_line_now_and_then_before_the_first_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    list(restore_exactly(_runner("BasicVSR", {}), _frames(2)))
    assert "backward" not in capsys.readouterr().err
    monkeypatch.setattr(exact, "_REPORT_EVERY_SECONDS", 0)
    list(restore_exactly(_runner("BasicVSR", {}), _frames(2)))
    assert capsys.readouterr().err.splitlines()[-1] == "before the first result: backward, 2 of 2 frames"


def test_other_networks_are_refused() -> None:
    with pytest.raises(DeblurkitError, match="NeighbourClip has no exact form"):
        next(restore_exactly(Runner(NeighbourClip(), CPU, None, 0, 1), _frames(2)))


@pytest.mark.parametrize("budget", [0, 1000, 10_000, 10**9])
def test_the_store_keeps_to_its_budget(budget: int, tmp_path: Path) -> None:
    kept: dict[tuple[str, int], torch.Tensor] = {}
    generator = np.random.default_rng(0)
    dtypes = [torch.float32, torch.bfloat16, torch.uint8, torch.float16, torch.uint16]
    with MapStore(budget, tmp_path) as store:
        for _ in range(300):
            name, position = str(generator.integers(4)), int(generator.integers(20))
            if generator.random() < 0.05:
                store.drop(name)
                kept = {key: value for key, value in kept.items() if key[0] != name}
            dtype = dtypes[int(generator.integers(len(dtypes)))]
            value = torch.randint(0, 200, (int(generator.integers(1, 50)), 10)).to(dtype)
            store.put(name, position, value)
            kept[name, position] = value
            assert store.in_memory <= budget
        for key, value in kept.items():
            assert key in store
            assert torch.equal(store.get(*key).double(), value.double())
        assert ("9", 0) not in store
        assert store.peak <= budget
        assert (store.on_disk > 0) == (budget < 10**9)
        # maps that were replaced make room for others: the file does not grow with every one that is put
        assert store.on_disk < 80 * 2 * 50 * 10 * 4
    assert not list(tmp_path.iterdir())


def test_parts_of_larger_tensors_do_not_keep_these() -> None:
    with MapStore(10**6) as store:
        store.put("half", 0, torch.rand(2, 1000).chunk(2)[0])
        assert store.get("half", 0).untyped_storage().nbytes() == 4000


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    def breaking() -> Any:
        yield from _frames(3)
        raise OSError("the disk of the source has gone")

    with pytest.raises(OSError, match="the source has gone"):
        list(restore_exactly(_runner("BasicVSR", {}), breaking(), budget=0, folder=tmp_path))
    assert not list(tmp_path.iterdir())
    found = restore_exactly(_runner("BasicVSR", {}), _frames(3), budget=0, folder=tmp_path)
    next(found)
    found.close()  # a consumer that stops early
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Full:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.closed = False

        def seek(self, offset: int) -> None: ...

        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(DeblurkitError, match=r"No space left on device.*choose a folder on a larger disk"):
        list(restore_exactly(_runner("BasicVSR", {}), _frames(2), budget=0, folder=tmp_path))
    monkeypatch.undo()
    with pytest.raises(DeblurkitError, match="No such file or directory"):
        list(restore_exactly(_runner("BasicVSR", {}), _frames(2), budget=0, folder=tmp_path / "missing"))
