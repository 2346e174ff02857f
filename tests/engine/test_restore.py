from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deblurkit.contract import Capabilities, PixelConvention
from deblurkit.data.frame_sampling import window_indices
from deblurkit.engine.pixels import to_pixels
from deblurkit.engine.restore import Restorer
from deblurkit.engine.runner import autocast_dtype
from deblurkit.errors import DataError, DeblurkitError, DeviceError, VideoError
from deblurkit.network import Network
from deblurkit.video.reader import VideoReader
from tests.support.networks import ConvWindow, CopyImage, CopyWindow, Enlarge, NeighbourClip, Overflow, RunningMean
from tests.support.videos import copied_packets, pictures, seconds, write_video

PADDINGS = ["replicate", "reflection", "reflection_circle", "circle"]


def tensors(frames: list[Any]) -> Tensor:
    """`(1, T, 3, H, W)` in [0, 1]."""
    return torch.from_numpy(np.stack(frames).astype(np.float32) / np.iinfo(frames[0].dtype).max).permute(0, 3, 1, 2)[
        None
    ]


def restored(net: Network, frames: Any, targets: Any = None, **settings: Any) -> list[Tensor]:
    out = list(Restorer(net, device="cpu", **settings).restore_tensors(frames, targets))
    assert [index for index, _ in out] == (sorted(set(targets)) if targets is not None else list(range(len(out))))
    assert all(t.dtype == torch.float32 and t.device.type == "cpu" for _, t in out)
    return [tensor for _, tensor in out]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("length", range(1, 9))
