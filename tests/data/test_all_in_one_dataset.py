"""`AllInOneDataset`: which kinds and pictures come when, the two views, noise, and how pairs are found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deblurkit.build import build_dataset
from deblurkit.data.all_in_one_dataset import AllInOneDataset
from deblurkit.data.all_in_one_pictures import add_noise
from deblurkit.data.loader import build_loader
from deblurkit.data.prefetcher import prefetch
from deblurkit.data.request import SampleRequest
from deblurkit.errors import DataError, RegistryError
from deblurkit.image_io import write_image
from deblurkit.options import DatasetOptions
from tests.support.trees import make_tree

CROP = 16


def write_pictures(folder: Path, names: list[str], size: tuple[int, int] = (39, 50), seed: int = 0) -> Path:
    """Pictures in which no two pixels of a channel are alike, nor those of two pictures; but for the noise."""
    for number, name in enumerate(names):
        rng = np.random.default_rng((seed, number))
        write_image(folder / name, rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    return folder


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Clean pictures, rain as Rain100L names it, haze in several strengths as OTS does, and a small blurred video."""
    root = tmp_path_factory.mktemp("all_in_one")
    write_pictures(root / "bsd", ["a.png", "b.png"])
    write_pictures(root / "wed", ["c.png"], seed=1)
    write_pictures(root / "rain" / "rainy", ["rain-1.png", "rain-2.png"], seed=2)
    write_pictures(root / "rain" / "gt", ["norain-1.png", "norain-2.png", "norain-3.png"], seed=3)
    write_pictures(root / "haze" / "synthetic" / "part1", ["01_0.8_0.1.png", "01_0.9_0.2.png"], seed=4)
    write_pictures(root / "haze" / "synthetic" / "part2", ["02_0.8_0.1.png"], seed=5)
    write_pictures(root / "haze" / "original", ["01.png", "02.png"], seed=6)
    make_tree(root / "blur", splits=("train",), sequences=1, frames=3, size=(32, 40))
    return {
        "denoise": [str(root / "bsd"), str(root / "wed")],
        "derain": {
            "lq": str(root / "rain" / "rainy"),
            "gt": str(root / "rain" / "gt"),
            "match": "rain-(.+)",
            "gt_name": r"norain-\1",
        },
        "dehaze": {
            "lq": str(root / "haze" / "synthetic"),
            "gt": str(root / "haze" / "original"),
            "match": "([^_]+)_.+",
            "gt_name": r"\1",
        },
        "deblur": {"dataroot": str(root / "blur"), "split": "train", "layout": "paired"},
    }


def make(roots: dict[str, Any], types: list[str], **arguments: Any) -> AllInOneDataset:
    mapping = {"type": "AllInOneDataset", "types": types, "samples_per_type": 6, **arguments}
    needed = {"denoise" if name.startswith("denoise") else name for name in types}
    dataset = build_dataset({"roots": {name: roots[name] for name in needed}, **mapping}, seed=3)
    assert isinstance(dataset, AllInOneDataset)
    return dataset


def sample(dataset: AllInOneDataset, position: int, epoch: int = 0) -> dict[str, Any]:
    return dataset[SampleRequest(index=0, epoch=epoch, position=position, crop_size=CROP)]


ALL = ["denoise_15", "denoise_25", "denoise_50", "derain", "dehaze", "deblur"]


def test_kinds_take_turns_and_all_pictures_come_before_one_comes_again(roots: dict[str, Any]) -> None:
    dataset = make(roots, ALL)
    assert len(dataset) == 36
    samples = [sample(dataset, position, epoch) for epoch in range(2) for position in range(36)]
    orders = set()
    for start in range(0, 72, 6):
        kinds = [one["degradation"] for one in samples[start : start + 6]]
        assert sorted(kinds) == sorted(ALL)
        orders.add(tuple(kinds))
    assert len(orders) > 6  # not always the same one
    for kind in ALL:
        keys = [one["key"] for one in samples if one["degradation"] == kind]
        pictures = 2 if kind == "derain" else 3
        assert all(key.startswith(f"{kind}/") for key in keys)
        for start in range(0, 12, pictures):  # across the end of the epoch as well
            assert len(set(keys[start : start + pictures])) == pictures
    assert len({tuple(one["key"] for one in samples[36 * epoch : 36 * epoch + 36]) for epoch in range(2)}) == 2


def test_a_sample_depends_on_seed_epoch_and_position_alone(roots: dict[str, Any]) -> None:
    one, other = make(roots, ALL), make(roots, ALL)
    sample(other, 7)  # what was asked for before does not matter
    for position in range(6):
        a, b = sample(one, position), other[SampleRequest(5, 0, position, CROP)]
        assert a.keys() == b.keys() == {"lq", "lq_2", "gt", "gt_2", "key", "degradation"}
        assert all(torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a)
        assert all(a[k].shape == (1, CROP, CROP, 3) and a[k].dtype == torch.uint8 for k in ("lq", "lq_2", "gt", "gt_2"))
    other.seed = 4
    assert any(not torch.equal(sample(one, p)["gt"], sample(other, p)["gt"]) for p in range(6))


