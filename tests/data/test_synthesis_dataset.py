"""`SynthesisDataset`: samples of every kind, the same for any workers, other ones at each visit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deblurkit.build import build_dataset
from deblurkit.data.augment import ORIENTATION
from deblurkit.data.loader import build_loader
from deblurkit.data.prefetcher import prefetch
from deblurkit.data.request import SampleRequest
from deblurkit.data.synthesis import Averaging, average_frames
from deblurkit.data.synthesis_dataset import SynthesisDataset
from deblurkit.errors import DataError, RegistryError
from deblurkit.image_io import read_image
from deblurkit.options import DatasetOptions
from deblurkit.video.source import SequenceSource
from tests.support.layout_trees import gopro_large_all, photos
from tests.support.trees import make_tree, write_pairs

MODES = ("photos", "shake", "average")


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("synthesis")
    sharp = make_tree(folder / "video", sequences=2, frames=30, size=(40, 56))
    return {"photos": photos(folder / "photos"), "shake": folder / "photos", "average": sharp}


def dataset(roots: dict[str, Path], mode: str, seed: int = 7, **arguments: Any) -> SynthesisDataset:
    own = {"layout": "paired", "split": "train", "frames": 3} if mode == "average" else {"motion": [3, 9]}
    made = build_dataset(
        {"type": "SynthesisDataset", "dataroot": str(roots[mode]), "mode": mode, "num_frame": 3, **own, **arguments},
        seed,
    )
    assert isinstance(made, SynthesisDataset)
    return made


@pytest.mark.parametrize("mode", MODES)
def test_a_sample(roots: dict[str, Path], mode: str) -> None:
    data = dataset(roots, mode)
    assert len(data) == (2 * 8 if mode == "average" else 6)
    data.check_crop(24)
    sample = data[SampleRequest(4, 1, 9, 24)]
    assert sample["lq"].shape == (3, 24, 24, 3)
    assert sample["gt"].shape == (1, 24, 24, 3)
    assert sample["lq"].dtype == sample["gt"].dtype == torch.uint8
    assert sample["key"] == ("seq000/00000016" if mode == "average" else "holiday_beach")
    assert sample.keys() == {"lq", "gt", "key"}
    assert (sample["lq"][1] != sample["gt"][0]).any()


@pytest.mark.parametrize("mode", MODES)
def test_single_frames_serve_networks_for_images(roots: dict[str, Path], mode: str) -> None:
    data = pickle.loads(pickle.dumps(dataset(roots, mode, num_frame=1)))  # spawned workers get it so
    sample = data[SampleRequest(0, 0, 0, 24)]
    assert sample["lq"].shape == sample["gt"].shape == (1, 24, 24, 3)


@pytest.mark.parametrize("mode", MODES)
def test_randomness_is_of_seed_epoch_and_position(roots: dict[str, Path], mode: str) -> None:
    data = dataset(roots, mode, augment={"hflip": 0.5, "vflip": 0.5, "transpose": 0.5}, crf=[20, 40])
    one = data[SampleRequest(1, 2, 3, 24)]
    again = dataset(roots, mode, augment={"hflip": 0.5, "vflip": 0.5, "transpose": 0.5}, crf=[20, 40])
    for name in ("lq", "gt"):
        assert torch.equal(one[name], again[SampleRequest(1, 2, 3, 24)][name])
    others = [data[SampleRequest(1, 2, 4, 24)], data[SampleRequest(1, 3, 3, 24)]]
    others.append(dataset(roots, mode, seed=8)[SampleRequest(1, 2, 3, 24)])
    for other in others:
        assert not torch.equal(one["lq"], other["lq"])
        assert not torch.equal(one["gt"], other["gt"])


@pytest.mark.parametrize(
    ("sampling", "slots"), [("n_c", [1]), ("n_l", [0]), ("n_r", [2]), ("n_n", [0, 1, 2]), ("context", [1])]
)
@pytest.mark.parametrize("mode", MODES)
def test_samplings_restore_frames_of_one_clip(
    roots: dict[str, Path], mode: str, sampling: str, slots: list[int]
) -> None:
    request = SampleRequest(2, 0, 0, 24)
    every = dataset(roots, mode, sampling="n_n")[request]
    sample = dataset(roots, mode, sampling=sampling, past=1, future=1)[request]
    assert torch.equal(sample["gt"], every["gt"][slots])
    if mode != "average":  # there the sample's number means another place
        assert torch.equal(sample["lq"], every["lq"])


@pytest.mark.parametrize("mode", MODES)
def test_augmentation(roots: dict[str, Path], mode: str) -> None:
    request = SampleRequest(0, 0, 0, 24)
    plain = dataset(roots, mode, sampling="n_n", noise=[0, 0])[request]
    for name, turned in (
        ("hflip", lambda x: x.flip(2)),
        ("vflip", lambda x: x.flip(1)),
        ("transpose", lambda x: x.transpose(1, 2)),
        ("reverse", lambda x: x.flip(0)),
    ):
        sample = dataset(roots, mode, sampling="n_n", noise=[0, 0], augment={name: 1.0})[request]
        for side in ("lq", "gt"):
            assert torch.equal(sample[side], turned(plain[side])), name
    data = dataset(roots, mode, augment={"transpose": 1.0})
    assert data.for_transport(request)[ORIENTATION] == 4
    shuffled = dataset(roots, mode, noise=[0, 0], augment={"rgb_shuffle": 1.0}, sampling="n_n")[request]
    assert torch.equal(shuffled["gt"].sort(-1).values, plain["gt"].sort(-1).values)


def test_averages_are_those_of_the_frames(roots: dict[str, Path]) -> None:
    data = dataset(roots, "average", noise=[0, 0], stride=4, sampling="n_n", curve="srgb")
    sample = data[SampleRequest(3)]
    folder = roots["average"] / "train" / "seq000" / "sharp"
    frames = [read_image(folder / f"{i:08d}.png") for i in range(12, 24)]
    pairs = list(average_frames(SequenceSource("", [lambda f=f: f for f in frames]), Averaging(3, 4, "srgb")))
    np.testing.assert_array_equal(sample["lq"], np.stack([pair.blur for pair in pairs]))
    np.testing.assert_array_equal(sample["gt"], np.stack([pair.sharp for pair in pairs]))
    assert sample["key"] == "seq000/00000013"
    crop = data[SampleRequest(3, 0, 0, 16)]
    assert crop["lq"].shape == (3, 16, 16, 3)
    whole = sample["lq"][0].numpy()
    windows = np.lib.stride_tricks.sliding_window_view(whole, (16, 16, 3))[:, :, 0]
    assert (windows == crop["lq"][0].numpy()).all((2, 3, 4)).sum() == 1


@pytest.mark.parametrize("mode", MODES)
def test_the_same_batches_for_any_number_of_workers(roots: dict[str, Path], mode: str) -> None:
    batches = []
    for workers in (0, 2):
        options = DatasetOptions(
            type="SynthesisDataset",
            batch_size_per_gpu=2,
            num_worker_per_gpu=workers,
            gt_size=24,
            dataset_enlarge_ratio=2,
        )
        data = dataset(roots, mode, augment={"hflip": 0.5, "transpose": 0.5})
        loader = build_loader(data, options, seed=3, total_iter=4)
        batches.append(list(prefetch(loader, "cpu", "cpu" if workers else None)))
    assert len(batches[0]) == 4
    for one, other in zip(*batches, strict=True):
        assert one["lq"].shape == (2, 3, 3, 24, 24)
        assert torch.equal(one["lq"], other["lq"])
        assert torch.equal(one["gt"], other["gt"])


@pytest.mark.parametrize("mode", MODES)
def test_evaluation_is_always_of_the_same_clips(roots: dict[str, Path], mode: str) -> None:
    data = dataset(roots, mode, frame_size=[32, 40], sampling="n_n")
    first, second = data.clips(merge=True), data.clips(merge=False)
    assert len(first) == len(data)
    for clip, again in zip(first, second, strict=True):
        frames = list(clip.source)
        assert [frame.shape for frame in frames] == [(32, 40, 3)] * 3
        assert clip.scored == (0, 1, 2)
        for read, read_again in zip(clip.read_gt, again.read_gt, strict=True):
            np.testing.assert_array_equal(read(), read_again())
        np.testing.assert_array_equal(frames, list(again.source))
    facts = data.fingerprint()
    assert facts["samples"] == len(data)
    assert facts["mode"] == mode
    assert facts == dataset(roots, mode, frame_size=[32, 40], sampling="n_n").fingerprint()


AUGMENT = {"hflip": 0.5, "vflip": 0.5, "transpose": 0.5, "reverse": 0.5, "rgb_shuffle": 0.5}


def batches(roots: dict[str, Path], device: str = "cpu", workers: int = 0, **arguments: Any) -> list[dict[str, Any]]:
    options = DatasetOptions(
        type="SynthesisDataset", batch_size_per_gpu=2, num_worker_per_gpu=workers, gt_size=24, dataset_enlarge_ratio=2
    )
    data = dataset(roots, "photos", sampling="n_n", augment=AUGMENT, motion=[3, 20], **arguments)
    return list(prefetch(build_loader(data, options, seed=3, total_iter=6), device))


def test_drawing_on_the_device_gives_the_same_frames(roots: dict[str, Path]) -> None:
    worker = batches(roots, noise=[0, 0])
    device = batches(roots, noise=[0, 0], render="device")
    for one, other in zip(worker, device, strict=True):
        assert one.keys() == other.keys()
        assert one["key"] == other["key"]
        for side in ("lq", "gt"):
            assert other[side].shape == one[side].shape == (2, 3, 3, 24, 24)
            assert other[side].dtype == torch.float32
            difference = (one[side] - other[side]).abs() * 255
            assert difference.mean() < 0.4
            assert difference.max() <= 8.5  # at hard edges


def test_drawing_on_the_device_is_repeatable(roots: dict[str, Path]) -> None:
    runs = [batches(roots, noise=[2, 2], render="device", workers=workers) for workers in (0, 0, 2)]
    clean = batches(roots, noise=[0, 0], render="device")
    for one, again, forked, plain in zip(*runs, clean, strict=True):
        for side in ("lq", "gt"):
            assert torch.equal(one[side], again[side])
            assert torch.equal(one[side], forked[side])
        assert torch.equal(one["gt"], plain["gt"])
        noise = (one["lq"] - plain["lq"]) * 255
        assert noise.abs().max() > 1
        assert abs(noise.mean()) < 0.3


@pytest.mark.gpu
def test_drawing_on_a_gpu(roots: dict[str, Path]) -> None:
    for one, other in zip(
        batches(roots, noise=[0, 0], render="device"),
        batches(roots, "cuda", noise=[0, 0], render="device"),
        strict=True,
    ):
        for side in ("lq", "gt"):
            difference = (one[side] - other[side].cpu()).abs() * 255
            assert difference.mean() < 0.05
            assert difference.max() <= 4


@pytest.mark.parametrize("arguments", [{"mode": "shake"}, {"crf": [20, 30]}, {"augment": {"noise": 0.5}}])
def test_what_a_device_cannot_draw(roots: dict[str, Path], arguments: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="render: device is for mode photos"):
        dataset(roots, **{"mode": "photos", **arguments}, render="device")


def test_small_photos_are_stood_in_for(roots: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    data = dataset(roots, "photos")
    data.check_crop(48)
    assert "1 of 6 photos are too small for crops of 48x48: others stand in for them" in capsys.readouterr().err
    assert data[SampleRequest(5, 0, 0, 48)]["lq"].shape == (3, 48, 48, 3)
    with pytest.raises(DataError, match="need a photo that is"):
        data.check_crop(400)
    with pytest.raises(DataError, match="are smaller than the crop of 50x50; lower gt_size"):
        dataset(roots, "average").check_crop(50)


def test_parts_of_a_folder(tmp_path: Path) -> None:
    write_pairs(tmp_path / "photos", tmp_path / "unused", [f"{i}.png" for i in range(40)], (40, 40))
    made = {part: dataset({"photos": tmp_path / "photos"}, "photos", part=part) for part in ("all", "train", "val")}
    assert {part: len(data) for part, data in made.items()} == {"all": 40, "train": 38, "val": 2}
    keys = {made["val"][SampleRequest(i, crop_size=24)]["key"] for i in range(2)}
    assert keys == {"19", "39"}
    few = tmp_path / "few"
    write_pairs(few, tmp_path / "unused", ["1.png", "2.png", "3.png"], (40, 40))
    assert dataset({"photos": few}, "photos", part="val")[SampleRequest(0, crop_size=24)]["key"] == "3"
    assert len(dataset({"photos": few}, "photos", part="train")) == 2
    (few / "1.png").unlink()
    (few / "2.png").unlink()
    with pytest.raises(DataError, match="part train of 1 photo"):
        dataset({"photos": few}, "photos", part="train")


def test_high_frame_rate_video(tmp_path: Path) -> None:
    root = gopro_large_all(tmp_path / "all")
    data = SynthesisDataset(root, "average", split="train", num_frame=3)
    assert len(data) == 2
    assert data[0]["lq"].shape == (3, 24, 32, 3)


@pytest.mark.parametrize(
    ("mode", "arguments", "text"),
    [
        ("photos", {"motion": [9, 3]}, "motion"),
        ("shake", {"motion": [9, 3]}, "a length of"),
        ("photos", {"noise": [2, 1]}, "noise"),
        ("average", {"num_frame": 31}, "every sequence is too short for a sample: 31 exposures need 93 frames"),
        ("average", {"crf": [0, 99]}, "crf 99"),
    ],
)
def test_mistakes(roots: dict[str, Path], mode: str, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match=text):
        dataset(roots, mode, **arguments)


def test_more_mistakes(roots: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="single pictures: use mode photos"):
        SynthesisDataset(roots["photos"], "average", layout="photos")
    with pytest.raises(DataError, match="part 'test' is unknown"):
        SynthesisDataset(roots["photos"], part="test")  # type: ignore[arg-type]
    with pytest.raises(RegistryError, match="did you mean 'motion'"):
        dataset(roots, "photos", motions=[1, 2])