def test_windows_over_a_stream_equal_windows_made_by_hand(length: int, padding: Any) -> None:
    for frames, target in ((3, 1), (5, 2), (4, 0), (4, 3)):
        net = ConvWindow(frames, target).eval()
        clip = pictures(length, (16, 20))
        x = tensors(clip)
        out = restored(net, iter(clip), time_padding=padding)
        assert len(out) == length
        for center in range(length):
            window = x[:, window_indices(center, target, frames - 1 - target, length, padding)]
            with torch.no_grad():
                torch.testing.assert_close(out[center], net.run(window)["restored"][0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("padding", PADDINGS)
def test_ends_are_completed_as_the_network_declares(padding: Any) -> None:
    clip = pictures(6, (16, 20))
    for make in (ConvWindow, lambda **contract: RunningMean(1, 2, **contract)):
        torch.manual_seed(0)
        plain = make()
        torch.manual_seed(0)
        declaring = make(time_padding=padding)
        own = restored(declaring, clip)
        assert all(map(torch.equal, own, restored(plain, clip, time_padding=padding)))
        assert all(map(torch.equal, restored(declaring, clip, time_padding="circle"),
                       restored(plain, clip, time_padding="circle")))  # fmt: skip
        assert Restorer(declaring, device="cpu").settings["time_padding"] == padding


def test_published_rules_are_declared() -> None:
    from deblurkit.archs.edvr_arch import EDVR
    from deblurkit.archs.pvdnet_arch import PVDNet

    small: dict[str, Any] = {"num_feat": 8, "num_extract_block": 1, "num_reconstruct_block": 1, "deformable_groups": 2}
    assert EDVR(**small, hr_in=True, with_predeblur=True).contract.time_padding == "replicate"
    assert EDVR(**small).contract.time_padding == "reflection_circle"
    assert PVDNet().contract.time_padding == "replicate"


@pytest.mark.parametrize("length", range(1, 9))
@pytest.mark.parametrize("context", [(0, 0), (2, 0), (0, 2), (1, 2)])
def test_a_stream_equals_run_on_the_whole_clip(length: int, context: tuple[int, int]) -> None:
    past, future = context
    net = RunningMean(past, future).eval()
    clip = pictures(length, (8, 8))
    before = window_indices(0, past, future, length, "reflection")[:past]
    after = window_indices(length - 1, past, future, length, "reflection")[past + 1 :]
    x = tensors([clip[i] for i in [*before, *range(length), *after]])
    with torch.no_grad():
        expected = net.run(x)["restored"][0]
    torch.testing.assert_close(torch.stack(restored(net, iter(clip))), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{}, {"past": 1, "future": 2}, {"time_multiple": 4}, {"past": 1, "time_multiple": 3}]
)
@pytest.mark.parametrize("length", [1, 2, 5, 10])
def test_a_clip_that_fits_is_seen_whole(length: int, settings: dict[str, int]) -> None:
    net = NeighbourClip(reach=1, **settings).eval()
    past, future = net.contract.context
    clip = pictures(length, (8, 8))
    before = window_indices(0, past, 0, length, "replicate")[:-1]
    after = window_indices(length - 1, 0, future, length, "replicate")[1:]
    positions = [*before, *range(length), *after]
    positions += positions[-1:] * (-len(positions) % net.contract.time_multiple)
    with torch.no_grad():
        expected = net.run(tensors([clip[i] for i in positions]))["restored"][0, :length]
    out = restored(net, iter(clip), time_padding="replicate")
    torch.testing.assert_close(torch.stack(out), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [*range(1, 30), 47])
def test_segments_with_enough_overlap_equal_the_whole_clip(length: int) -> None:
    clip = pictures(length, (4, 4))
    whole = restored(NeighbourClip(reach=2), clip, clip_length=100)
    parts = restored(NeighbourClip(reach=2), iter(clip), clip_length=9, clip_overlap=2)
    assert len(parts) == length
    torch.testing.assert_close(torch.stack(parts), torch.stack(whole), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "net", [CopyImage(), ConvWindow(5, 2), RunningMean(1, 1), NeighbourClip()], ids=lambda n: n.contract.kind
)
def test_targets_are_what_all_frames_would_give(net: Network) -> None:
    clip = pictures(30, (8, 8))
    settings = {"clip_length": 9, "clip_overlap": 2}
    every = restored(net, clip, **settings)
    for targets in ([0], [29], [3, 4, 5], [20, 2, 2], range(0, 30, 7), []):
        some = restored(net, iter(clip), targets, **settings)
        for index, tensor in zip(sorted(set(targets)), some, strict=True):
            torch.testing.assert_close(tensor, every[index], rtol=0, atol=1e-6)
    with pytest.raises(DataError, match="frame 30 is to be restored, but there are only 30"):
        restored(net, clip, [30], **settings)


def test_no_frames_give_no_frames() -> None:
    for net in (CopyImage(), CopyWindow(), RunningMean(), NeighbourClip()):
        assert restored(net, iter([])) == []


class Counter:
    """Makes frames and counts how many of them are alive."""

    def __init__(self) -> None:
        self.alive = self.most = self.made = 0

    def frames(self, count: int) -> Iterator[Any]:
        for index in range(count):
            frame = np.full((8, 8, 3), index % 256, np.uint8)
            self.alive += 1
            self.made += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(frame, self._gone)
            yield frame
            del frame

    def _gone(self) -> None:
        self.alive -= 1


@pytest.mark.parametrize(
    ("net", "bound"),
    [(CopyImage(), 3), (ConvWindow(5, 2), 11), (RunningMean(1, 2), 9), (NeighbourClip(), 30)],
    ids=lambda value: value.contract.kind if isinstance(value, Network) else "",
)
def test_memory_does_not_grow_with_length(net: Network, bound: int) -> None:
    most = []
    for length in (30, 300):
        counter = Counter()
        restorer = Restorer(net, device="cpu", clip_length=9, clip_overlap=2)
        assert sum(1 for _ in restorer.restore(counter.frames(length))) == length
        most.append(counter.most)
        assert counter.made == length  # each is read once
    assert most[0] == most[1] <= bound


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("net", [CopyImage(), CopyWindow(), CopyImage(multiple=16)], ids=["image", "window", "padded"])
def test_a_network_that_copies_gives_the_pixels_back(net: Network, dtype: Any) -> None:
    frames = pictures(6, (13, 17), dtype)
    for before, after in zip(frames, Restorer(net, device="cpu").restore(iter(frames)), strict=True):
        assert after.dtype == dtype
        np.testing.assert_array_equal(before, after)
    image = Restorer(net, device="cpu").restore_image(frames[0])
    np.testing.assert_array_equal(image, frames[0])


@pytest.mark.parametrize("pad", ["reflect", "replicate", "zeros"])
@pytest.mark.parametrize("size", [(1, 1), (3, 40), (17, 16)])
def test_padding_works_for_frames_smaller_than_it(pad: Any, size: tuple[int, int]) -> None:
    seen: list[Tensor] = []

    class Look(CopyImage):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x

    frame = pictures(1, size)[0]
    net = Look(multiple=16, pad=pad)
    np.testing.assert_array_equal(Restorer(net, device="cpu").restore_image(frame), frame)
    height, width = net.contract.padded_size(*size)
    mode = {"reflect": "reflect", "replicate": "edge", "zeros": "constant"}[pad]
    expected = np.pad(frame, ((0, height - size[0]), (0, width - size[1]), (0, 0)), mode=mode)
    torch.testing.assert_close(seen[0], tensors([expected])[0])


def test_scale_and_sizes_that_differ_among_pictures() -> None:
    frames = [pictures(1, size)[0] for size in ((10, 14), (7, 5), (10, 14))]
    for frame, out in zip(frames, Restorer(Enlarge(), device="cpu").restore(frames), strict=True):
        np.testing.assert_array_equal(out, frame.repeat(2, 0).repeat(2, 1))
    with pytest.raises(DataError, match="frame 1 is 5x7, the first is 14x10"):
        list(Restorer(CopyWindow(), device="cpu").restore(frames))
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(DataError, match="frame 0"):
            list(Restorer(CopyImage(), device="cpu").restore([wrong]))


def test_the_pixel_convention_of_the_weights_is_applied() -> None:
    seen: list[Tensor] = []

    class Look(CopyImage):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x

    net = Look()
    net.io = PixelConvention("bgr", (10.0, 20.0, 30.0), (2.0, 2.0, 2.0), 255.0)
    frame = pictures(1)[0]
    np.testing.assert_array_equal(Restorer(net, device="cpu").restore_image(frame), frame)
    expected = (torch.from_numpy(frame[..., ::-1].astype(np.float32)) - torch.tensor([10.0, 20.0, 30.0])) / 2
    torch.testing.assert_close(seen[0][0], expected.permute(2, 0, 1), rtol=0, atol=1e-4)


def test_read_only_frames_are_taken_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    frame = pictures(1)[0]
    frame.flags.writeable = False
    Restorer(CopyImage(), device="cpu").restore_image(frame)
    assert not [w for w in recwarn if "writ" in str(w.message)]


def test_quantisation_clamps_and_rounds_half_to_even() -> None:
    values = torch.tensor([-0.5, 0.5 / 255, 1.5 / 255, 2.5 / 255, 1.0, 7.0]).view(1, 1, 6)
    np.testing.assert_array_equal(to_pixels(values, np.uint8)[0, :, 0], [0, 0, 2, 2, 255, 255])
    assert to_pixels(torch.full((3, 2, 4), 0.5), np.uint16).shape == (2, 4, 3)
    np.testing.assert_array_equal(to_pixels(torch.tensor([[[1.0]]]), "uint16"), [[[65535]]])
    with pytest.raises(DeblurkitError, match="not numbers"):
        to_pixels(torch.tensor([[[float("nan")]]]), np.uint8)
    with pytest.raises(ValueError, match="uint8 or uint16"):
        to_pixels(values, np.float32)


def test_results_that_overflow_are_computed_again(capsys: pytest.CaptureFixture[str]) -> None:
    frames = pictures(3)
    out = list(Restorer(Overflow(), device="cpu", precision="bf16").restore(frames))
    np.testing.assert_array_equal(out, frames)
    assert capsys.readouterr().err.count("computed again in fp32") == 1


def test_a_stream_that_overflows_goes_on_in_fp32() -> None:
    class Fragile(RunningMean):
        def step(self, x: Tensor, state: Any) -> Any:
            outputs, after = super().step(x, state)
            if torch.is_autocast_enabled("cpu"):
                after = {**after, "mean": after["mean"] / 0}
            return outputs, after

    frames = pictures(4)
    np.testing.assert_array_equal(
        list(Restorer(Fragile(), device="cpu", precision="bf16").restore(frames)),
        list(Restorer(RunningMean(), device="cpu").restore(frames)),
    )


def test_precision_and_device_that_cannot_be() -> None:
    with pytest.raises(DeblurkitError, match="Overflow is not safe in it"):
        Restorer(Overflow(), device="cpu", precision="fp16")
    assert Restorer(Overflow(), device="cpu", precision="auto")._runner.dtype is None
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="cuda"):
            Restorer(CopyImage(), device="cuda")
    for settings in ({"tile": -1}, {"clip_length": 4, "clip_overlap": 2}):
        with pytest.raises(ValueError, match=r"tile|clip_overlap"):
            Restorer(CopyImage(), device="cpu", **settings)


