from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deblurkit.archs.dbn_arch import DBN
from deblurkit.contract import FrameContract
from deblurkit.engine import memory, runner
from deblurkit.engine.memory import PeakMemory, largest_tile, peak_bytes
from deblurkit.engine.restore import Restorer
from deblurkit.engine.tiling import Grid
from deblurkit.errors import DeviceError
from deblurkit.network import Network
from tests.engine.test_shots import scene
from tests.support.networks import ConvWindow, CopyImage, Enlarge, NeighbourClip, RunningMean
from tests.support.videos import pictures


def restored(net: Network, frames: Any, **settings: Any) -> Tensor:
    return torch.stack([t for _, t in Restorer(net, device="cpu", **settings).restore_tensors(frames)])


def test_tiles_of_dbn_equal_whole_frames() -> None:
    torch.manual_seed(1)
    net = DBN(inner_channels=4)
    frames = pictures(2, (40, 405))
    whole = restored(net, frames)
    for tile in (64, 100):
        assert (restored(net, frames, tile=tile) - whole).abs().max() <= 1e-5


@pytest.mark.parametrize("tile", [5, 16, 100])
@pytest.mark.parametrize("size", [(37, 50), (4, 61), (40, 40)])
def test_tiles_equal_whole_frames(tile: int, size: tuple[int, int]) -> None:
    frames = pictures(3, size)
    for net in (
        ConvWindow(),
        ConvWindow(min_size=24),
        ConvWindow(square=True, pad="replicate"),
        ConvWindow(pad="zeros"),
        RunningMean(1, 1, multiple=4),
        NeighbourClip(multiple=(4, 8)),
        Enlarge(),
    ):
        torch.testing.assert_close(restored(net, frames, tile=tile), restored(net, frames), rtol=0, atol=1e-5)


@pytest.mark.parametrize("halo", ["global", "data"])
@pytest.mark.parametrize("scale", [1, 2])
def test_blended_tiles_add_up_without_seams(halo: Any, scale: int) -> None:
    """A network that copies gives the frame back: the weights add up to 1 everywhere."""
    net = Enlarge(halo=halo) if scale == 2 else CopyImage(halo=halo, multiple=8)
    for size in ((70, 131), (64, 64), (65, 9)):
        frames = pictures(1, size)
        for tile in (8, 24, 64):
            torch.testing.assert_close(restored(net, frames, tile=tile), restored(net, frames), rtol=0, atol=1e-5)


def test_blended_tiles_fade_into_each_other() -> None:
    """Tiles of different brightness: no step between neighbouring pixels is larger than the fade allows."""

    class TileMean(CopyImage):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((-1, -2), keepdim=True).expand_as(x)

    frame = np.zeros((64, 256, 3), np.uint8)
    frame[:, 128:] = 255
    out = restored(TileMean(halo="global"), [frame], tile=64)[0]
    steps = (out[:, :, 1:] - out[:, :, :-1]).abs()
    assert out[:, :, -1].min() - out[:, :, 0].max() > 0.9
    assert steps.max() < 0.02


def test_a_tile_never_uploads_the_whole_frame() -> None:
    seen: list[tuple[int, ...]] = []

    class Look(CopyImage):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(tuple(x.shape))
            return x

    Restorer(Look(halo=6, multiple=4), device="cpu", tile=16).restore_image(pictures(1, (64, 80))[0])
    assert set(seen) == {(1, 3, 32, 32)}
    assert len(seen) == 4 * 5


def test_tiles_start_at_multiples_and_cover_everything_once() -> None:
    contract = FrameContract(kind="image", multiple=8, min_size=32, halo=9)
    for height, width, tile in ((100, 203, 24), (33, 1, 8), (500, 64, 64)):
        grid = Grid(contract, height, width, tile)
        padded = contract.padded_size(height, width)
        count = np.zeros(padded, int)
        for t in grid.tiles:
            for span, side in ((t.rows, padded[0]), (t.columns, padded[1])):
                assert span.start % 8 == 0
                assert 0 <= span.start <= span.core_start < span.core_stop <= span.stop <= side
                assert span.stop - span.start >= 32
                assert span.core_start - span.start >= 9 or span.start == 0
                assert span.stop - span.core_stop >= 9 or span.stop == side
            count[t.rows.core_start : t.rows.core_stop, t.columns.core_start : t.columns.core_stop] += 1
        assert (count == 1).all()


def test_peak_memory_counts_what_lives_at_one_time() -> None:
    with PeakMemory() as tracker:
        a = torch.zeros(1000, device="meta")
        b = a + 1
        del a
        c = b.view(10, 100) * 2  # a view costs nothing
        del b
        tracker_live = tracker.live
        d = c + c
    assert tracker_live == 4000
    assert tracker.peak == 8000
    del d


