from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deblurkit.arguments import check_arguments
from deblurkit.build import build_dataset
from deblurkit.data.lmdb_make import make_lmdb
from deblurkit.data.request import SampleRequest
from deblurkit.data.video_dataset import VideoDataset
from deblurkit.errors import DataError, RegistryError
from deblurkit.image_io import encode_png, read_image
from tests.support.trees import make_tree


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree that tests only read: sequences of 5 and 7 frames of 24x40 pixels, and its LMDB."""
    root = make_tree(tmp_path_factory.mktemp("shared") / "tree", frames=(5, 7), size=(24, 40))
    make_lmdb(root)
    return root


def pixels(root: Path, key: str, kind: str) -> np.ndarray:
    sequence, frame = key.split("/")
    return read_image(root / "train" / sequence / kind / f"{frame}.png")


def test_whole_frames(shared):
    data = VideoDataset(shared, "train", num_frame=3)
    assert len(data) == 3 + 5
    sample = data[3]
    assert sample["key"] == "seq001/00000001"
    assert sample["lq"].shape == (3, 24, 40, 3)
    assert sample["gt"].shape == (1, 24, 40, 3)
    assert sample["lq"].dtype == sample["gt"].dtype == torch.uint8
    for i in range(3):
        np.testing.assert_array_equal(sample["lq"][i], pixels(shared, f"seq001/0000000{i}", "blur"))
    np.testing.assert_array_equal(sample["gt"][0], pixels(shared, "seq001/00000001", "sharp"))
    with pytest.raises(IndexError):
        data[8]


@pytest.mark.parametrize(
    ("sampling", "inputs", "targets"),
    [("n_c", (0, 2, 4), (2,)), ("n_l", (0, 2, 4), (0,)), ("n_r", (0, 2, 4), (4,)), ("n_n", (0, 2, 4), (0, 2, 4))],
)
def test_samplings(shared, sampling, inputs, targets):
    sample = VideoDataset(shared, "train", sampling=sampling, num_frame=3, interval=2)[0]
    assert sample["key"] == f"seq000/{targets[0]:08d}"
    for kind, name, positions in (("blur", "lq", inputs), ("sharp", "gt", targets)):
        expected = np.stack([pixels(shared, f"seq000/{p:08d}", kind) for p in positions])
        np.testing.assert_array_equal(sample[name], expected)


def crop_place(root: Path, sample: dict[str, Any]) -> tuple[int, int, tuple[int, ...]]:
    """Where in the frame a sample was cut out, and how it was turned: top, left, (hflip, vflip, transpose)."""
    whole, found = pixels(root, sample["key"], "sharp"), sample["gt"][0].numpy()
    for turns in product((0, 1), repeat=3):
        picture = found.swapaxes(0, 1) if turns[2] else found  # undo: the last first
        picture = picture[::-1] if turns[1] else picture
        picture = picture[:, ::-1] if turns[0] else picture
        h, w = picture.shape[:2]
        for y, x in product(range(whole.shape[0] - h + 1), range(whole.shape[1] - w + 1)):
            if np.array_equal(whole[y : y + h, x : x + w], picture):
                return y, x, turns
    raise AssertionError("not a part of the frame")


def test_crops_and_augmentation(shared):
    always = {"hflip": 1.0, "vflip": 1.0, "transpose": 1.0}
    plain = VideoDataset(shared, "train", num_frame=3)
    turned = VideoDataset(shared, "train", num_frame=3, augment=always)
    some = VideoDataset(shared, "train", num_frame=3, augment={"vflip": 1.0})
    for position in range(6):
        request = SampleRequest(3, 0, position, crop_size=16)
        y, x, turns = crop_place(shared, plain[request])
        assert turns == (0, 0, 0)
        # switching augmentation on moves no crop
        assert crop_place(shared, turned[request]) == (y, x, (1, 1, 1))
        assert crop_place(shared, some[request]) == (y, x, (0, 1, 0))
        frame = pixels(shared, "seq001/00000002", "blur")[y : y + 16, x : x + 16]
        np.testing.assert_array_equal(plain[request]["lq"][2], frame)
        # hflip, vflip, then transpose; the same for every frame and both sides
        np.testing.assert_array_equal(turned[request]["lq"][2], frame[:, ::-1][::-1].swapaxes(0, 1))
        assert all(value.is_contiguous() for value in turned[request].values() if isinstance(value, torch.Tensor))
    whole = turned[SampleRequest(3)]
    assert whole["lq"].shape == (3, 40, 24, 3)


def test_augmentation_probabilities_and_both_ends_of_the_crop(shared):
    data = VideoDataset(shared, "train", num_frame=1, augment={"hflip": 0.5, "transpose": 0.25})
    places = [crop_place(shared, data[SampleRequest(0, 1, i, 22)]) for i in range(120)]
    assert {y for y, _, _ in places} == {0, 1, 2}
    assert {x for _, x, _ in places} == set(range(19))
    hflips, vflips, transposes = (sum(turns[i] for _, _, turns in places) for i in range(3))
    assert 40 < hflips < 80
    assert vflips == 0
    assert 15 < transposes < 50


def test_randomness_is_of_seed_epoch_and_position_alone(shared):
    def sample(seed: int, index: int, epoch: int, position: int) -> tuple[int, int]:
        data = build_dataset(
            {"type": "VideoDataset", "dataroot": str(shared), "split": "train", "num_frame": 1, "gt_size": 8}, seed
        )
        return crop_place(shared, data[SampleRequest(index, epoch, position, 8)])[:2]

    first = sample(1, 0, 0, 0)
    assert sample(1, 0, 0, 0) == first
    assert sample(1, 5, 0, 0) == first  # another frame, the same draw
    assert len({first, sample(2, 0, 0, 0), sample(1, 0, 1, 0), sample(1, 0, 0, 1)}) == 4


@pytest.mark.parametrize("codec", ["raw", "png"])
def test_disk_and_lmdb_give_the_same_samples(shared, tmp_path, codec):
    root = tmp_path / "tree"
    shutil.copytree(shared, root)
    make_lmdb(root, codec=codec)
    arguments: dict[str, Any] = {"num_frame": 3, "augment": {"hflip": 0.5, "transpose": 0.5}}
    disk = VideoDataset(root, "train", storage="disk", **arguments)
    made = VideoDataset(root, "train", storage="lmdb", **arguments)
    assert (disk.fingerprint()["storage"], made.fingerprint()["storage"]) == ("disk", "lmdb")
    assert disk.fingerprint()["samples"] == made.fingerprint()["samples"] == 8
    for i in range(8):
        for crop in (None, 16):
            one, other = (data[SampleRequest(i, 2, 10 + i, crop)] for data in (disk, made))
            assert one["key"] == other["key"]
            assert torch.equal(one["lq"], other["lq"])
            assert torch.equal(one["gt"], other["gt"])


def test_sixteen_bits_are_kept(tmp_path):
    root = make_tree(tmp_path / "deep", splits=("train",), sequences=1, frames=3, size=(8, 8), dtype=np.uint16)
    expected = read_image(root / "train" / "seq000" / "sharp" / "00000001.png")
    assert expected.dtype == np.uint16
    for _ in range(2):
        sample = VideoDataset(root, "train", num_frame=3)[0]
        assert sample["gt"].dtype == torch.uint16
        np.testing.assert_array_equal(sample["gt"][0].numpy(), expected)
        make_lmdb(root)


class TestClips:
    """What the evaluator sees."""

    def read(self, clip: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
        return list(clip.source), [read() for read in clip.read_gt]

    def test_windows_of_a_sequence_become_one_clip(self, shared):
        clips = VideoDataset(shared, "train", num_frame=5).clips(merge=True)
        assert [(c.sequence, c.scored, c.time_padding) for c in clips] == [
            ("seq000", (2,), None),
            ("seq001", (2, 3, 4), None),
        ]
        assert clips[1].source.length == 7
        assert clips[1].names == ("00000002", "00000003", "00000004")
        frames, truths = self.read(clips[1])
        np.testing.assert_array_equal(frames[6], pixels(shared, "seq001/00000006", "blur"))
        np.testing.assert_array_equal(truths[1], pixels(shared, "seq001/00000003", "sharp"))

    def test_padding_scores_every_frame(self, shared):
        clips = VideoDataset(shared, "train", num_frame=5, padding="reflection").clips(merge=True)
        assert [(c.scored, c.time_padding) for c in clips] == [
            (tuple(range(5)), "reflection"),
            (tuple(range(7)), "reflection"),
        ]

    def test_a_clip_for_every_sample(self, shared):
        data = VideoDataset(shared, "train", sampling="n_n", num_frame=3, overlapping=False)
        clips = data.clips(merge=True)
        assert [(c.sequence, c.scored, c.names) for c in clips] == [
            ("seq000", (0, 1, 2), ("00000000", "00000001", "00000002")),
            ("seq001", (0, 1, 2), ("00000000", "00000001", "00000002")),
            ("seq001", (0, 1, 2), ("00000003", "00000004", "00000005")),
        ]
        frames, truths = self.read(clips[2])
        np.testing.assert_array_equal(frames[0], pixels(shared, "seq001/00000003", "blur"))
        np.testing.assert_array_equal(truths[2], pixels(shared, "seq001/00000005", "sharp"))

    def test_windows_that_are_not_merged(self, shared):
        for arguments, merge in (({"num_frame": 3}, False), ({"num_frame": 3, "interval": 2}, True)):
            clips = VideoDataset(shared, "train", **arguments).clips(merge)
            assert {c.scored for c in clips} == {(1,)}
            assert {c.source.length for c in clips} == {3}
        padded = VideoDataset(shared, "train", num_frame=3, padding="replicate").clips(merge=False)[0]
        assert (padded.names, padded.time_padding) == (("00000000",), None)
        frames, truths = self.read(padded)
        np.testing.assert_array_equal(frames[padded.scored[0]], pixels(shared, "seq000/00000000", "blur"))
        np.testing.assert_array_equal(frames[0], frames[1])
        np.testing.assert_array_equal(truths[0], pixels(shared, "seq000/00000000", "sharp"))

    def test_chunks_and_whole_sequences(self, shared):
        def found(**arguments: Any) -> list[tuple[str, int, tuple[int, ...], Any]]:
            clips = VideoDataset(shared, "train", **{"num_frame": 3, "sampling": "n_n", **arguments}).clips(merge=False)
            assert all(len(c.scored) == len(c.names) == len(c.read_gt) for c in clips)
            return [(c.names[0], c.source.length or 0, c.scored, c.time_padding) for c in clips]

        assert found(chunk="whole") == [
            ("00000000", 5, (0, 1, 2, 3, 4), None),
            ("00000000", 7, (0, 1, 2, 3, 4, 5, 6), None),
        ]
        # the last one is moved back; its first frame is another chunk's already
        assert found(chunk={"length": 4})[2:] == [
            ("00000000", 4, (0, 1, 2, 3), None),
            ("00000004", 4, (1, 2, 3), None),
        ]
        context = {"sampling": "context", "past": 1, "future": 1}
        assert found(chunk={"length": 4}, **context)[2:] == [
            ("00000001", 4, (1, 2), None),
            ("00000003", 4, (1, 2), None),
            ("00000005", 4, (2,), None),
        ]
        assert found(chunk="whole", **context)[0] == ("00000001", 5, (1, 2, 3), None)
        padded = found(chunk="whole", padding="reflection", **context)[0]
        assert padded == ("00000000", 5, (0, 1, 2, 3, 4), "reflection")
        assert found(overlapping=False)[0] == ("00000000", 3, (0, 1, 2), None)  # a sample is a clip
        with pytest.raises(DataError, match=r"overlap 1 must be at least 2 \(past \+ future\)"):
            found(chunk={"length": 4, "overlap": 1}, **context)


class TestBadInput:
    """One clear line each."""

    def test_crop_larger_than_the_frames(self, shared):
        data = VideoDataset(shared, "train", storage="disk", num_frame=1)
        with pytest.raises(DataError) as caught:
            data[SampleRequest(0, crop_size=32)]
        path = shared / "train" / "seq000" / "sharp" / "00000000.png"
        assert str(caught.value) == f"{path}: frames of 40x24 are smaller than the crop of 32x32; lower gt_size"

    def test_sizes_that_differ(self, tmp_path):
        root = make_tree(tmp_path / "tree", splits=("train",), sequences=1, frames=3, size=(24, 40))
        path = root / "train" / "seq000" / "blur" / "00000002.png"
        path.write_bytes(encode_png(read_image(path)[:20]))
        data = VideoDataset(root, "train", num_frame=3)
        with pytest.raises(DataError, match=r"blur/00000002\.png is 40x20, .*sharp/00000001\.png is 40x24"):
            data[0]

    def test_bits_that_differ(self, tmp_path):
        root = make_tree(tmp_path / "tree", splits=("train",), sequences=1, frames=3, size=(24, 40))
        path = root / "train" / "seq000" / "blur" / "00000002.png"
        path.write_bytes(encode_png(read_image(path).astype(np.uint16)))
        with pytest.raises(DataError, match="mixes pictures of 8 and 16 bits"):
            VideoDataset(root, "train", num_frame=3)[0]

    def test_truncated_file(self, tmp_path):
        root = make_tree(tmp_path / "tree", splits=("train",), sequences=1, frames=1, size=(24, 40))
        path = root / "train" / "seq000" / "blur" / "00000000.png"
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(DataError, match=rf"{path}: is cut off"):
            VideoDataset(root, "train", num_frame=1)[0]

    def test_sequences_that_are_too_short(self, shared, capsys):
        with pytest.raises(DataError, match="every sequence is too short for a sample: num_frame 9, interval 1 need 9"):
            VideoDataset(shared, "train", num_frame=9)
        assert len(VideoDataset(shared, "train", num_frame=7)) == 1
        assert "too short for a sample (num_frame 7, interval 1 need 7 frames): seq000 (5 frames)" in (
            capsys.readouterr().err
        )

    def test_augmentations_are_checked(self, shared):
        with pytest.raises(DataError, match="'hflpi' is unknown; did you mean 'hflip'"):
            VideoDataset(shared, "train", augment={"hflpi": 0.5})  # type: ignore[dict-item]
        with pytest.raises(DataError, match="vflip is a probability from 0 to 1, got 2"):
            VideoDataset(shared, "train", augment={"vflip": 2})

    def test_options_find_mistakes_before_anything_is_read(self):
        good = {"dataroot": "x", "split": "train"}
        assert check_arguments(VideoDataset, {**good, "augment": {"hflip": 0.5}, "padding": None}) == []
        wrong = {
            "sampling": "n_x",
            "storage": "disc",
            "layout": "goppro",
            "padding": "mirror",
            "augment": {"rot": 1},
            "num_frame": "five",
            "frames": 5,
        }
        found = {path[0] for path, _ in check_arguments(VideoDataset, {**good, **wrong})}
        assert found == set(wrong)
        with pytest.raises(RegistryError, match="split"):
            build_dataset({"type": "VideoDataset", "dataroot": "x"})
