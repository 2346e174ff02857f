"""Weights of other tools: wrappers' names, pixels, and the command that makes files of ours of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import deblurkit
from deblurkit.cli.app import app
from deblurkit.contract import PixelConvention
from deblurkit.engine.checkpoint import load_network, read_checkpoint
from deblurkit.engine.convert import convert_weights
from deblurkit.engine.launch import Place
from deblurkit.engine.train import Training, train
from deblurkit.errors import CheckpointError, OptionsError
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY
from tests.support.runs import write_options
from tests.support.trees import make_tree

CPU = Place(torch.device("cpu"))
CENTRED = {"order": "bgr", "mean": [0.5, 0.5, 0.5]}


def network(name: str) -> Network:
    torch.manual_seed(0)
    return ARCH_REGISTRY.get(name)(**ARCH_REGISTRY.get(name).check_args).eval()  # type: ignore[attr-defined]


def same_weights(a: Network, b: Network) -> bool:
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def mmagic(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names that OpenMMLab gives to BasicVSR's weights."""
    renamed = {}
    for key, value in state.items():
        for own, theirs in (("_trunk.", "_resblocks."), ("upconv1.", "upsample1.upsample_conv."),
                            ("upconv2.", "upsample2.upsample_conv.")):  # fmt: skip
            key = key.replace(own, theirs)
        parts = key.split(".")
        if "basic_module" in parts:
            at = len(parts) - 2
            parts[at : at + 1] = [str(int(parts[at]) // 2), "conv"]
        renamed[".".join(parts)] = value
    return renamed


FORMS: dict[str, Any] = {
    "plain": lambda state: state,
    "BasicSR": lambda state: {"params": state, "params_ema": state},
    "DataParallel": lambda state: {"model": prefixed(state, "module.")},
    "zzh-tech": lambda state: {"state_dict": prefixed(state, "module.model."), "epoch": 3},
    "STFAN": lambda state: {"deblurnet_state_dict": prefixed(state, "module."), "epoch_idx": 3},
    "SimDeblur": lambda state: {"model": prefixed(state, "module.cell."), "mata": 1},
    "compiled": lambda state: {"params": prefixed(state, "_orig_mod.")},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["ESTRNN", "DeblurGANGenerator"])  # of one all names begin with `model.`
def test_names_are_found(name: str, form: str, tmp_path: Path) -> None:
    net = network(name)
    torch.save(FORMS[form](net.state_dict()), tmp_path / "upstream.pth")
    found = load_network(tmp_path / "upstream.pth", net.config)
    assert same_weights(net, found)


@pytest.mark.parametrize("name", ["BasicVSR", "BasicVSRPlusPlus", "RealBasicVSRNet"])
def test_openmmlabs_names_are_found(name: str, tmp_path: Path) -> None:
    net, other = network(name), network(name)
    for parameter in other.parameters():
        parameter.data += 1
    change = mmagic if name != "RealBasicVSRNet" else (lambda state: state)  # that one has them anyway
    state = {
        **prefixed(change(other.state_dict()), "generator."),
        "step_counter": torch.zeros(1),
        "perceptual_loss.vgg.mean": torch.zeros(1),
    }
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "mmagic.pth")
    assert same_weights(load_network(tmp_path / "mmagic.pth", net.config), other)
    state |= prefixed(change(net.state_dict()), "generator_ema.")
    torch.save({"state_dict": state}, tmp_path / "mmagic.pth")
    assert same_weights(load_network(tmp_path / "mmagic.pth", net.config), net)


def test_weights_of_another_network_are_still_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": prefixed(network("DBN").state_dict(), "module.")}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"do not fit ESTRNN.* missing"):
        load_network(tmp_path / "x.pth", network("ESTRNN").config)


def test_the_command_writes_network_and_pixels(tmp_path: Path) -> None:
    net = network("ESTRNN")
    torch.save(FORMS["zzh-tech"](net.state_dict()), tmp_path / "upstream.pth")
    settings = [f"--set={key}={value}" for key, value in net.config.items() if key != "type"]
    source, target = str(tmp_path / "upstream.pth"), tmp_path / "out" / "estrnn.safetensors"
    arguments = ["convert", source, "-o", str(target), "--arch", "ESTRNN", *settings]
    done = CliRunner().invoke(app, [*arguments, "--io", "{order: bgr, mean: [0.5, 0.5, 0.5]}"])
    assert done.exit_code == 0, done.output
    assert "pixels: {'order': 'bgr', 'mean': [0.5, 0.5, 0.5]" in done.output
    found = load_network(target)
    assert same_weights(net, found)
    assert found.config == net.config
    assert found.io == PixelConvention.from_mapping(CENTRED)
    assert CliRunner().invoke(app, arguments).exit_code == 2  # is there already
    again = CliRunner().invoke(app, ["convert", str(target), "-o", str(tmp_path / "again.pth")])
    assert again.exit_code == 0
    assert load_network(tmp_path / "again.pth").io == found.io
    for extra, text in (
        (["--io", "order: [bgr"], "not valid YAML"),
        (["--io", "bgr"], "is a mapping such as"),
        (["--io", "{colour: bgr}"], "--io: io: .* is not understood"),
        (["--set", "n_featurs=3"], "n_featurs: unknown argument of ESTRNN; did you mean 'n_features'"),
    ):
        failed = CliRunner().invoke(app, [*arguments, "--force", *extra])
        assert failed.exit_code == 2

        assert re.search(text, failed.output), failed.output
    without = CliRunner().invoke(app, ["convert", source, "-o", str(tmp_path / "b.pth")])
    assert without.exit_code == 2
    assert "does not say which network" in without.output
    with pytest.raises(CheckpointError, match=r"written as \.pth or \.safetensors"):
        convert_weights(target, tmp_path / "x.onnx")


def test_options_say_what_pixels_weights_take(tmp_path: Path) -> None:
    """They are trained on, saved with the weights, and not contradicted afterwards."""
    make_tree(tmp_path / "tree", splits=("train", "test"), sequences=1, frames=8, size=(32, 40), seed=1)
    start = network("DBN")
    torch.save(start.state_dict(), tmp_path / "start.pth")
    given = {"pretrain_network_g": str(tmp_path / "start.pth"), "io_g": CENTRED,
             "experiments_root": str(tmp_path / "experiments")}  # fmt: skip

    def options(**path: Any) -> deblurkit.options.Options:
        changes = {
            "network_g": start.config,
            "datasets__train__num_frame": start.config["num_frames"],
            "datasets__val__num_frame": start.config["num_frames"],
            "train__total_iter": 2,
            **{f"path__{key}": value for key, value in path.items()},
        }
        return deblurkit.load_options(write_options(tmp_path / "o.yml", tmp_path / "tree", **changes))

    run = Training(options(**given), CPU)
    assert run.model.net.io == PixelConvention.from_mapping(CENTRED)
    seen: list[Tensor] = []
    restore = run.model.net.run
    run.model.net.run = lambda x: seen.append(x) or restore(x)  # type: ignore[func-returns-value, method-assign]
    batch = {
        "lq": torch.rand(1, start.config["num_frames"], 3, 16, 16),
        "gt": torch.rand(1, 1, 3, 16, 16),
        "key": ["a"],
    }
    run.model.start_iteration(1, 0)
    run.model.train_step(batch)
    torch.testing.assert_close(seen[0], batch["lq"].flip(-3) - 0.5)
    assert train(options(**given), CPU, "none") == 0
    latest = tmp_path / "experiments" / "tiny" / "models" / "net_g_latest.pth"
    assert read_checkpoint(latest).io == PixelConvention.from_mapping(CENTRED)
    # a file that says so itself knows best
    assert load_network(latest, io=PixelConvention()).io.order == "bgr"
    with pytest.raises(OptionsError, match=r"path\.io_g: io: .* is not understood"):
        options(io_g={"order": "grb"})
    assert Training(options(**{**given, "pretrain_network_g": None}), CPU, "none").model.net.io.order == "bgr"
