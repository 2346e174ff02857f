"""`deblurkit test` and the evaluator: figures, files, and the same result from every road."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import deblurkit
from deblurkit.engine.checkpoint import save_network
from deblurkit.engine.evaluate import evaluate, run_test
from deblurkit.engine.launch import Place
from deblurkit.image_io import read_image
from deblurkit.metrics import PROTOCOLS
from tests.support.runs import command as started
from tests.support.runs import deblurkit as command
from tests.support.runs import environment, write_options
from tests.support.trees import make_tree

ARGUMENTS = {"type": "DBN", "num_frames": 3, "inner_channels": 4, "zero_init_residual": True}
CPU = Place(torch.device("cpu"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "tree"
    make_tree(root, splits=("train", "test"), sequences=2, frames=6, size=(32, 40), seed=1)
    return root


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Untrained with `zero_init_residual`: the network returns its input's middle frame."""
    torch.manual_seed(0)
    save_network(tmp_path / "net.pth", deblurkit.build_network(ARGUMENTS), iteration=0)
    return tmp_path / "net.pth"


def dataset(tree: Path, **arguments: object) -> object:
    mapping = {"type": "VideoDataset", "layout": "paired", "dataroot": str(tree), "split": "test", "num_frame": 3}
    return deblurkit.build_dataset({**mapping, **arguments})


def test_a_network_that_changes_nothing_scores_what_its_input_scores(tree: Path) -> None:
    net = deblurkit.build_network(ARGUMENTS).eval()
    result = evaluate(net, dataset(tree), PROTOCOLS.get("basicsr-rgb/1"), CPU, "test", examples=1)
    assert result.average == result.average_input
    assert len(result.scores) == 8  # two sequences of 6 frames; the first and last have no window of 3
    frame = result.scores[0]
    folder = tree / "test" / frame.sequence
    blurred, sharp = (read_image(folder / kind / f"{frame.frame}.png").astype(float) for kind in ("blur", "sharp"))
    assert frame.input["psnr"] == pytest.approx(10 * np.log10(255**2 / ((blurred - sharp) ** 2).mean()), abs=1e-9)
    picture = result.examples[frame.sequence]
    assert picture.shape == (32, 120, 3)
    assert picture.dtype == np.uint8


def test_merged_windows_score_as_single_windows_do(tree: Path, weights: Path) -> None:
    torch.manual_seed(1)
    net = deblurkit.build_network({**ARGUMENTS, "zero_init_residual": False}).eval()
    data = dataset(tree)
    merged = evaluate(net, data, PROTOCOLS.get("basicsr-rgb/1"), CPU, "test")
    assert len(data.clips(merge=True)) == 2
    assert len(data.clips(merge=False)) == 8
    clips = data.clips
    data.clips = lambda merge: clips(merge=False)
    single = evaluate(net, data, PROTOCOLS.get("basicsr-rgb/1"), CPU, "test")
    assert [s.frame for s in single.scores] == [s.frame for s in merged.scores]
    assert [s.restored for s in single.scores] == [s.restored for s in merged.scores]


def test_border_frames_are_scored_with_padding(tree: Path) -> None:
    net = deblurkit.build_network(ARGUMENTS).eval()
    result = evaluate(net, dataset(tree, padding="reflection"), PROTOCOLS.get("basicsr-rgb/1"), CPU, "test")
    assert len(result.scores) == 12


def test_evaluation_leaves_the_training_mode_as_it_was(tree: Path) -> None:
    net = deblurkit.build_network(ARGUMENTS).train()
    evaluate(net, dataset(tree), PROTOCOLS.get("basicsr-rgb/1"), CPU, "test")
    assert net.training
    assert net.F0.training


def test_command_writes_figures_and_pictures(tree: Path, weights: Path, tmp_path: Path) -> None:
    options = write_options(tmp_path / "tiny.yml", tree)
    done = command("test", "-opt", options, "--weights", weights, "--set", "val.save_img=true")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tiny"
    record = json.loads((folder / "metrics.json").read_text())
    assert record["schema"] == "deblurkit-metrics/1"
    assert record["protocol"]["name"] == "basicsr-rgb/1"
    assert record["network"]["type"] == "DBN"
    val = record["datasets"]["val"]
    assert val["frames"] == 8
    assert val["average"] == val["average_input"]
    assert len(val["sequences"]) == 2
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert len(rows) == 8
    assert {row["protocol"] for row in rows} == {"basicsr-rgb/1"}
    assert np.mean([float(row["psnr"]) for row in rows]) == pytest.approx(val["average"]["psnr"])
    row = rows[3]
    picture = read_image(folder / "images" / "val" / row["sequence"] / f"{row['frame']}.png")
    blurred = read_image(tree / "test" / row["sequence"] / "blur" / f"{row['frame']}.png")
    assert np.array_equal(picture, blurred)
    assert "basicsr-rgb/1" in done.stderr


