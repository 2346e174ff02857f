"""Every file in options/ is valid and works, on a tiny tree and with a small network of the same form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import torch

from deblurkit.engine.catalogue import build_weightless
from deblurkit.engine.checkpoint import save_network
from deblurkit.engine.evaluate import run_test
from deblurkit.engine.launch import Place
from deblurkit.engine.train import train
from deblurkit.errors import RegistryError
from deblurkit.losses.perceptual_loss import VGG19_LAYERS
from deblurkit.network import Network
from deblurkit.options import DatasetOptions, Options, load_options
from deblurkit.registry import ARCH_REGISTRY
from tests.support.losses import write_vgg19
from tests.support.trees import write_pairs

FOLDER = Path(__file__).parent.parent / "options"
FILES = sorted(path.name for path in FOLDER.glob("*.yml"))
TESTS = [name for name in FILES if name.startswith("test_")]
TRAININGS = [name for name in FILES if name not in TESTS]
CPU = Place(torch.device("cpu"))
FRAMES = 6
#: The layers that are there for perceptual losses.
VGG_LAYERS = VGG19_LAYERS[: VGG19_LAYERS.index("conv3_3") + 1]
#: Where the blurred and the sharp frames of a sequence lie in each layout.
PLACES = {
    "bsd": ("{split}/000/Blur/RGB", "{split}/000/Sharp/RGB"),
    "dvd": ("{split}/video/input", "{split}/video/GT"),
    "gopro": ("{split}/GOPR0001_11_00/{lq}", "{split}/GOPR0001_11_00/sharp"),
    "paired": ("{split}/room/{lq}", "{split}/room/sharp"),
    "photos": ("one", "other"),  # all of them are photos
    "reds": ("{split}/{split}_{lq}/{clip}", "{split}/{split}_sharp/{clip}"),
}


@cache
def read(name: str) -> Options:
    return load_options(FOLDER / name, "test" if name in TESTS else "train")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tree in the form of each layout, with all that recipes name, large enough for each of the networks."""
    roots = {layout: tmp_path_factory.mktemp(layout) for layout in PLACES}
    entries = [
        entry.arguments for name in FILES for entry in read(name).datasets.values() if "layout" in entry.arguments
    ]
    entries = [entry for entry in entries if "layout" in entry]
    for layout, split, lq in {(entry["layout"], entry["split"], entry.get("lq", "blur")) for entry in entries}:
        scale = 4 if lq.endswith("bicubic") else 1
        lq = f"{lq}/X4" if scale > 1 else lq
        folders = ["train", "val"] if split.endswith("reds4") else [split]
        # of the clips 000 and 001 of train, the first is in the split reds4
        for folder, clip in product(folders, ("000", "001") if layout == "reds" else ("",)):
            blurred, sharp = (roots[layout] / p.format(split=folder, lq=lq, clip=clip) for p in PLACES[layout])
            write_pairs(blurred, sharp, [f"{i:08d}.png" for i in range(FRAMES)], size=(128, 136), scale=scale)
    return roots


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vgg19(tmp_path_factory.mktemp("vgg") / "vgg19.pth", last=VGG_LAYERS[-1])


def small_network(options: Options) -> dict[str, Any]:
    """The recipe's network with as many of its arguments for checks as leave its form (frames, outputs) as it is."""
    assert options.network_g is not None
    name, arguments = options.network_g.type, options.network_g.arguments
    checked = ARCH_REGISTRY.get(name).check_args  # type: ignore[attr-defined]

    def form(candidate: Mapping[str, Any]) -> Any:
        try:
            net = build_weightless(name, candidate)
        except RegistryError:  # arguments that do not go together
            return None
        assert isinstance(net, Network)
        return net.contract.kind, net.contract.frames, net.contract.context, net.contract.outputs

    kept = (keys for size in range(len(checked), -1, -1) for keys in combinations(checked, size))
    candidates = ({**arguments, **{key: checked[key] for key in keys}} for keys in kept)
    return {"type": name, **next(c for c in candidates if form(c) == form(arguments))}


