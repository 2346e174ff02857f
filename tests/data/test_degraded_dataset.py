"""`DegradedVideoDataset`: what a sample holds, that only the seed decides it, evaluation, and what is refused."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from deblurkit.build import build_dataset
from deblurkit.data.base import Sample
from deblurkit.data.degradation_ops import as_frame, as_pixels, unsharp_mask
from deblurkit.data.degraded_dataset import DegradedVideoDataset
from deblurkit.data.lmdb_make import make_lmdb
from deblurkit.data.loader import build_loader
from deblurkit.data.prefetcher import prefetch
from deblurkit.data.request import SampleRequest
from deblurkit.data.video_dataset import VideoDataset
from deblurkit.errors import DataError, OptionsError
from deblurkit.image_io import cv2, read_image
from deblurkit.options import DatasetOptions, load_options
from tests.data.test_degradations import PUBLISHED
from tests.support.trees import make_tree, write_pairs

TO_LQ = {"type": "RandomResize", "resize_opt": ["area"], "resize_prob": [1.0], "target_size": "lq"}
CROP = 32


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences of 5 and 7 frames of 40x52 pixels."""
    return make_tree(tmp_path_factory.mktemp("shared") / "tree", splits=("train",), frames=(5, 7), size=(40, 52))


def dataset(root: Path, degradations: list[Any] | None = None, **more: Any) -> DegradedVideoDataset:
    arguments = {"num_frame": 3, **more}
    return DegradedVideoDataset(root, "train", PUBLISHED if degradations is None else degradations, **arguments)


def area(frames: torch.Tensor, side: int) -> np.ndarray:
    """Frames reduced by area, as pixels."""
    module = cv2()
    small = [module.resize(as_frame(f.numpy()), (side, side), interpolation=module.INTER_AREA) for f in frames]
    return np.stack([as_pixels(frame) for frame in small])


def test_sharp_frames_are_those_of_a_video_dataset(root):
    augment = {"hflip": 0.5, "vflip": 0.5, "transpose": 0.5, "reverse": 0.5, "rgb_shuffle": 0.5}
    plain = VideoDataset(root, "train", sampling="n_n", num_frame=3, augment=augment)
    data = dataset(root, augment=augment)
    assert len(data) == len(plain) == 3 + 5
    for position in range(12):
        request = SampleRequest(position % 8, 0, position, CROP)
        sample, expected = data[request], plain[request]
        assert sample["key"] == expected["key"]
        assert torch.equal(sample["gt"], expected["gt"])
        assert sample["lq"].shape == (3, 8, 8, 3)
        assert sample["lq"].dtype == torch.uint8
        assert "gt_usm" not in sample


