"""Options files of BasicSR, NAFNet and Restormer as they stand, translated key by key."""

from __future__ import annotations

import ast
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from deblurkit.compat.command_line import forced_value, spread_force_yml
from deblurkit.compat.options import native_source
from deblurkit.contract import FrameContract
from deblurkit.engine.schedules import build_schedule, set_rates
from deblurkit.errors import OptionsError
from deblurkit.network import Network
from deblurkit.options import Options, check_source, load_options
from deblurkit.yaml_source import read_source
from tests.support.parity import FOLDER

FILES = Path(__file__).parent / "files"


def load(name: str, *forced: str, phase: Any = "train") -> Options:
    return load_options(FILES / f"{name}.yml", phase, forced=forced)


def refused(tmp_path: Path, name: str, *changes: tuple[str, str]) -> list[str]:
    """The lines of the error that a changed file gives; the file is called o.yml."""
    text = (FILES / f"{name}.yml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / "o.yml"
    path.write_text(text)
    with pytest.raises(OptionsError) as caught:
        load_options(path)
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


def test_edvr() -> None:
    options = load("edvr")
    train = options.training()
    assert options.model_type == "RestorationModel"
    assert options.scale == 4
    assert options.num_gpu == 8
    assert options.datasets["train"].mapping() == {
        "type": "VideoDataset",
        "dataroot": {
            "lq": "datasets/REDS/train_sharp_bicubic",
            "gt": "datasets/REDS/train_sharp",
            "names": "basicsr/data/meta_info/meta_info_REDS_GT.txt",
            "without": ["000", "011", "015", "020"],
        },
        "split": "all",
        "sampling": "n_c",
        "num_frame": 5,
        "interval_list": [1],
        "scale": 4,
        "augment": {"hflip": 0.5, "vflip": 0.5, "transpose": 0.5},
    }
    entry = options.datasets["train"]
    assert (entry.gt_size, entry.batch_size_per_gpu, entry.dataset_enlarge_ratio) == (256, 4, 200)
    assert entry.prefetch_mode == "auto"
    assert options.datasets["val"].arguments["padding"] == "reflection_circle"
    assert train.total_iter == 600000
    assert train.warmup_iter == 0
    assert train.ema_decay == 0.999
    assert train.grad_clip is None  # BasicSR has none
    assert train.optim_g.mapping() == {"type": "Adam", "lr": 4e-4, "weight_decay": 0, "betas": [0.9, 0.99]}
    assert train.losses["pixel"].type == "CharbonnierLoss"
    assert train.losses["pixel"].arguments == {"reduction": "sum"}
    # until iteration 50000, in which all are trained, only the fusion is
    assert [group.model_dump() for group in train.param_groups] == [
        {"match": ["*fusion*"], "lr_mul": 1.0, "frozen_until": 0, "optional": False},
        {"match": ["*dcn*"], "lr_mul": 0.5, "frozen_until": 49999, "optional": True},
        {"match": ["*"], "lr_mul": 1.0, "frozen_until": 49999, "optional": True},
    ]
    assert options.val.val_freq == 5000
    assert options.val.protocol == "basicsr-rgb/1"
    assert train.find_unused_parameters
    assert options.path.resume == "none"
    assert not options.path.strict_load_g
    assert options.logger.save_checkpoint_freq == 5000
    assert options.logger.keep_last == 1_000_000


def test_basicvsr() -> None:
    options = load("basicvsr")
    groups = [(g.match, g.lr_mul, g.frozen_until, g.optional) for g in options.training().param_groups]
    assert groups == [(["*spynet*"], 0.125, 4999, True), (["*edvr*"], 1.0, 4999, True)]
    assert options.datasets["train"].arguments["sampling"] == "n_n"
    val = options.datasets["val"].arguments
    assert (val["sampling"], val["num_frame"], val["chunk"]) == ("n_n", 1, "whole")


def test_rcan_with_its_own_protocol() -> None:
    options = load("rcan")
    assert options.training().total_iter == 300000
    assert options.training().scheduler.type == "MultiStepRestartLR"
    assert list(options.sets("val")) == ["val", "val_2"]
    protocol = options.val.find_protocol()
    assert protocol.name == "own:psnr=PSNR(crop_border=2,test_y_channel=True)"
    assert (protocol.border, protocol.colour) == (2, "Y")
    assert protocol.build()["psnr"].crop_border == 2  # type: ignore[attr-defined]
    assert Options.model_validate(options.model_dump(by_alias=True)) == options


def test_srgan() -> None:
    options = load("srgan")
    train = options.training()
    assert options.model_type == "GANModel"
    assert train.gan is not None
    assert train.optim_d is not None
    assert train.gan.mapping() == {"type": "GANLoss", "gan_type": "vanilla", "real_label": 1.0, "fake_label": 0.0}
    assert (train.gan.weight, train.gan.net_d_iters, train.gan.net_d_init_iters) == (5e-3, 1, 0)
    assert list(train.losses) == ["pixel"]  # a perceptual loss with weights of zero is none
    with_perceptual = load(
        "srgan", "train:perceptual_opt:perceptual_weight=1", "train:perceptual_opt:use_input_norm=False"
    )
    loss = with_perceptual.training().losses["perceptual"]
    assert loss.arguments["input_norm"] == "none"
    assert loss.arguments["layer_weights"] == {"conv5_4": 1}


def test_esrgan_is_relativistic(tmp_path: Path) -> None:
    text = (FILES / "srgan.yml").read_text().replace("SRGANModel", "ESRGANModel")
    (tmp_path / "o.yml").write_text(text)
    gan = load_options(tmp_path / "o.yml").training().gan
    assert gan is not None
    assert gan.mapping() == {"type": "RelativisticGANLoss", "gan_type": "vanilla", "pool_size": 0}
    assert gan.weight == 5e-3
    found = refused(tmp_path, "srgan", ("SRGANModel", "ESRGANModel"), ("gan_type: vanilla", "gan_type: lsgan"))
    assert "ESRGANModel: vanilla with the labels 1 and 0 is here" in found[0]


def test_realesrgan(capsys: pytest.CaptureFixture[str]) -> None:
    options = load("realesrgan")
    train, entry = options.training(), options.datasets["train"]
    assert options.model_type == "GANModel"
    assert [train.losses["pixel"].target, train.losses["perceptual"].target] == ["gt_usm", "gt_usm"]
    assert train.gan is not None
    assert train.gan.target == "gt"
    steps = entry.arguments["degradations"]
    assert [step["type"] for step in steps] == [
        *["RandomBlur", "RandomResize", "RandomNoise", "RandomJPEGCompression"],
        *["RandomBlur", "RandomResize", "RandomNoise", "DegradationsWithShuffle"],
    ]
    assert steps[0]["kernel_list"][-1] == "sinc"
    assert steps[0]["kernel_prob"] == pytest.approx([0.405, 0.225, 0.108, 0.027, 0.108, 0.027, 0.1])
    assert (steps[4]["prob"], steps[4]["sigma_x"], steps[5]["resize_scale"]) == (0.8, [0.2, 1.5], [0.3, 1.2])
    assert entry.arguments["unsharp"] == {}
    assert "resize_range2 (taken relative to the size after the first resize" in capsys.readouterr().err
    plain = load("realesrgan", "model_type=RealESRNetModel", "gt_usm=True")
    assert plain.model_type == "RestorationModel"
    assert plain.training().losses["pixel"].target == "gt_usm"


@pytest.mark.parametrize(
    ("kind", "values", "native"),
    [
        ("constant", "25", {"sigma": [25.0]}),
        ("random", "[0,50]", {"sigma": [0.0, 50.0], "draw": "range"}),
        ("choice", "[15,25,50]", {"sigma": [15.0, 25.0, 50.0]}),
    ],
)
def test_restormers_noise(kind: str, values: str, native: dict[str, Any]) -> None:
    train = [f"datasets:train:sigma_type={kind}", f"datasets:train:sigma_range={values}", "datasets:train:in_ch=1"]
    options = load("restormer_denoising", *train)
    arguments = options.datasets["train"].arguments
    assert options.datasets["train"].type == "GaussianNoiseDataset"
    assert {key: arguments[key] for key in native} == native
    assert ("draw" in arguments) == ("draw" in native)
    assert arguments["channels"] == 1
    assert options.datasets["val"].arguments["sigma"] == [25.0]
    with pytest.raises(OptionsError, match=r"sigma_type: is constant, random or choice, got 'blind'"):
        load("restormer_denoising", "datasets:train:sigma_type=blind")


def test_restormers_dual_pixels() -> None:
    entry = load("restormer_dual_pixel").datasets["train"]
    assert entry.type == "DualPixelDataset"
    roots = {side: f"./Defocus_Deblurring/Datasets/train/DPDD/{folder}_crops"
             for side, folder in (("left", "inputL"), ("right", "inputR"), ("gt", "target"))}  # fmt: skip
    assert entry.arguments == {"dataroot": roots, "augment": {"hflip": 0.5, "vflip": 0.5, "transpose": 0.5}}


def test_which_weights_of_a_file() -> None:
    assert load("srgan", "path:pretrain_network_g=x.pth").path.param_key_g == "params_ema"
    assert load("rcan", "path:pretrain_network_g=x.pth").path.param_key_g == "params"
    assert load("rcan", "path:pretrain_network_g=x.pth", "path:param_key_g=~").path.param_key_g == "params_ema"
    assert load("nafnet_gopro", "path:pretrain_network_g=x.pth", "path:param_key=params").path.param_key_g == "params"


def test_nafnet(capsys: pytest.CaptureFixture[str]) -> None:
    options = load("nafnet_gopro")
    train = options.training()
    assert train.grad_clip == 0.01
    assert options.path.resume == "auto"
    assert load("nafnet_gopro", "train:use_grad_clip=False").training().grad_clip is None
    assert train.losses["pixel"].mapping() == {"type": "PSNRLoss"}
    assert options.datasets["train"].arguments["augment"] == {"hflip": 0.5, "vflip": 0.5, "transpose": 0.5}
    (warning,) = {line for line in capsys.readouterr().err.splitlines() if "warning" in line}
    for text in ("use_shuffle", "dist_params", "val.max_minibatch"):
        assert text in warning
    assert options.val.protocol == "nafnet-rgb/1"
    assert "use_image" not in warning
    load("nafnet_reds", "val:use_image=False")
    assert "val.use_image (figures are of quantised pixels)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["restormer_motion", "restormer_defocus"])
def test_restormer(name: str) -> None:
    options = load(name)
    entry = options.datasets["train"]
    assert entry.gt_sizes == [128, 160, 192, 256, 320, 384]
    assert entry.mini_batch_sizes == [8, 5, 4, 2, 1, 1]
    assert entry.gt_size is None
    assert entry.mixup is None
    assert entry.arguments["augment"] == {"hflip": 0.5, "vflip": 0.5, "transpose": 0.5}
    assert options.training().grad_clip == 0.01
    mixed = load(name, "train:mixing_augs:mixup=True", "train:mixing_augs:use_identity=False")
    assert mixed.datasets["train"].mixup is not None
    assert mixed.datasets["train"].mixup.model_dump() == {"beta": 1.2, "use_identity": False}


def test_one_name_two_losses() -> None:
    """eps is squared in one of them."""
    assert load("edvr").training().losses["pixel"].type == "CharbonnierLoss"
    restormer = load("restormer_motion", "train:pixel_opt:type=CharbonnierLoss", "train:pixel_opt:eps=!!float 1e-3")
    assert restormer.training().losses["pixel"].mapping() == {"type": "MPRNetCharbonnierLoss", "eps": 1e-3}


@pytest.mark.parametrize(
    ("name", "change", "line"),
    [
        ("rcan", ("  gt_size: 96", "  gt_sise: 96"), ":18: datasets.train.gt_sise: unknown key; did you mean 'gt_si"),
        ("rcan", ("use_hflip", "use_hflips"), "o.yml:19: datasets.train.use_hflips: unknown key; did you mean 'use_hf"),
        ("rcan", ("warmup_iter", "warmup_iters"), "unknown key; did you mean 'warmup_iter'?"),
        ("rcan", ("model_type: SRModel", "model_type: SRMode"), "did you mean 'SRModel'"),
        ("rcan", ("type: PairedImageDataset", "type: PairedImageDatasets"), "counterpart of the data set 'PairedImage"),
        ("rcan", ("type: L1Loss", "type: L1Los"), "train.pixel_opt.type: there is no counterpart of the loss 'L1Lo"),
        ("rcan", ("loss_weight: 1.0", "loss_weight: heavy"), "pixel_opt.loss_weight: should be a number, got 'heavy'"),
        ("rcan", ("    lr: !!float 1e-4", "    lrr: !!float 1e-4"), "train.optim_g.lrr: unknown argument of Adam"),
        ("rcan", ("total_iter: !!float 3e5", "total_iter: soon"), "total_iter: should be a whole number, got 'soon'"),
        ("rcan", ("num_group", "num_groups"), "network_g.num_groups: unknown argument of RCAN; did you mean '"),
        ("rcan", ("  print_freq", "  colour: 3\n  print_freq"), "logger.colour: unknown key"),
        ("rcan", ("    type: disk", "    type: memcached"), "datasets.train.io_backend.type: frames are read from"),
        ("restormer_motion", ("mixup_beta", "mixup_bet"), "train.mixing_augs.mixup_bet: unknown key; did you mean"),
        ("rcan", ("  ema_decay", "  use_grad_clip: true\n  ema_decay"), "BasicSR does not know this key"),
        ("rcan", ("crop_border", "crop_bordr"), "val.metrics.psnr.crop_bordr: unknown key; did you mean 'crop_b"),
        ("edvr", ("val_partition: REDS4", "val_partition: REDS5"), "val_partition: is REDS4 or official, got 'REDS5'"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line(tmp_path: Path, name: str, change: tuple[str, str], line: str) -> None:
    (found,) = refused(tmp_path, name, change)
    assert found.startswith("o.yml:")
    assert line in found


def test_all_mistakes_are_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    changes = (("num_gpu", "num_gpus"), ("gt_size", "gt_sise"), ("print_freq", "print_frequency"))
    found = refused(tmp_path, "rcan", *changes)
    assert [line.split(": ")[1] for line in found] == ["num_gpus", "datasets.train.gt_sise", "logger.print_frequency"]


def test_mistakes_of_the_dialect_and_of_our_own_checks_come_in_one_report(tmp_path: Path) -> None:
    changes = (("gt_size", "gt_sise"), ("num_group: 10", "num_groups: 10"), ("    lr: !!float 1e-4", "    lr: much"))
    found = refused(
        tmp_path, "rcan", *changes, ("type: L1Loss", "type: L1Los"), ("val_freq: !!float 5e3", "val_freq: ~")
    )
    assert [line.split(": ")[1] for line in found] == [
        *("datasets.train.gt_sise", "network_g.num_groups", "train.optim_g.lr", "train.pixel_opt.type")
    ]


def test_grids_are_crops_of_the_protocol() -> None:
    grids = ["val:grids=True", "val:crop_size_h=256", "val:crop_size_w_ratio=0.5"]
    protocol = load("nafnet_gopro", *grids).val.find_protocol()
    assert protocol.crops == {"height": 256, "width_ratio": 0.5}
    assert protocol.metrics["ssim"]["type"] == "VolumeSSIM"
    assert "crops=(height=256,width_ratio=0.5)" in protocol.name
    assert load("nafnet_gopro", "val:grids=False", "val:crop_size_h=256").val.protocol == "nafnet-rgb/1"
    with pytest.raises(OptionsError, match=r"val\.crop_size_w: missing: grids needs crop_size_w or crop_size_w_ratio"):
        load("nafnet_gopro", *grids[:2])


def test_wandb_is_a_hook() -> None:
    assert load("rcan").training().hooks == []
    (hook,) = load("rcan", "logger:wandb:project=blur", "logger:wandb:resume_id=abc").training().hooks
    assert hook.mapping() == {"type": "WandbHook", "project": "blur", "print_freq": 100, "resume_id": "abc"}


def test_vibrating_rates(tmp_path: Path) -> None:
    text = (FILES / "nafnet_gopro.yml").read_text()
    text = text.replace(
        "type: TrueCosineAnnealingLR\n    T_max: 400000\n    eta_min: !!float 1e-7",
        "type: VibrateLR\n    total_iter: 400000",
    )
    (tmp_path / "o.yml").write_text(text)
    scheduler = load_options(tmp_path / "o.yml").training().scheduler
    assert scheduler is not None
    assert scheduler.mapping() == {"type": "VibrateLR", "total_iter": 400000}


def test_simdeblur_is_sent_to_the_converter(tmp_path: Path) -> None:
    path = tmp_path / "sim.yaml"
    path.write_text("dataset: {}\nmodel: {}\nmeta_arch: {}\nschedule: {}\n")
    with pytest.raises(OptionsError, match=r"convert-config .*sim\.yaml"):
        load_options(path)


def test_force_yml_converts_as_upstream() -> None:
    table = json.loads((FOLDER / "force_yml_values.json").read_text())
    for text, expected in table:
        value = forced_value(text)
        assert (type(value), value) == (type(ast.literal_eval(expected)), ast.literal_eval(expected)), text


def test_force_yml_paths() -> None:
    assert load("rcan", "train:optim_g:lr=0.5", "manual_seed=0007").training().optim_g.arguments["lr"] == 0.5
    assert load("rcan", "path:param_key_g=params").path.param_key_g == "params_ema"  # nothing is loaded
    for entry, message in (
        ("trains:optim_g:lr=1", "there is no key trains"),
        ("train:total_iter", "with one `=`"),
        ("name:a=1", "name has no keys of its own"),
        ("train:optim_g:betas=[1", "is not a list"),
    ):
        with pytest.raises(OptionsError, match=message):
            load("rcan", entry)
    assert spread_force_yml(["-opt", "x", "--force_yml", "a=1", "b:c=2", "--debug", "y"]) == [
        *("-opt", "x", "--force_yml", "a=1", "--force_yml", "b:c=2", "--debug", "y")
    ]


def test_debug() -> None:
    options = load_options(FILES / "rcan.yml", debug=True)
    assert options.name == "debug_301_RCAN"
    assert options.val.val_freq == options.logger.save_checkpoint_freq == 8
    assert options.logger.print_freq == 1
    assert not options.logger.use_tb_logger


CURVES = json.loads((FOLDER / "lr_curves_warmup.json").read_text())


@pytest.mark.parametrize("title", CURVES["curves"])
def test_warmup_leaves_the_mark_that_it_leaves_upstream(title: str, tmp_path: Path) -> None:
    """From the file to the rate in every iteration."""
    name, *arguments = title.split()
    mapping = {key: ast.literal_eval(value) for key, value in (a.split("=") for a in arguments)}
    warmup = mapping.pop("warmup_iter")
    forced = [f"train:warmup_iter={warmup}", f"train:scheduler:type={name}"]
    forced += [f"train:scheduler:{k}={v}" if isinstance(v, list) else f"train:scheduler:{k}=!!float{v}" if
               isinstance(v, float) else f"train:scheduler:{k}={v}" for k, v in mapping.items()]  # fmt: skip
    text = (FILES / "nafnet_gopro.yml").read_text()
    text = text.replace("    T_max: 400000\n    eta_min: !!float 1e-7\n", "")
    (tmp_path / "o.yml").write_text(text)
    train = load_options(tmp_path / "o.yml", forced=forced).training()
    assert train.scheduler is not None
    assert train.warmup_iter == warmup
    schedule = build_schedule(train.scheduler.mapping())
    group: dict[str, Any] = {"initial_lr": CURVES["base_lr"]}
    for done, (expected,) in enumerate(CURVES["curves"][title]):
        share = (done + 1) / warmup if done + 1 < warmup else None
        set_rates([group], schedule, done, share)
        assert group["lr"] == pytest.approx(expected, rel=1e-9), done


def test_optional_groups_may_be_empty() -> None:
    import torch

    from deblurkit.engine.launch import Place
    from deblurkit.models.base import Model

    class Idle(Model):
        def train_step(self, batch: Any) -> Any:
            raise AssertionError

    class Plain(Network):
        def __init__(self) -> None:
            super().__init__(FrameContract(kind="clip"))

    options = load("basicvsr")
    net = Plain()
    net.spynet = nn.Linear(2, 2)
    net.other = nn.Linear(2, 2)
    model = Idle(options, {"g": net}, Place(torch.device("cpu")))
    model.add_stepper("optim_g", options.training().optim_g, net)
    groups = model.steppers["optim_g"].optimizer.param_groups
    assert [group["initial_lr"] for group in groups] == [2e-4, 2.5e-5]


def every_key(values: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    below = values.items() if isinstance(values, dict) else ()
    return [path, *(found for key, value in below for found in every_key(value, (*path, key)))]


@pytest.mark.parametrize(
    "name",
    [
        *("edvr", "srgan", "restormer_motion"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("basicvsr", "restormer_denoising", "restormer_dual_pixel", "realesrgan")
        ),
    ],
)
def test_no_value_is_a_crash(name: str) -> None:
    """Whatever stands at a key: the file loads, or the error says where."""
    path = FILES / f"{name}.yml"
    whole = read_source(path)
    for key in every_key(whole.values)[1:]:
        for odd in ("odd", -1.5, [None], {"odd": [1]}, True, None, float("nan")):
            source = copy.deepcopy(whole)
            at = source.values
            for part in key[:-1]:
                at = at[part]
            at[key[-1]] = odd
            try:
                check_source(path, native_source(source, path), "train")
            except OptionsError as error:
                assert all(line.startswith(str(path)) for line in str(error).splitlines()), (key, odd, str(error))  # noqa: PT017


def test_files_for_tests() -> None:
    """Without a training set the `train` section, which Restormer's test files must have, means nothing."""
    source = read_source(FILES / "restormer_motion.yml")
    del source.values["datasets"]["train"]
    source.values["train"] = {"mixing_augs": {"mixup": True}, "use_grad_clip": True}
    options = check_source("o.yml", native_source(source, "o.yml"), "test")
    assert options.train is None
    assert list(options.datasets) == ["val"]