def test_processes_share_the_work_and_every_frame_counts_once(tree: Path, weights: Path, tmp_path: Path) -> None:
    """One command starts them; there are more of them than sequences."""
    found = []
    for name, more in (("one", ()), ("three", ("--procs", "3", "--device", "cpu"))):
        options = write_options(tmp_path / name / "t.yml", tree)
        arguments = ("test", "-opt", options, "--weights", weights, *more)
        done = subprocess.run(started(*arguments), capture_output=True, text=True, env=environment(), timeout=180)
        assert done.returncode == 0, done.stderr
        folder = options.parent / "results" / "tiny"
        record = json.loads((folder / "metrics.json").read_text())
        found.append((record["datasets"], (folder / "metrics.csv").read_text()))
    assert found[0] == found[1]
    assert len({line.split(",")[1] for line in found[0][1].splitlines()[1:]}) < 3


def test_a_launcher_that_has_started_nothing_is_said(tree: Path, weights: Path, tmp_path: Path) -> None:
    options = write_options(tmp_path / "t.yml", tree)
    done = command("test", "-opt", options, "--weights", weights, "--launcher", "torchrun")
    assert done.returncode == 2
    assert "--launcher torchrun: start it as `torchrun" in done.stderr


def test_validation_in_training_gives_what_the_test_command_gives(tree: Path, tmp_path: Path) -> None:
    options = write_options(tmp_path / "tiny.yml", tree)
    trained = command("train", "-opt", options)
    assert trained.returncode == 0, trained.stderr
    line = next(x for x in trained.stderr.splitlines() if "validation on val at iter 8" in x)
    latest = tmp_path / "experiments" / "tiny" / "models" / "net_g_latest.pth"
    done = command("test", "-opt", options, "--weights", latest)
    assert done.returncode == 0, done.stderr
    figures = next(x for x in done.stderr.splitlines() if x.startswith("val: ")).removeprefix("val: ")
    assert figures in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["no weights to test", "--weights"]),
        (("--weights", "nowhere.pth"), ["nowhere.pth", "no such file"]),
        (("--weights", "NET", "--set", "network_g.inner_channels=6"), ["do not fit", "inner_channels=6"]),
        (("--weights", "NET", "--set", "datasets.val.num_frame=99"), ["too short", "99"]),
        (("--weights", "NET", "--set", "val.protocol=basicsr-rbg/1"), ["did you mean 'basicsr-rgb/1'"]),
    ],
)
def test_bad_input_is_one_message(
    arguments: tuple[str, ...], words: list[str], tree: Path, weights: Path, tmp_path: Path
) -> None:
    options = write_options(tmp_path / "tiny.yml", tree)
    done = command("test", "-opt", options, *(str(weights) if a == "NET" else a for a in arguments))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert not (tmp_path / "results").exists()


def small_estrnn() -> object:
    torch.manual_seed(3)
    net = deblurkit.build_network({"type": "ESTRNN", "n_features": 2, "n_blocks": 1}).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net


def test_a_stream_with_context_sees_only_the_frames_of_its_sample(tree: Path) -> None:
    """SimDeblur's strcnn: n frames in, n - 4 out, beginning with an empty state at the third frame."""
    from deblurkit.engine.pixels import to_pixels

    net = small_estrnn()
    data = dataset(tree, num_frame=6, sampling="context")
    result = evaluate(net, data, PROTOCOLS.get("basicsr-rgb/1"), CPU, "test")
    (clip, *_) = data.clips(merge=False)
    x = torch.from_numpy(np.stack(list(clip.source))).permute(0, 3, 1, 2)[None] / 255
    with torch.no_grad():
        restored = net.run(x)["restored"][0]
    assert len(restored) == 2
    for score, frame, read in zip(result.scores, restored, clip.read_gt, strict=False):
        difference = to_pixels(frame, np.uint8).astype(float) - read()
        assert score.restored["psnr"] == pytest.approx(10 * np.log10(255**2 / (difference**2).mean()), abs=0.02)


def test_a_state_carried_through_the_sequence_is_another_protocol(tree: Path) -> None:
    net, protocol = small_estrnn(), PROTOCOLS.get("basicsr-rgb/1")
    context = {"num_frame": 5, "sampling": "context"}
    whole = evaluate(net, dataset(tree, chunk="whole", **context), protocol, CPU, "test")
    chunks = evaluate(net, dataset(tree, chunk={"length": 5}, **context), protocol, CPU, "test")
    samples = evaluate(net, dataset(tree, **context), protocol, CPU, "test")
    assert [s.frame for s in whole.scores] == [s.frame for s in chunks.scores] == [s.frame for s in samples.scores]
    assert whole.scores[0].restored == chunks.scores[0].restored  # the first frame has no past in either
    assert [s.restored for s in chunks.scores] == [s.restored for s in samples.scores]
    assert whole.scores[1].restored != chunks.scores[1].restored