def test_degraded_frames_are_made_of_the_sharpened_ones(root):
    request = SampleRequest(2, 0, 1, CROP)
    plain = dataset(root, [TO_LQ])[request]
    np.testing.assert_array_equal(plain["lq"], area(plain["gt"], CROP // 4))
    sample = dataset(root, [TO_LQ], unsharp={})[request]
    assert torch.equal(sample["gt"], plain["gt"])
    sharpened = np.stack([as_pixels(unsharp_mask(as_frame(frame.numpy()))) for frame in sample["gt"]])
    np.testing.assert_array_equal(sample["gt_usm"], sharpened)
    assert not torch.equal(sample["gt_usm"], sample["gt"])
    # made of the sharpened frames before these were rounded
    assert np.abs(sample["lq"].numpy().astype(int) - area(sample["gt_usm"], CROP // 4)).max() <= 1
    assert not torch.equal(sample["lq"], plain["lq"])


def test_a_clip_and_its_mirror_image_in_time(root):
    sample = dataset(root, unsharp={}, mirror_sequence=True)[SampleRequest(1, 0, 0, CROP)]
    assert sample["lq"].shape == (6, 8, 8, 3)
    for side in ("gt", "gt_usm"):
        assert torch.equal(sample[side], sample[side].flip(0))
    assert not torch.equal(sample["lq"], sample["lq"].flip(0))  # it is degraded as a clip of six frames


def test_windows_get_their_middle_frame(root):
    sample = dataset(root, [TO_LQ], sampling="n_c")[SampleRequest(0, 0, 0, CROP)]
    assert sample["lq"].shape == (3, 8, 8, 3)
    assert sample["gt"].shape == (1, CROP, CROP, 3)
    assert sample["key"] == "seq000/00000001"
    np.testing.assert_array_equal(sample["lq"][1], area(sample["gt"], CROP // 4)[0])


def test_whole_frames_are_cut_to_the_scale(tmp_path):
    tree = make_tree(tmp_path / "tree", splits=("train",), sequences=1, frames=3, size=(30, 45))
    sample = dataset(tree, [TO_LQ])[0]
    assert sample["gt"].shape == (3, 28, 44, 3)
    assert sample["lq"].shape == (3, 7, 11, 3)


def test_frames_of_16_bits_keep_them(tmp_path):
    tree = make_tree(tmp_path / "tree", splits=("train",), sequences=1, frames=3, size=(32, 32), dtype=np.uint16)
    sample = dataset(tree, [TO_LQ], unsharp={})[0]
    assert sample["gt"].dtype == torch.uint16
    assert sample["lq"].dtype == torch.uint8
    assert abs(float(sample["lq"].float().mean()) - float(sample["gt"].float().mean()) / 257) < 1.5


def options(root: Path, **changes: Any) -> DatasetOptions:
    values = {
        "type": "DegradedVideoDataset",
        "dataroot": str(root),
        "split": "train",
        "num_frame": 3,
        "mirror_sequence": True,
        "unsharp": {},
        "degradations": PUBLISHED,
        "augment": {"hflip": 0.5, "vflip": 0.5, "transpose": 0.5},
        "gt_size": CROP,
        "batch_size_per_gpu": 2,
        "dataset_enlarge_ratio": 2,
    }
    return DatasetOptions(**{**values, **changes})


def batches(opt: DatasetOptions, first: int = 0, rank: int = 0, world_size: int = 1) -> list[Sample]:
    data = build_dataset(opt.mapping(), seed=5)
    return list(prefetch(build_loader(data, opt, 5, rank, world_size, first, 6), "cpu"))


def assert_same(found: list[Sample], expected: list[Sample]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert value == other[name] if name == "key" else torch.equal(value, other[name])


@pytest.fixture(scope="module")
def expected(root: Path) -> list[Sample]:
    return batches(options(root))


def test_batches_are_float_frames(expected):
    assert expected[0]["lq"].shape == (2, 6, 3, 8, 8)
    assert expected[0]["gt"].shape == expected[0]["gt_usm"].shape == (2, 6, 3, CROP, CROP)
    assert len({batch["lq"].numpy().tobytes() for batch in expected}) == 6


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_nothing(root, expected, workers):
    assert_same(batches(options(root, num_worker_per_gpu=workers)), expected)


def test_a_run_goes_on_from_the_middle_and_processes_share_batches(root, expected):
    assert_same(batches(options(root), first=4), expected[4:])
    halves = zip(*(batches(options(root, batch_size_per_gpu=1), rank=r, world_size=2) for r in range(2)), strict=True)
    joined = [{k: a[k] + b[k] if k == "key" else torch.cat([a[k], b[k]]) for k in a} for a, b in halves]
    assert_same(joined, expected)


class TestEvaluation:
    """Always the same degraded clips."""

    def frames(self, data: DegradedVideoDataset, number: int) -> np.ndarray:
        return np.stack(list(data.clips(merge=False)[number].source))

    def test_clips(self, root):
        data = dataset(root, overlapping=False, unsharp={})
        clips = data.clips(merge=False)
        assert [clip.sequence for clip in clips] == ["seq000", "seq001", "seq001"]
        assert clips[2].names == ("00000003", "00000004", "00000005")
        for number, clip in enumerate(clips):
            degraded = self.frames(data, number)
            assert degraded.shape == (3, 10, 13, 3)
            sharp = [read() for read in clip.read_gt]
            expected = read_image(root / "train" / clip.sequence / "sharp" / f"{clip.names[1]}.png")
            np.testing.assert_array_equal(sharp[1], expected)

    def test_they_are_the_same_in_any_order_and_process(self, root):
        data = dataset(root, overlapping=False)
        forwards = [self.frames(data, number) for number in (0, 1, 2)]
        backwards = [self.frames(pickle.loads(pickle.dumps(data)), number) for number in (2, 1, 0)]
        for one, other in zip(forwards, reversed(backwards), strict=True):
            np.testing.assert_array_equal(one, other)
        other_seed = dataset(root, overlapping=False)
        other_seed.seed = 1
        assert np.any(self.frames(other_seed, 0) != forwards[0])

    def test_a_whole_sequence(self, root):
        data = dataset(root, [TO_LQ], chunk="whole")
        clips = data.clips(merge=False)
        assert [len(clip.scored) for clip in clips] == [5, 7]
        assert np.stack(list(clips[1].source)).shape == (7, 10, 13, 3)


class TestWhereSharpFramesComeFrom:
    """Layouts without degraded frames."""

    def test_reds_with_its_sharp_clips_only(self, tmp_path):
        sharp = tmp_path / "REDS" / "train" / "train_sharp" / "000"
        write_pairs(tmp_path / "unused", sharp, [f"{i:08d}.png" for i in range(4)], size=(32, 40))
        data = DegradedVideoDataset(tmp_path / "REDS", "train", [TO_LQ], layout="reds", num_frame=4)
        assert data[0]["gt"].shape == (4, 32, 40, 3)

    def test_folders_of_frames(self, root, tmp_path):
        shutil.copytree(root / "train" / "seq001" / "sharp", tmp_path / "clips" / "walk")
        data = DegradedVideoDataset(tmp_path / "clips", "all", [TO_LQ], layout="frames", num_frame=7)
        assert data[0]["key"] == "walk/00000000"
        assert data[0]["gt"].shape == (7, 40, 52, 3)

    def test_roots(self, root):
        folder = str(root / "train" / "seq001" / "sharp")
        data = DegradedVideoDataset({"lq": folder}, "train", [TO_LQ], sampling="n_c", num_frame=1)
        assert len(data) == 7

    def test_an_lmdb_that_was_made_of_pairs(self, tmp_path):
        tree = make_tree(tmp_path / "tree", splits=("train",), sequences=1, frames=4, size=(36, 40))
        make_lmdb(tree)
        request = SampleRequest(1, 0, 3, CROP)
        files, lmdb = (dataset(tree, [TO_LQ], storage=storage, lq="blur")[request] for storage in ("disk", "lmdb"))
        assert torch.equal(files["gt"], lmdb["gt"])
        assert torch.equal(files["lq"], lmdb["lq"])

    def test_frames_of_two_sizes(self, tmp_path):
        tree = make_tree(tmp_path / "tree", splits=("train",), sequences=1, frames=3, size=(32, 32))
        path = tree / "train" / "seq000" / "sharp" / "00000001.png"
        cv2().imwrite(str(path), np.zeros((20, 32, 3), np.uint8))
        with pytest.raises(DataError, match=r"00000001\.png: has another size than .*00000000\.png"):
            dataset(tree, [TO_LQ])[0]


class TestErrors:
    """Before training starts."""

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"degradations": []}, "end with RandomResize, target_size: lq"),
            ({"degradations": [{**TO_LQ, "prob": 0.5}]}, "end with RandomResize, target_size: lq"),
            ({"degradations": [TO_LQ, PUBLISHED[1]]}, "end with RandomResize, target_size: lq"),
            ({"unsharp": {"kernel_size": 50}}, r"unsharp\.kernel_size: should be odd"),
            ({"unsharp": {"treshold": 5}}, r"unsharp\.treshold: unknown argument .* 'threshold'"),
            ({"mirror_sequence": True, "sampling": "n_c"}, "mirror_sequence: is for clips"),
            ({"augment": {"noise": 0.5}}, "use RandomNoise"),
        ],
    )
    def test_what_does_not_fit(self, root, change, words):
        with pytest.raises(OptionsError, match=words):
            dataset(root, **{"degradations": [TO_LQ], **change})

    def test_a_fixed_size_that_is_not_that_of_the_crops(self, root):
        data = dataset(root, [{**TO_LQ, "target_size": [8, 8]}])
        data.check_crop(32)
        with pytest.raises(OptionsError, match=r"frames of 8x8, but gt_size 40 and scale 4 need 10x10"):
            data.check_crop(40)
        with pytest.raises(OptionsError, match=r"they end with frames of \[\(8, 8\)\], not of \(10, 13\)"):
            data[0]

    def test_an_options_file_names_the_line(self, root, tmp_path):
        file = tmp_path / "x.yml"
        data = options(root, degradations=[{**PUBLISHED[0], "sigma_x_stp": 1}, TO_LQ]).model_dump()
        network = {"type": "DBN", "num_frames": 5}
        train = {"total_iter": 1, "optim_g": {"type": "Adam"}, "losses": {"pixel": {"type": "L1Loss"}}}
        values = {"schema": "deblurkit/1", "name": "x", "datasets": {"train": data}, "network_g": network}
        file.write_text(yaml.safe_dump({**values, "train": train}))
        with pytest.raises(OptionsError) as caught:
            load_options(file)
        assert "datasets.train.degradations.0.sigma_x_stp: unknown argument of RandomBlur; did you mean" in str(
            caught.value
        )
        assert str(caught.value).startswith(f"{file}:")
        assert "\n" not in str(caught.value)