@pytest.mark.parametrize(
    ("bf16", "fp16", "computes_bf16", "expected"),
    [
        (True, True, True, torch.bfloat16),
        (True, True, False, torch.float16),
        (True, False, False, None),
        (False, True, True, torch.float16),
        (False, False, True, None),
    ],
)
def test_the_precision_is_one_that_the_gpu_computes_in(
    bf16: bool, fp16: bool, computes_bf16: bool, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or computes_bf16

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    net = CopyImage(capabilities=Capabilities(bf16=bf16, fp16=fp16))
    assert autocast_dtype(net, "auto", torch.device("cuda")) == expected
    assert autocast_dtype(net, "auto", torch.device("cpu")) is None


@pytest.mark.parametrize("times", [None, [0, 512, 2000, 2600, 9000, 20000, 20512]], ids=["constant", "variable"])
def test_a_restored_video_has_its_frames_times_and_sound(tmp_path: Path, times: list[int] | None) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(7), times=times, audio="aac")
    done: list[int] = []
    count = Restorer(CopyWindow(), device="cpu").restore_video(source, tmp_path / "b.mp4", advance=done.append)
    assert count == sum(done) == 7
    assert seconds(tmp_path / "b.mp4") == seconds(source)
    assert copied_packets(tmp_path / "b.mp4") == copied_packets(source)


@pytest.mark.parametrize("net", [CopyImage(), CopyWindow(5, 2), CopyWindow(3, 0)], ids=["image", "middle", "first"])
def test_a_copied_video_is_lossless_bit_for_bit(tmp_path: Path, net: Network) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(9))
    Restorer(net, device="cpu").restore_video(source, tmp_path / "b.mkv", lossless=True)
    np.testing.assert_array_equal(list(VideoReader(source)), list(VideoReader(tmp_path / "b.mkv")))


def test_restoring_a_video_onto_itself_is_refused(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(2))
    content = source.read_bytes()
    with pytest.raises(DataError, match="is the input"):
        Restorer(CopyImage(), device="cpu").restore_video(source, source)
    assert source.read_bytes() == content
    with pytest.raises(VideoError):
        Restorer(CopyImage(), device="cpu").restore_video(tmp_path / "none.mp4", tmp_path / "b.mp4")