def _find(view: np.ndarray, picture: np.ndarray) -> set[tuple[int, int, int]]:
    """Top, left and mode of a view in a picture."""
    found = set()
    for mode in range(8):
        back = view[::-1] if mode % 2 else view
        back = np.rot90(back, -(mode // 2))
        inner = picture[: 1 - CROP, : 1 - CROP]
        for y, x in np.argwhere((inner == back[0, 0]).all(axis=2)):
            if np.array_equal(picture[y : y + CROP, x : x + CROP], back):
                found.add((int(y), int(x), mode))
    return found


def test_two_views_of_a_clean_picture_are_turned_alike_and_never_left_as_they_are(roots: dict[str, Any]) -> None:
    from deblurkit.image_io import read_image

    dataset = make(roots, ["denoise_25"])
    pictures = {path.stem: read_image(path) for root in roots["denoise"] for path in Path(root).iterdir()}
    modes, places = Counter(), []
    for epoch in range(4):
        for position in range(6):
            one = sample(dataset, position, epoch)
            picture = pictures[one["key"].split("/")[1]]
            (first,), (second,) = (_find(one[name][0].numpy(), picture) for name in ("gt", "gt_2"))
            assert first[2] == second[2] != 0
            modes[first[2]] += 1
            places += [first[:2], second[:2]]
            assert first[:2] != second[:2] or epoch  # two crops are drawn
    assert len(modes) >= 5
    # 39x50 is cut to 32x48 from its middle: rows 3 to 34, columns 1 to 48
    assert {y for y, _ in places} <= set(range(3, 3 + 17))
    assert {x for _, x in places} <= set(range(1, 1 + 33))
    assert max(x for _, x in places) > 25


def test_pairs_are_cut_at_one_place_and_turned_each_their_own_way(roots: dict[str, Any]) -> None:
    from deblurkit.image_io import read_image

    dataset = make(roots, ["derain"])
    rainy, clean = (
        {path.stem.split("-")[1]: read_image(path) for path in Path(roots["derain"][side]).iterdir()}
        for side in ("lq", "gt")
    )
    alike = 0
    for position in range(12):
        one = sample(dataset, position % 6, position // 6)
        name = one["key"].split("-")[1]
        turns = []
        for view in ("", "_2"):
            (lq,), (gt,) = (_find(one[k + view][0].numpy(), p[name]) for k, p in (("lq", rainy), ("gt", clean)))
            assert lq == gt
            turns.append(lq[2])
        alike += turns[0] == turns[1]
    assert alike < 8


def test_noise_is_clipped_and_cut_as_upstream_does() -> None:
    """`clip(x + noise * sigma, 0, 255)` and then `astype(uint8)`, which rounds towards zero."""
    pixels = np.array([0, 10, 100, 250, 255], np.uint8)
    normal = np.array([-1.0, 0.13, -0.5, 0.3, 2.0])
    expected = [0, 13, 87, 255, 255]  # 13.25, 87.5, 257.5
    assert add_noise(pixels, 25, normal).tolist() == expected
    wide = add_noise(pixels.astype(np.uint16) * 257, 25, normal)
    assert wide.dtype == np.uint16
    assert wide.tolist() == [0, int(2570 + 0.13 * 25 * 257), int(25700 - 12.5 * 257), 65535, 65535]


@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_noise_has_its_deviation_and_the_views_their_own(tmp_path: Path, sigma: int) -> None:
    write_image(tmp_path / "grey.png", np.full((64, 64, 3), 128, np.uint8))
    dataset = make({"denoise": str(tmp_path)}, [f"denoise_{sigma}"])
    one = dataset[SampleRequest(0, crop_size=48)]
    first, second = ((one[k].double() - 128).flatten() for k in ("lq", "lq_2"))
    for noise in (first, second):
        assert float(noise.std()) == pytest.approx(sigma, rel=0.05)
        assert abs(float(noise.mean()) + 0.5) < 0.05 * sigma  # cut, not rounded
    assert abs(float(torch.corrcoef(torch.stack((first, second)))[0, 1])) < 0.05


def test_evaluation_sees_whole_pictures_with_the_same_noise_each_time(roots: dict[str, Any]) -> None:
    dataset = make(roots, ["denoise_50", "dehaze"])
    clips = dataset.clips(merge=True)
    assert [(clip.sequence, clip.names) for clip in clips] == [
        ("denoise_50", ("a",)),
        ("denoise_50", ("b",)),
        ("denoise_50", ("c",)),
        ("dehaze", ("part1/01_0.8_0.1",)),
        ("dehaze", ("part1/01_0.9_0.2",)),
        ("dehaze", ("part2/02_0.8_0.1",)),
    ]
    for clip in clips:
        (lq,), (again,), gt = list(clip.source), list(clip.source), clip.read_gt[0]()
        assert lq.shape == gt.shape == (32, 48, 3)
        assert np.array_equal(lq, again)
    noise = np.random.RandomState(0).randn(32, 48, 3) * 50
    gt = clips[0].read_gt[0]()
    assert np.array_equal(next(iter(clips[0].source)), np.clip(gt + noise, 0, 255).astype(np.uint8))
    assert np.array_equal(clips[3].read_gt[0](), clips[4].read_gt[0]())  # both of picture 01
    assert not np.array_equal(clips[3].read_gt[0](), clips[5].read_gt[0]())


def test_a_loader_brings_every_kind_once_in_each_batch(roots: dict[str, Any]) -> None:
    dataset = make(roots, ALL)
    options = DatasetOptions(type="AllInOneDataset", gt_size=CROP, batch_size_per_gpu=6)
    for batch in prefetch(build_loader(dataset, options, seed=3, total_iter=4), "cpu", None):
        assert sorted(batch["degradation"]) == sorted(ALL)
        assert batch["lq_2"].shape == (6, 1, 3, CROP, CROP)
        assert batch["lq_2"].dtype == torch.float32


def test_a_list_chooses_degraded_pictures(roots: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("part1/01_0.9_0.2.png\n\n02_0.8_0.1\n")
    dataset = make({"dehaze": {**roots["dehaze"], "names": str(tmp_path / "names.txt")}}, ["dehaze"])
    assert [clip.names[0] for clip in dataset.clips(False)] == ["part1/01_0.9_0.2", "part2/02_0.8_0.1"]


def test_the_fingerprint_tells_pictures_apart(roots: dict[str, Any], tmp_path: Path) -> None:
    prints = make(roots, ["denoise_50", "derain", "deblur"]).fingerprint()
    assert prints == make(roots, ["denoise_50", "derain", "deblur"]).fingerprint()
    assert {kind: entry["pictures"] for kind, entry in prints.items()} == {"denoise_50": 3, "derain": 2, "deblur": 3}
    other = write_pictures(tmp_path, ["a.png", "b.png", "c.png"], size=(40, 48))
    assert make({"denoise": str(other)}, ["denoise_50"]).fingerprint()["denoise_50"] != prints["denoise_50"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"types": []}, "should name each kind"),
        ({"types": ["denoise_50", "denoise_50"]}, "should name each kind"),
        ({"types": ["derian"]}, "'derian' is unknown.*derain"),
        ({"types": ["denoise_x"]}, "'denoise_x' is unknown"),
        ({"augment_modes": [0, 8]}, "some of 0 to 7"),
        ({"samples_per_type": 0}, "a number from 1"),
        ({"roots": {}}, "`derain` is missing"),
        ({"roots": {"derain": "/nowhere"}}, "is a mapping"),
        ({"roots": {"derain": {"lq": "/nowhere"}}}, "`gt` is missing"),
        ({"roots": {"derain": {"lq": "/nowhere", "gt": "/nowhere"}}}, "/nowhere: does not exist"),
        ({"roots": {"derain": {"lq": "a", "gt": "b", "match": "c"}}}, "go together"),
        ({"roots": {"denoise": "a", "derain": {"lq": "a", "gt": "b"}}}, "'denoise' belongs to no kind"),
    ],
)
def test_what_does_not_fit_is_explained(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_dataset({"type": "AllInOneDataset", "types": ["derain"], "roots": {}, **changes})


def test_pictures_that_do_not_fit_are_named(roots: dict[str, Any], tmp_path: Path) -> None:
    plain = {key: value for key, value in roots["derain"].items() if key in ("lq", "gt")}
    with pytest.raises(DataError, match=r"2 of 2 pictures have no partner .*rain-1 \(rain-1\).*`match`"):
        make({"derain": plain}, ["derain"])
    with pytest.raises(DataError, match="'x' does not fit its name"):
        make({"derain": {**roots["derain"], "match": "x"}}, ["derain"])
    with pytest.raises(DataError, match="names that another folder has: a, b"):
        make({"denoise": [roots["denoise"][0], roots["denoise"][0]]}, ["denoise_50"])
    with pytest.raises(DataError, match="it is 48x32, smaller than the crop of 48x48"):
        make(roots, ["denoise_50"]).check_crop(48)
    with pytest.raises(DataError, match="set gt_size"):
        make(roots, ["denoise_50"])[0]
    write_pictures(tmp_path / "lq", ["a.png"])
    write_pictures(tmp_path / "gt", ["a.png"], size=(40, 50))
    with pytest.raises(DataError, match=r"a\.png and .*a\.png differ in size"):
        make({"derain": {"lq": str(tmp_path / "lq"), "gt": str(tmp_path / "gt")}}, ["derain"]).check_crop(CROP)
    with pytest.raises(DataError, match=r"roots.derain: 'matsch' is unknown.*'match'"):
        make({"derain": {**plain, "matsch": "x"}}, ["derain"])


def test_arguments_are_checked_as_those_of_other_data_sets() -> None:
    with pytest.raises(RegistryError, match="sample_per_type: unknown argument of AllInOneDataset"):
        build_dataset({"type": "AllInOneDataset", "types": [], "roots": {}, "sample_per_type": 3})