def test_frames_without_sharp_ones_are_restored_but_not_scored(tree: Path, weights: Path, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    for sequence in ("seq000", "seq001"):
        (frames / sequence).parent.mkdir(exist_ok=True)
        (frames / sequence).symlink_to(tree / "test" / sequence / "blur")
    data = deblurkit.build_dataset({"type": "VideoDataset", "dataroot": str(frames), "split": "all", "num_frame": 3})
    net = deblurkit.build_network(ARGUMENTS).eval()
    result = evaluate(net, data, PROTOCOLS.get("basicsr-rgb/1"), CPU, "test", tmp_path / "out", examples=1)
    assert result.average == result.average_input == {}
    assert result.summary() == "8 frames restored; there are no sharp ones to compare them with"
    assert result.examples["seq000"].shape == (32, 80, 3)
    saved = read_image(tmp_path / "out" / "seq001" / "00000003.png")
    np.testing.assert_array_equal(saved, read_image(frames / "seq001" / "00000003.png"))
    unpaired = {"layout": "frames", "dataroot": str(frames), "split": "all"}
    options = write_options(tmp_path / "tiny.yml", tree)
    settings = [f"datasets.val.{key}={value}" for key, value in unpaired.items()]
    done = command("test", "-opt", options, "--weights", weights, *(x for s in settings for x in ("--set", s)))
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "results" / "tiny" / "metrics.json").read_text())
    assert metrics["datasets"]["val"]["average"] == {}
    rows = list(csv.DictReader((tmp_path / "results" / "tiny" / "metrics.csv").open()))
    assert len(rows) == 8


def test_single_pictures_of_any_size_are_never_each_others_neighbours(tmp_path: Path) -> None:
    from tests.support.trees import write_pairs

    for name, size in (("a.png", (16, 24)), ("b.png", (32, 16)), ("c.png", (16, 24))):
        write_pairs(tmp_path / "set" / "input", tmp_path / "set" / "target", [name], size)
    mapping = {"type": "VideoDataset", "dataroot": str(tmp_path / "set"), "split": "all", "num_frame": 1}
    data = deblurkit.build_dataset(mapping)
    net = deblurkit.build_network(ARGUMENTS).eval()  # a network for windows sees each as a video that stands still
    result = evaluate(net, data, PROTOCOLS.get("basicsr-rgb/1"), CPU, "test", tmp_path / "out")
    assert [(s.sequence, s.frame) for s in result.scores] == [("", "a"), ("", "b"), ("", "c")]
    assert result.average == result.average_input
    assert (tmp_path / "out" / "b.png").is_file()


def test_a_protocol_with_crops_is_named_for_them_and_gives_its_own_figures(tree: Path, tmp_path: Path) -> None:
    """A network that pools over what it sees: crops show."""
    torch.manual_seed(0)
    net = deblurkit.build_network(
        {"type": "NAFNet", "width": 4, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1], "middle_blk_num": 1}
    )
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    save_network(tmp_path / "nafnet.pth", net, iteration=0)
    psnr = {"psnr": {"type": "PSNR"}}
    figures = {}
    for name, crops in (
        ("whole", None),
        ("crops", {"height": 16, "width_ratio": 0.5}),
        ("one", {"height": 32, "width": 40}),
    ):
        options = write_options(
            tmp_path / "o.yml", tree, name=name, network_g=net.config, datasets__val__num_frame=1,
            val={"protocol": {"metrics": psnr, "crops": crops}},
        )  # fmt: skip
        folder = run_test(deblurkit.load_options(options, "test"), str(tmp_path / "nafnet.pth"), CPU)
        record = json.loads((folder / "metrics.json").read_text())
        assert (record["protocol"]["crops"] or {}) == (crops or {})
        figures[name] = record["datasets"]["val"]["average"]["psnr"]
        assert record["protocol"]["name"].endswith("crops=(height=16,width_ratio=0.5)") == (name == "crops")
    assert figures["one"] == pytest.approx(figures["whole"])
    assert abs(figures["crops"] - figures["whole"]) > 1e-3
    path = write_options(tmp_path / "o.yml", tree, val={"protocol": {"metrics": psnr, "crops": {"height": 16}}})
    with pytest.raises(deblurkit.DeblurkitError, match="give height or height_ratio, and width or width_ratio"):
        deblurkit.load_options(path, "test")