def test_the_estimate_is_the_same_with_and_without_content() -> None:
    net = DBN(inner_channels=4).eval()
    on_meta = peak_bytes(net, 64, 96)
    assert on_meta == memory._peak_of_run(net, 64, 96, None)
    assert peak_bytes(net, 128, 96) == pytest.approx(2 * on_meta, rel=0.01)


def test_networks_that_look_at_content_are_measured_on_small_frames() -> None:
    class Choosy(CopyImage):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.mean().item() > 0.5 else x + 1

    assert peak_bytes(Choosy(), 640, 640) >= 640 * 640 * 3 * 4 * 2


def test_the_largest_tile_that_fits() -> None:
    assert largest_tile(lambda side: side * side, [64, 128, 192, 256], int(128 * 128 / memory.MARGIN) + 1) == 128
    assert largest_tile(lambda side: side * side, [64, 128], 1 << 40) == 128
    assert largest_tile(lambda side: side * side, [64, 128], 10) is None


def test_auto_takes_tiles_only_where_frames_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    net = DBN(inner_channels=4)
    frames = pictures(2, (96, 560))
    plenty = Restorer(net, device="cpu", tile="auto")
    whole = torch.stack([t for _, t in plenty.restore_tensors(frames)])
    assert plenty._runner._grids[96, 560].whole
    assert capsys.readouterr().err == ""

    room = int(peak_bytes(net, 96, 560) / memory.MARGIN * 0.8)
    monkeypatch.setattr(runner, "free_bytes", lambda device: room)
    tight = Restorer(net, device="cpu", tile="auto")
    out = torch.stack([t for _, t in tight.restore_tensors(frames)])
    assert not tight._runner._grids[96, 560].whole
    assert (out - whole).abs().max() <= 1e-5
    assert "tiles of" in capsys.readouterr().err

    monkeypatch.setattr(runner, "free_bytes", lambda device: 1000)
    with pytest.raises(DeviceError, match="too little"):
        list(Restorer(net, device="cpu", tile="auto").restore_tensors(frames))


def test_running_out_of_memory_is_one_clear_line() -> None:
    class Hungry(CopyImage):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(DeviceError, match="--tile auto"):
        Restorer(Hungry(), device="cpu").restore_image(pictures(1)[0])


def test_free_memory_is_known() -> None:
    assert 1 << 20 < memory.free_bytes(torch.device("cpu")) < 1 << 50


def seam(change: Tensor, borders: list[int]) -> float:
    """How much steeper, across borders of tiles, what tiling changes in a frame is than between other columns.

    Mean absolute differences of neighbouring columns, over the columns at the borders and over all others.
    """
    steps = (change[..., 1:] - change[..., :-1]).abs().mean((0, 1))
    at = torch.zeros(len(steps), dtype=torch.bool)
    at[[border - 1 for border in borders]] = True
    return float(steps[at].mean() / steps[~at].mean())


class Normalise(CopyImage):
    """Mean and contrast of the whole input become those of a standard: every tile is changed by other amounts."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 + 0.2 * (x - x.mean((-1, -2), keepdim=True)) / x.std((-1, -2), keepdim=True)


@pytest.mark.parametrize("tile", [64, 96])
@pytest.mark.parametrize("seed", range(3))
def test_tiles_of_networks_that_see_everything_show_no_seams(tile: int, seed: int) -> None:
    net = Normalise(halo="global")
    frame = scene(seed, (96, 480))
    frame = np.rint(frame * np.linspace(0.2, 1, 480)[:, None]).astype(np.uint8)
    whole, tiled = (restored(net, [frame], tile=side)[0] for side in (0, tile))
    grid = Grid(net.contract, 96, 480, tile)
    borders = sorted({tile.columns.core_start for tile in grid.tiles} - {0})
    side_by_side = torch.zeros_like(tiled)
    for part in grid.tiles:
        y, x = part.rows, part.columns
        own = restored(net, [np.ascontiguousarray(frame[y.start : y.stop, x.start : x.stop])])[0]
        own = own[:, y.core_start - y.start : y.core_stop - y.start, x.core_start - x.start : x.core_stop - x.start]
        side_by_side[:, y.core_start : y.core_stop, x.core_start : x.core_stop] = own
    assert (tiled - whole).abs().max() > 0.1  # tiles do differ
    assert seam(side_by_side - whole, borders) > 2
    assert seam(tiled - whole, borders) < 1.1
