"""Options files of other tools, run: the plan is printed, and a few iterations are trained on tiny data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import lmdb
import pytest
import torch
import yaml

from deblurkit.build import build_dataset, build_network
from deblurkit.cli.app import app
from deblurkit.compat.convert import convert
from deblurkit.data.two_roots import open_roots
from deblurkit.engine.checkpoint import save_network
from deblurkit.engine.launch import Place
from deblurkit.engine.plan import planned_processes, print_plan
from deblurkit.engine.train import Training, train
from deblurkit.errors import CheckpointError, DataError, OptionsError
from deblurkit.options import Options, load_options
from tests.compat.test_translation import every_key
from tests.support.trees import write_pairs

FILES = Path(__file__).parent / "files"
CPU = Place(torch.device("cpu"))


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def to_lmdb(folder: Path, target: Path) -> None:
    """Pictures as BasicSR keeps them."""
    target.mkdir(parents=True)
    files = sorted(folder.glob("*.png"))
    with lmdb.open(str(target), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for file in files:
            transaction.put(file.stem.encode(), file.read_bytes())
    (target / "meta_info.txt").write_text("".join(f"{file.name} (24,32,3) 1\n" for file in files))


def pictures(lq: str, gt: str, size: tuple[int, int] = (24, 32)) -> None:
    write_pairs(Path(lq), Path(gt), [f"{i:04d}.png" for i in range(4)], size)


def clips(lq: str, gt: str, names: tuple[str, ...]) -> None:
    for name in names:
        files = [f"{i:08d}.png" for i in range(6)]
        write_pairs(Path(lq) / name, Path(gt) / name, files, (64, 64), scale=4)


SMALL = {
    "rcan": ["network_g:num_group=1", "network_g:num_block=1", "datasets:train:gt_size=16"],
    "srgan": ["datasets:train:gt_size=16"],
    "nafnet_gopro": ["network_g:width=4", "network_g:enc_blk_nums=[1,1]", "network_g:dec_blk_nums=[1,1]",
                     "network_g:train_size=[1,3,16,16]", "datasets:train:gt_size=16"],
    "restormer_motion": ["network_g:dim=8", "network_g:num_blocks=[1,1,1,1]", "network_g:num_refinement_blocks=1",
                         "network_g:heads=[1,1,2,2]", "datasets:train:iters=[1,2]", "datasets:train:gt_sizes=[8,16]",
                         "datasets:train:mini_batch_sizes=[2,1]", "train:mixing_augs:mixup=true"],
    "realesrgan": ["network_g:num_feat=4", "network_g:squeeze_factor=2", "network_g:num_group=1",
                   "network_g:num_block=1", "network_d:num_feat=8", "datasets:train:gt_size=32",
                   "train:perceptual_opt:perceptual_weight=0"],
    "edvr": ["network_g:num_feat=8", "network_g:deformable_groups=2", "network_g:num_extract_block=1",
             "network_g:num_reconstruct_block=1", "datasets:train:gt_size=32", "train:tsa_iter=2",
             "path:pretrain_network_g=~"],
    "basicvsr": ["network_g:num_feat=4", "network_g:num_block=1", "datasets:train:gt_size=32",
                 "datasets:train:num_frame=3", "network_g:spynet_path=~", "train:fix_flow=2"],
    "basicvsr_vimeo": ["network_g:num_feat=4", "network_g:num_block=1", "datasets:train:gt_size=32",
                       "network_g:spynet_path=~", "train:fix_flow=2"],
}  # fmt: skip
SMALL["nafnet_reds"] = SMALL["nafnet_gopro"]
for _name in ("restormer_defocus", "restormer_dual_pixel", "restormer_denoising"):
    SMALL[_name] = SMALL["restormer_motion"]
COMMON = [
    *("num_gpu=0", "train:total_iter=2", "val:val_freq=2", "logger:print_freq=1", "logger:save_checkpoint_freq=1"),
    *("logger:use_tb_logger=False", "datasets:train:batch_size_per_gpu=2", "datasets:train:num_worker_per_gpu=0"),
]
SEPTUPLETS = ("00001/0001", "00001/0002", "00002/0001")


def make_data(name: str) -> None:
    """What the paths in a file name, relative to the working folder."""
    if name == "realesrgan":
        write_pairs(Path("unused"), Path("datasets/DF2K"), [f"{i}.png" for i in range(4)], (48, 48))
        write_pairs(Path("datasets/val_LQ"), Path("datasets/val_GT"), ["0.png", "1.png"], (64, 64), scale=4)
        return
    if name in ("rcan", "srgan"):
        pictures("datasets/LQ", "datasets/GT")
        pictures("datasets/val_LQ", "datasets/val_GT")
    elif name.startswith("nafnet"):
        values = yaml.safe_load((FILES / f"{name}.yml").read_text())["datasets"]
        for key in ("train", "val"):
            pictures(f"{key}_lq", f"{key}_gt")
            for side in ("lq", "gt"):
                to_lmdb(Path(f"{key}_{side}"), Path(values[key][f"dataroot_{side}"]))
    elif name.startswith("restormer"):
        values = yaml.safe_load((FILES / f"{name}.yml").read_text())["datasets"]
        for entry in (values["train"], values["val"]):
            for key in ("dataroot_lq", "dataroot_lqL", "dataroot_lqR"):
                if key in entry:
                    pictures("noise" if name == "restormer_denoising" else entry[key], entry["dataroot_gt"])
    elif name == "basicvsr_vimeo":
        listing = Path("basicsr/data/meta_info/meta_info_Vimeo90K_train_GT.txt")
        listing.parent.mkdir(parents=True)
        listing.write_text("".join(f"{clip} 7 (64,64,3)\n" for clip in SEPTUPLETS))
        for clip in SEPTUPLETS:
            files = [f"im{i}.png" for i in range(1, 8)]
            folders = [Path("datasets/vimeo90k") / side / clip for side in ("BIx4", "vimeo_septuplet/sequences")]
            write_pairs(*folders, files, (64, 64), scale=4)
        clips("datasets/Vid4/BIx4", "datasets/Vid4/GT", ("calendar",))
    else:
        root = "datasets/REDS/train_sharp_bicubic" + ("/X4" if name == "basicvsr" else "")
        clips(root, "datasets/REDS/train_sharp", ("000", "001", "002"))
        clips("datasets/REDS4/sharp_bicubic", "datasets/REDS4/GT", ("000",))
        listing = Path("basicsr/data/meta_info/meta_info_REDS_GT.txt")
        listing.parent.mkdir(parents=True)
        listing.write_text("000 100 (720,1280,3)\n001 100 (720,1280,3)\n")


def small(name: str, *forced: str) -> Options:
    return load_options(FILES / f"{name}.yml", forced=[*SMALL[name], *COMMON, *forced])


@pytest.mark.parametrize("name", SMALL)
def test_the_plan_needs_no_data(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = load_options(FILES / f"{name}.yml", forced=SMALL[name])
    print_plan(options, planned_processes(options.num_gpu, None, None))
    captured = capsys.readouterr()
    assert "memory     about" in captured.out
    assert "optimiser" in captured.out
    assert f"{options.training().total_iter:,} iters" in captured.out
    warnings = "".join(line for line in captured.err.splitlines() if "does not exist" in line)
    assert "datasets.train" in warnings
    assert "datasets.val" in warnings


def test_the_plan_names_weights_that_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    forced = [one for one in SMALL["basicvsr"] if "spynet" not in one]
    print_plan(load_options(FILES / "basicvsr.yml", forced=forced), 1)
    captured = capsys.readouterr()
    assert "spynet_sintel_final-3d2a1287.pth: there is no such file" in captured.err
    assert "warning: network_g.spynet_path: experiments/pretrained_models" in captured.err
    assert "network    BasicVSR" in captured.out
    forced = [one for one in SMALL["edvr"] if "pretrain" not in one]
    print_plan(load_options(FILES / "edvr.yml", forced=forced), 1)
    captured = capsys.readouterr()
    assert "warning: path.pretrain_network_g: experiments/103_EDVR_L_x4_SR_REDS_woTSA/models" in captured.err
    assert "weights    " not in captured.out
    forced = [one for one in SMALL["realesrgan"] if "perceptual" not in one]
    print_plan(load_options(FILES / "realesrgan.yml", forced=forced), 1)
    captured = capsys.readouterr()
    assert "warning: train.losses.perceptual: " in captured.err
    assert "loss       perceptual" in captured.out


def test_the_plan_tries_the_weights_to_start_from(capsys: pytest.CaptureFixture[str]) -> None:
    options = small("rcan")
    assert options.network_g is not None
    save_network("w.pth", build_network(options.network_g.mapping()))
    print_plan(small("rcan", "path:pretrain_network_g=w.pth"), 1)
    assert "weights    network_g: w.pth" in capsys.readouterr().out
    wrong = ("path:pretrain_network_g=w.pth", "network_g:num_block=2")
    with pytest.raises(CheckpointError, match="do not fit RCAN"):
        print_plan(small("rcan", *wrong, "path:strict_load_g=true"), 1)
    print_plan(small("rcan", *wrong), 1)
    captured = capsys.readouterr()
    assert re.search(r"w\.pth: \d+ names do not fit and are left out: body\.", captured.err.replace("\n", " "))


def test_a_sequence_and_its_way_back() -> None:
    make_data("basicvsr_vimeo")
    options = small("basicvsr_vimeo")
    data = build_dataset(options.datasets["train"].mapping())
    assert len(data) == len(SEPTUPLETS)
    sample = data[0]
    assert sample["lq"].shape[0] == sample["gt"].shape[0] == 14
    assert torch.equal(sample["lq"][:7].flip(0), sample["lq"][7:])
    assert torch.equal(sample["gt"][:7].flip(0), sample["gt"][7:])
    assert not torch.equal(sample["lq"][0], sample["lq"][6])


@pytest.mark.parametrize("name", SMALL)
def test_it_trains(name: str) -> None:
    make_data(name)
    options = small(name)
    assert train(options, CPU) == 0
    record = json.loads(Path("experiments", options.name, "run.json").read_text())
    assert record["finished"]
    assert record["iterations"] == 2
    log = Path("experiments", options.name, "train.log").read_text()
    assert "psnr" in log
    saved = torch.load(Path("experiments", options.name, "models", "net_g_2.pth"), weights_only=True)
    assert ("params_ema" in saved) == bool(options.training().ema_decay)
    # the resolved file is a native one that says the same
    again = load_options(Path("experiments", options.name, "options.yml"))
    assert again == options


def test_frozen_parameters_wake_in_the_named_iteration() -> None:
    make_data("basicvsr")
    run = Training(small("basicvsr"), CPU)
    flow = next(run.model.net.get_submodule("spynet").parameters())
    before = flow.detach().clone()
    batch = {"lq": torch.rand(1, 3, 3, 8, 8), "gt": torch.rand(1, 3, 3, 32, 32), "key": ["a"]}
    for iteration, moved in ((1, False), (2, True)):
        run.model.start_iteration(iteration, iteration - 1)
        run.model.train_step(batch)
        assert bool((flow != before).any()) == moved


def test_partitions_and_lists_choose_the_clips() -> None:
    make_data("edvr")
    run = Training(small("edvr"), CPU)
    # of 000, 001 and 002 the first is REDS4's and the last not in the list; windows of 5 in 6 frames
    assert len(run.dataset) == 2
    assert run.dataset[0]["key"] == "001/00000002"
    assert {clip.sequence for clip in run.val_sets["val"].clips(merge=True)} == {"000"}


def test_basicsr_starts_anew_and_nafnet_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    make_data("rcan")
    assert train(small("rcan"), CPU) == 0
    assert train(small("rcan"), CPU) == 0
    assert len(list(Path("experiments").glob("301_RCAN_archived_*"))) == 1
    assert train(small("rcan", "train:total_iter=3"), CPU, "auto") == 0  # --auto_resume
    assert "going on after iter 2" in Path("experiments/301_RCAN/train.log").read_text()
    make_data("nafnet_gopro")
    assert train(small("nafnet_gopro"), CPU) == 0
    assert train(small("nafnet_gopro", "train:total_iter=3"), CPU) == 0
    assert "going on after iter 2" in Path("experiments/NAFNet-GoPro-width64/train.log").read_text()


def test_the_command_line_of_basicsr() -> None:
    from typer.testing import CliRunner

    make_data("rcan")
    forced = [*SMALL["rcan"], *COMMON]
    arguments = ["train", "-opt", str(FILES / "rcan.yml"), "--local-rank", "0", "--auto_resume", "--debug"]
    result = CliRunner().invoke(app, [*arguments, "--device", "cpu", "--force_yml", *forced])
    assert result.exit_code == 0, result.output
    assert Path("experiments/debug_301_RCAN/models/net_g_2.pth").is_file()
    weights = ["--weights", "experiments/debug_301_RCAN/models/net_g_2.pth"]
    test = ["test", "-opt", str(FILES / "rcan.yml"), *weights, "--device", "cpu", "--local_rank", "0"]
    result = CliRunner().invoke(app, [*test, "--force_yml", *SMALL["rcan"]])
    assert result.exit_code == 0, result.output
    metrics = json.loads(Path("results/301_RCAN/metrics.json").read_text())
    assert metrics["protocol"]["name"] == "own:psnr=PSNR(crop_border=2,test_y_channel=True)"
    assert metrics["datasets"]["val"]["frames"] == 4
    dry = ["train", "-opt", str(FILES / "rcan.yml"), "--launcher", "pytorch", "--dry-run", "--force_yml"]
    result = CliRunner().invoke(app, [*dry, *SMALL["rcan"], "num_gpu=8", "datasets:train:dataset_enlarge_ratio=99"])
    assert result.exit_code == 0
    assert "8 process(es)" in result.output


def test_lq_names_and_what_is_wrong_with_two_roots() -> None:
    names = [f"{i}.png" for i in range(3)]
    write_pairs(Path("lq"), Path("gt"), names, lq_names=[f"{i}x1.png" for i in range(3)])
    stores = open_roots({"lq": "lq", "gt": "gt", "lq_name": "{}x1"})
    assert dict(stores.sequences) == {"": ["0", "1", "2"]}
    assert stores.lq.place("1") == "lq/1x1.png"
    Path("list.txt").write_text("0.png (24,32,3)\n2.png (24,32,3)\n")
    chosen = open_roots({"lq": "lq", "gt": "gt", "lq_name": "{}x1", "names": "list.txt"})
    assert dict(chosen.sequences) == {"": ["0", "2"]}
    assert open_roots({"lq": "lq"}).gt is None
    for roots, message in (
        ({"lq": "lq", "gt": "gt"}, "3 frames have no partner in lq: 0, 1, 2"),
        ({"lq": "lq", "gt": "nowhere"}, "nowhere: does not exist"),
        ({"lq": "lq", "names": "nothing.txt"}, "nothing.txt: does not exist"),
        ({"lq": "lq", "without": [""]}, "none of its frames is left"),
    ):
        with pytest.raises(DataError, match=message):
            open_roots(roots)  # type: ignore[arg-type]


SIMDEBLUR = """
dataset:
  train:
    name: DVD
    mode: train
    sampling: n_c
    overlapping: true
    interval: 1
    root_gt: ./datasets/DVD/quantitative_datasets
    num_frames: 5
    augmentation:
      RandomCrop: {size: [256, 256]}
      RandomHorizontalFlip: {p: 0.5}
      RandomRotation90: {p: 0.25}
      ToTensor: ~
    loader: {batch_size: 8, num_workers: 2}
  val:
    name: DVD
    mode: val
    sampling: dvd_test
    overlapping: true
    interval: 1
    root_gt: ./datasets/DVD/quantitative_datasets
    num_frames: 5
    loader: {batch_size: 1, num_workers: 1}
