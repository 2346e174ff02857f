"""What is random about a sample, one thing at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from deblurkit.data.augment import ORIENTATION, Augment, turn
from deblurkit.data.prefetcher import to_device, to_float
from deblurkit.data.request import SampleRequest
from deblurkit.data.video_dataset import VideoDataset
from deblurkit.errors import DataError
from deblurkit.image_io import read_image
from tests.support.trees import make_tree

ALL = ("hflip", "vflip", "transpose", "rot90", "reverse", "rgb_shuffle", "noise")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("augment") / "tree", splits=("train",), frames=(7, 12), size=(24, 40))


def generator(number: int = 0) -> np.random.Generator:
    return np.random.default_rng(number)


def test_switching_one_on_changes_no_other():
    """The same draws whatever is switched on, and in the same order."""
    nothing = Augment({}, (0, 10)).draw(generator())
    for name in ALL:
        drawn = Augment({name: 1.0}, (0, 10)).draw(generator())
        assert getattr(drawn, name)
        assert drawn._replace(**{name: False}) == nothing
    rng = generator()
    Augment(dict.fromkeys(ALL, 1.0), (0, 10)).draw(rng)
    left = generator()
    Augment({}, (0, 10)).draw(left)
    assert rng.random() == left.random()


def test_orientations():
    frame = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)

    def turned(**names: float) -> np.ndarray:
        augment = Augment(names, (0, 10))  # type: ignore[arg-type]
        return turn(frame, augment.draw(generator()).orientation)

    np.testing.assert_array_equal(turned(rot90=1), np.rot90(frame))
    # a turn counter-clockwise is a transposition, then a flip top-bottom
    np.testing.assert_array_equal(turned(rot90=1), frame.swapaxes(0, 1)[::-1])
    np.testing.assert_array_equal(turned(hflip=1, transpose=1, rot90=1), np.rot90(frame[:, ::-1].swapaxes(0, 1)))


def test_three_flips_give_all_eight_orientations_equally_often():
    frame = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    augment = Augment({"hflip": 0.5, "vflip": 0.5, "transpose": 0.5}, (0, 10))
    rng = generator(1)
    counts: dict[bytes, int] = {}
    for _ in range(1600):
        found = turn(frame, augment.draw(rng).orientation).tobytes()
        counts[found] = counts.get(found, 0) + 1
    assert len(counts) == 8
    assert min(counts.values()) > 140


def test_colours_come_in_all_orders_alike_for_both_sides(root):
    data = VideoDataset(root, "train", num_frame=3, augment={"rgb_shuffle": 1.0})
    plain = VideoDataset(root, "train", num_frame=3)
    orders = set()
    for position in range(60):
        request = SampleRequest(0, 0, position)
        shuffled, straight = data[request], plain[request]
        found = [
            order
            for order in np.ndindex(3, 3, 3)
            if len(set(order)) == 3 and np.array_equal(straight["lq"].numpy()[..., order], shuffled["lq"].numpy())
        ]
        assert len(found) == 1
        np.testing.assert_array_equal(straight["gt"].numpy()[..., found[0]], shuffled["gt"].numpy())
        orders.add(found[0])
    assert len(orders) == 6


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_noise_has_the_strength_that_was_asked_for(tmp_path, dtype):
    root = make_tree(tmp_path / "tree", splits=("train",), sequences=1, frames=3, size=(96, 96), dtype=dtype)
    arguments: dict[str, Any] = {"num_frame": 3, "augment": {"noise": 1.0}}
    plain = VideoDataset(root, "train", num_frame=3)[0]
    step = np.iinfo(dtype).max / 255
    noisy = VideoDataset(root, "train", noise_sigma=(4.0, 4.0), **arguments)[0]
    np.testing.assert_array_equal(noisy["gt"], plain["gt"])
    clean = plain["lq"].numpy().astype(float)
    inside = (clean > 20 * step) & (clean < 235 * step)  # where nothing is clipped
    noise = noisy["lq"].numpy().astype(float) - clean
    assert noisy["lq"].dtype == plain["lq"].dtype
    assert noise[inside].std() / step == pytest.approx(4, rel=0.02)
    assert abs(noise[inside].mean()) / step < 0.1
    assert not np.array_equal(noise[0], noise[1])
    drawn = []
    data = VideoDataset(root, "train", noise_sigma=(2.0, 6.0), **arguments)
    for position in range(12):
        other = data[SampleRequest(0, 0, position)]["lq"].numpy().astype(float) - clean
        drawn.append(other[inside].std() / step)
    assert 2 <= min(drawn) < 3.5 < 4.5 < max(drawn) <= 6.1
    np.testing.assert_array_equal(data[SampleRequest(0, 0, 3)]["lq"], data[SampleRequest(0, 0, 3)]["lq"])


def names(sample: dict[str, Any], root: Path, side: str, kind: str) -> list[int]:
    """Which frames of the sequence a sample holds."""
    folder = root / "train" / sample["key"].split("/")[0] / kind
    pictures = [read_image(path) for path in sorted(folder.iterdir())]
    return [next(i for i, p in enumerate(pictures) if np.array_equal(p, frame)) for frame in sample[side].numpy()]


@pytest.mark.parametrize(
    ("sampling", "slots"), [("n_c", [2]), ("n_l", [0]), ("n_r", [4]), ("n_n", [0, 1, 2, 3, 4]), ("context", [1, 2])]
)
def test_backwards_every_sampling_restores_the_right_frame(root, sampling, slots):
    arguments: dict[str, Any] = {"sampling": sampling, "num_frame": 5, "past": 1, "future": 2}
    data = VideoDataset(root, "train", augment={"reverse": 1.0}, **arguments)
    plain = VideoDataset(root, "train", **arguments)
    for index in range(len(data)):
        sample = data[index]
        inputs = names(sample, root, "lq", "blur")
        assert inputs == names(plain[index], root, "lq", "blur")[::-1]
        assert names(sample, root, "gt", "sharp") == [inputs[slot] for slot in slots]
        assert int(sample["key"].split("/")[1]) == inputs[slots[0]]


def test_half_of_the_samples_are_reversed(root):
    data = VideoDataset(root, "train", num_frame=3, augment={"reverse": 0.5})
    backwards = 0
    for position in range(100):
        inputs = names(data[SampleRequest(2, 0, position)], root, "lq", "blur")
        backwards += inputs[0] > inputs[-1]
    assert 30 < backwards < 70


@pytest.mark.parametrize("sampling", ["n_c", "n_l", "n_r", "n_n"])
def test_intervals_are_drawn_for_each_sample(root, sampling):
    data = VideoDataset(root, "train", sampling=sampling, num_frame=5, interval_list=[1, 2, 3])
    assert len(data) == len(VideoDataset(root, "train", sampling=sampling, num_frame=5))
    seen: dict[int, set[int]] = {7: set(), 12: set()}
    for index in range(len(data)):
        for position in range(12):
            sample = data[SampleRequest(index, 0, position)]
            inputs = names(sample, root, "lq", "blur")
            (step,) = set(np.diff(inputs).tolist())
            seen[7 if sample["key"].startswith("seq000") else 12].add(step)
            assert set(names(sample, root, "gt", "sharp")) <= set(inputs)
    # 5 frames at 2 are 9 frames, at 3 they are 13: more than there are
    assert seen == {7: {1}, 12: {1, 2}}
    with pytest.raises(DataError, match="an evaluation needs one interval"):
        data.clips(merge=True)


def test_what_is_refused(root):
    for changes, message in (
        ({"augment": {"noise": 1.5}}, "noise is a probability from 0 to 1, got 1.5"),
        ({"augment": {"rotate": 1.0}}, "'rotate' is unknown"),
        ({"noise_sigma": (5.0, 1.0)}, "noise_sigma is a range"),
        ({"interval_list": [0, 1]}, "has steps of 1 or more"),
        ({"interval_list": [1, 2], "interval": 2}, "replaces interval 2"),
        ({"chunk": "whole"}, "chunk is for samplings that restore successive frames"),
        ({"chunk": "whole", "sampling": "n_n", "interval": 2}, "n_n and context with interval 1"),
        ({"chunk": {"overlap": 2}, "sampling": "n_n"}, "has no length"),
    ):
        with pytest.raises(DataError, match=message):
            VideoDataset(root, "train", **changes)  # type: ignore[arg-type]


EVERYTHING: dict[str, Any] = {"augment": dict.fromkeys(ALL, 0.5)}


class Marked(VideoDataset):
    """A subclass that makes something of whole samples, as a plugin may."""

    def __getitem__(self, request: SampleRequest | int) -> dict[str, Any]:
        sample = super().__getitem__(request)
        return {**sample, "corner": sample["lq"][0, 0, 0].float()}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_turning_on_the_device_is_turning_the_sample(tmp_path, dtype):
    root = make_tree(tmp_path / "tree", splits=("train",), frames=(5, 5), size=(24, 40), dtype=dtype)
    data = VideoDataset(root, "train", num_frame=3, **EVERYTHING)
    requests = [SampleRequest(0, 0, position, 16) for position in range(40)]
    batch = default_collate([data.for_transport(request) for request in requests])
    assert set(batch[ORIENTATION].tolist()) == set(range(8))
    moved = to_device(batch, torch.device("cpu"))
    assert set(moved) == {"lq", "gt", "key"}
    for i, request in enumerate(requests):
        for name in ("lq", "gt"):
            assert torch.equal(moved[name][i], to_float(data[request][name]))


def test_frames_that_are_not_square_travel_turned(root):
    data = VideoDataset(root, "train", num_frame=3, **EVERYTHING)
    shapes = set()
    for position in range(20):
        request = SampleRequest(0, 0, position)
        sent, whole = data.for_transport(request), data[request]
        assert sent[ORIENTATION] == 0
        assert torch.equal(sent["lq"], whole["lq"])
        shapes.add(tuple(whole["lq"].shape))
    assert shapes == {(3, 24, 40, 3), (3, 40, 24, 3)}


def test_a_subclass_sees_whole_samples(root):
    data, plain = (
        Marked(root, "train", num_frame=3, **EVERYTHING),
        VideoDataset(root, "train", num_frame=3, **EVERYTHING),
    )
    for position in range(8):
        request = SampleRequest(0, 0, position, 16)
        sent = data.for_transport(request)
        assert ORIENTATION not in sent
        assert torch.equal(sent["lq"], plain[request]["lq"])
        assert torch.equal(sent["corner"], sent["lq"][0, 0, 0].float())