def smaller(name: str, trees: Mapping[str, Path], vgg: Path, out: Path) -> list[str]:
    """What must be changed to run a recipe here, as `--set` texts."""
    options = read(name)
    network = small_network(options)
    changes: dict[str, Any] = {
        "network_g": network,
        "path.experiments_root": str(out / "experiments"),
        "path.results_root": str(out / "results"),
        "logger.use_tb_logger": False,
        "val.val_freq": None,
        "path.pretrain_network_g": None,
    }
    for key, entry in options.datasets.items():
        changes |= {f"datasets.{key}.{part}": value for part, value in smaller_data(entry, network, trees).items()}
    if options.train is not None:
        changes |= {"train.total_iter": 3, "train.total_epoch": None}
        if options.train.contrastive is not None:
            changes["train.contrastive.encoder_only"] = 1
        if options.network_d is not None and "num_feat" in options.network_d.arguments:
            changes["network_d.num_feat"] = 8
        for key, loss in options.train.losses.items():
            if loss.type == "PerceptualLoss":
                layers = loss.arguments["layer_weights"].items()
                changes[f"train.losses.{key}.vgg_weights"] = str(vgg)
                changes[f"train.losses.{key}.layer_weights"] = {k: v for k, v in layers if k in ("image", *VGG_LAYERS)}
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


def smaller_data(entry: DatasetOptions, network: Mapping[str, Any], trees: Mapping[str, Path]) -> dict[str, Any]:
    """Changes of a data set: crops of 32 pixels or the fewest that the network takes, batches of one sample."""
    net = build_weightless(network["type"], {key: value for key, value in network.items() if key != "type"})
    assert isinstance(net, Network)
    side = net.contract.padded_size(32, 32)[0] * net.contract.scale
    arguments = entry.arguments
    changes: dict[str, Any] = {"num_worker_per_gpu": 0}
    if "roots" in arguments:  # of several kinds of degradation
        frames = trees["gopro"] / "train" / "GOPR0001_11_00"
        sides = {"lq": str(frames / "blur"), "gt": str(frames / "sharp")}
        changes["roots"] = {kind: sides["gt"] if kind == "denoise" else sides for kind in arguments["roots"]}
    else:
        changes["dataroot"] = str(trees[arguments["layout"]])
    if net.contract.kind in ("clip", "stream"):
        changes["num_frame"] = sum(net.contract.context) + 2
    if arguments.get("anchors"):
        changes["anchors"] = [arguments["num_frame"] // 2]
    if isinstance(arguments.get("chunk"), dict):
        changes["chunk"] = {"length": changes["num_frame"]}
    if entry.iters:
        stages = len(entry.iters)
        changes |= {"iters": [1] * stages, "gt_sizes": [side] * stages, "mini_batch_sizes": [1] * stages}
    elif entry.gt_size:
        changes |= {"gt_size": side, "batch_size_per_gpu": 1}
    return changes


@pytest.mark.parametrize("name", FILES)
def test_is_valid_and_says_where_it_comes_from(name: str) -> None:
    options = read(name)
    first = (FOLDER / name).read_text().partition("\n")[0]
    assert first.startswith("# ")
    assert len(first) > 40
    # weights that a recipe makes: this one, or for training one that comes before
    runs = [options.name] if name in TESTS else [read(other).name for other in TRAININGS]
    weights = options.path.pretrain_network_g
    assert weights is None or any(f"/{run}/" in weights for run in runs)


@pytest.mark.parametrize("name", TESTS)
def test_there_is_a_recipe_for_what_is_tested(name: str) -> None:
    trained = [weights_of(read(other)) for other in TRAININGS if read(other).name == read(name).name]
    assert weights_of(read(name)) in trained


def weights_of(options: Options) -> tuple[str, dict[str, torch.Size]]:
    """The network and the sizes of its weights: a test may differ in what is not trained."""
    assert options.network_g is not None
    net = build_weightless(options.network_g.type, options.network_g.arguments)
    return options.network_g.type, {key: value.shape for key, value in net.state_dict().items()}


@pytest.mark.parametrize("name", TRAININGS)
def test_trains(name: str, trees: dict[str, Path], vgg: Path, tmp_path: Path) -> None:
    options = load_options(FOLDER / name, "train", smaller(name, trees, vgg, tmp_path))
    assert train(options, CPU) == 0
    record = json.loads((tmp_path / "experiments" / options.name / "run.json").read_text())
    assert record["iterations"] == 3
    assert record["finished"]


@pytest.mark.parametrize("name", TESTS)
def test_tests(name: str, trees: dict[str, Path], vgg: Path, tmp_path: Path) -> None:
    options = load_options(FOLDER / name, "test", smaller(name, trees, vgg, tmp_path))
    assert options.network_g is not None
    net = ARCH_REGISTRY.get(options.network_g.type)(**options.network_g.arguments)
    save_network(tmp_path / "net.pth", net)
    folder = run_test(options, str(tmp_path / "net.pth"), CPU)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics["datasets"]) == list(options.sets("test") or options.sets("val"))
    for result in metrics["datasets"].values():
        assert result["average"]["psnr"] > 0