model: {name: DBN, num_frames: 5, in_channels: 3, inner_channels: 64}
meta_arch: {name: DBN}
loss:
  criterion: {name: CharbonnierLoss, loss_weight: 1.0}
  weights: [1.0]
schedule:
  epochs: 651
  val_epochs: 10
  optimizer: {name: Adam, lr: 0.0002, betas: [0.9, 0.99]}
  lr_scheduler: {name: MultiStepLR, milestones: [500, 600, 620], gamma: 0.1}
logging: {period: 20}
ckpt: {period: 10}
work_dir: ./workdir
resume_from: "None"
"""


def test_simdeblur_is_converted() -> None:
    Path("dbn_dvd.yaml").write_text(SIMDEBLUR)
    text = convert("dbn_dvd.yaml")
    assert "# Means nothing here and was left out:" in text
    assert "#   work_dir" in text
    Path("native.yml").write_text(text)
    options = load_options("native.yml")
    train_options = options.training()
    assert options.name == "dbn_dvd"
    assert train_options.total_epoch == 651
    assert options.val.val_freq == 10
    assert train_options.losses["pixel"].type == "SimDeblurCharbonnierLoss"
    assert train_options.scheduler is not None
    assert train_options.scheduler.arguments["milestones"] == [500, 600, 620]
    entry = options.datasets["train"]
    assert (entry.gt_size, entry.batch_size_per_gpu, entry.num_worker_per_gpu) == (256, 8, 2)
    assert entry.arguments["augment"] == {"hflip": 0.5, "transpose": 0.25}
    assert entry.arguments["layout"] == "dvd"
    assert options.datasets["val"].arguments["anchors"] == "dvd_test"


def test_what_cannot_be_converted_stands_in_the_head() -> None:
    Path("o.yml").write_text((FILES / "rcan.yml").read_text().replace("type: L1Loss", "type: OddLoss"))
    text = convert("o.yml")
    assert (
        "# Could not be carried over; mend by hand:\n#   train.pixel_opt.type: there is no counterpart of the" in text
    )
    Path("native.yml").write_text(convert(FILES / "rcan.yml"))
    assert load_options("native.yml") == load_options(FILES / "rcan.yml")
    with pytest.raises(OptionsError, match="own form already"):
        convert("native.yml")


def test_the_converter_replaces_no_file() -> None:
    from typer.testing import CliRunner

    command = ["convert-config", str(FILES / "edvr.yml"), "-o", "out.yml"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert load_options("out.yml").name == "201_EDVR"
    assert CliRunner().invoke(app, command).exit_code == 2
    assert CliRunner().invoke(app, [*command, "--force"]).exit_code == 0


def test_no_config_of_simdeblur_is_a_crash() -> None:
    for key in every_key(yaml.safe_load(SIMDEBLUR))[1:]:
        for odd in ("odd", -1.5, [None], [1, 2], {"odd": [1]}, True, None):
            values = yaml.safe_load(SIMDEBLUR)
            at = values
            for part in key[:-1]:
                at = at[part]
            at[key[-1]] = odd
            Path("odd.yaml").write_text(yaml.safe_dump(values))
            assert "schema: deblurkit/1" in convert("odd.yaml")
