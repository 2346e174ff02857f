"""RealBasicVSR's two stages: what each term compares, and both recipes from the first to the last iteration."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.build import build_discriminator, build_network
from deblurkit.data.prefetcher import to_device
from deblurkit.data.request import SampleRequest
from deblurkit.engine.launch import Place
from deblurkit.engine.train import train
from deblurkit.errors import OptionsError
from deblurkit.hooks.base import Hook
from deblurkit.image_io import cv2
from deblurkit.models.real_basicvsr_model import RealBasicVSRModel
from deblurkit.options import Options, load_options
from deblurkit.registry import HOOK_REGISTRY
from tests.support.losses import write_vgg19

CPU = Place(torch.device("cpu"))
NETWORK = {"type": "RealBasicVSRNet", "mid_channels": 4, "num_propagation_blocks": 1, "num_cleaning_blocks": 1}
JUDGE = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}
STAGE_ONE: dict[str, Any] = {
    "total_iter": 10,
    "optim_g": {"type": "Adam", "lr": 1e-3},
    "losses": {
        "pixel": {"type": "L1Loss", "target": "gt_usm"},
        "cleaning": {"type": "L1Loss", "weight": 0.5, "output": "cleaned", "target": "gt_usm"},
    },
}
STAGE_TWO = {
    **STAGE_ONE,
    "optim_d": {"type": "Adam", "lr": 1e-3},
    "gan": {"type": "GANLoss", "gan_type": "vanilla", "weight": 0.05},
}


def make(settings: dict[str, Any], judge: bool = False, **more: Any) -> RealBasicVSRModel:
    torch.manual_seed(0)
    options = Options.model_validate(
        {
            "schema": "deblurkit/1",
            "name": "small",
            "datasets": {"train": {"type": "DegradedVideoDataset"}},
            "network_g": NETWORK,
            "train": {**settings, **more},
        }
    )
    networks: dict[str, nn.Module] = {"g": build_network(NETWORK)}
    if judge:
        networks["d"] = build_discriminator(JUDGE)
    return RealBasicVSRModel(options, networks, CPU)


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    gt = torch.rand(2, 3, 3, 32, 32, generator=generator)
    lq = F.avg_pool2d(gt.flatten(0, 1), 4).view(2, 3, 3, 8, 8)
    return {"lq": lq, "gt": gt, "gt_usm": (1.3 * (gt - 0.5) + 0.5).clamp(0, 1)}


def step(model: RealBasicVSRModel, iteration: int, data: dict[str, Tensor] | None = None) -> dict[str, float]:
    model.start_iteration(iteration, iteration - 1)
    terms = {name: float(term) for name, term in model.train_step(data or batch()).items()}
    model.finish_iteration()
    return terms


def test_stage_one_is_what_one_writes_by_hand() -> None:
    model, data = make(STAGE_ONE), batch()
    net: Any = copy.deepcopy(model.net)
    learning = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=1e-3, fused=True)
    for iteration in (1, 2):
        restored, cleaned = net(data["lq"], return_lqs=True)
        pixel = (restored - data["gt_usm"]).abs().mean()
        small = F.avg_pool2d(data["gt_usm"].flatten(0, 1), 4).view_as(cleaned)  # reduced by area
        cleaning = 0.5 * (cleaned - small).abs().mean()
        optimizer.zero_grad()
        (pixel + cleaning).backward()
        optimizer.step()
        terms = step(model, iteration, data)
        assert terms == pytest.approx({"pixel": pixel.item(), "cleaning": cleaning.item()}, rel=1e-5)
    for ours, by_hand in zip(model.net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, by_hand, rtol=1e-5, atol=1e-7)


def test_the_discriminator_is_shown_frames_that_were_not_sharpened() -> None:
    model, data = make(STAGE_TWO, judge=True), batch()
    seen: list[Tensor] = []
    model.networks["d"].register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0].detach().clone()))
    terms = step(model, 1, data)
    assert set(terms) == {"pixel", "cleaning", "gan", "d"}
    fake, real, again = seen
    assert torch.equal(real, data["gt"].flatten(0, 1))
    assert torch.equal(fake, again)
    assert fake.shape == real.shape
    plain = make(STAGE_ONE)
    assert step(plain, 1, data) == pytest.approx({key: terms[key] for key in ("pixel", "cleaning")}, rel=1e-6)


@pytest.mark.parametrize("stage", [STAGE_ONE, STAGE_TWO])
def test_a_state_goes_on(stage: dict[str, Any]) -> None:
    judge = "gan" in stage
    first, second = make(stage, judge), make(stage, judge)
    for iteration in (1, 2):
        step(first, iteration)
    for role, net in second.networks.items():
        net.load_state_dict(first.networks[role].state_dict())
    second.load_state(copy.deepcopy(first.state()))
    assert step(first, 3) == step(second, 3)
    assert all(torch.equal(a, b) for a, b in zip(first.net.parameters(), second.net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("stage", "judge"), [(STAGE_ONE, True), (STAGE_TWO, False), ({**STAGE_TWO, "gan": None}, True)]
)
def test_half_of_stage_two_is_refused(stage: dict[str, Any], judge: bool) -> None:
    with pytest.raises(OptionsError, match=r"needs network_d, train\.gan and train\.optim_d"):
        make(stage, judge)


def test_a_data_set_without_sharpened_frames_is_named() -> None:
    data = batch()
    del data["gt_usm"]
    with pytest.raises(OptionsError, match=r"looks at 'gt_usm' of a sample, but the data set gives lq, gt"):
        step(make(STAGE_ONE), 1, data)


class TestRecipes:
    """Both stages with the recipes' own options but for sizes, the second from the weights of the first."""

    @pytest.fixture
    def terms(self, own_registries: None) -> dict[str, dict[str, float]]:
        """The terms of the last run's first step; and, before and after it, those of the same six batches."""
        found: dict[str, dict[str, float]] = {}

        def probe(run: Any) -> dict[str, float]:
            samples = [run.dataset[SampleRequest(i % len(run.dataset), 99, i, 64)] for i in range(6)]
            sums: dict[str, float] = {}
            for sample in samples:
                data = to_device({k: v[None] if isinstance(v, Tensor) else [v] for k, v in sample.items()}, CPU.device)
                with torch.no_grad():
                    terms = run.model.terms(data)
                sums = {name: sums.get(name, 0.0) + float(term) / len(samples) for name, term in terms.items()}
            return sums

        @HOOK_REGISTRY.register()
        class TermsHook(Hook):
            def before_train(self, run: Any) -> None:
                found.clear()
                found["before"] = probe(run)

            def after_iter(self, run: Any, losses: Any) -> None:
                found.setdefault("first", {name: float(value) for name, value in losses.items()})

            def after_train(self, run: Any) -> None:
                found["after"] = probe(run)

        return found

    def run(self, folder: Path, recipe: str, iterations: int, **more: Any) -> Path:
        changes = {
            "network_g": {**NETWORK, "mid_channels": 8},
            "path.experiments_root": str(folder / "experiments"),
            "datasets.train.dataroot": str(folder / "REDS"),
            "datasets.val.dataroot": str(folder / "REDS"),
            "datasets.train.num_frame": 2,
            "datasets.train.batch_size_per_gpu": 1,
            "datasets.train.num_worker_per_gpu": 0,
            "datasets.train.gt_size": 64,
            "datasets.val.num_frame": 3,
            "train.total_iter": iterations,
            "train.optim_g.lr": 2e-3,
            "train.ema_decay": 0.9,
            "train.hooks": [{"type": "TermsHook"}],
            "val.val_freq": iterations,
            "logger.use_tb_logger": False,
            **more,
        }
        path = Path(__file__).parents[2] / "options" / f"train_{recipe}.yml"
        options = load_options(path, "train", [f"{key}={json.dumps(value)}" for key, value in changes.items()])
        assert train(options, CPU) == 0
        return folder / "experiments" / recipe / "models" / "net_g_latest.pth"

    def test_losses_fall_and_stage_two_begins_where_stage_one_ended(
        self, tmp_path: Path, terms: dict[str, dict[str, float]]
    ) -> None:
        for split in ("train", "val"):
            write_clip(tmp_path / "REDS" / split / f"{split}_sharp" / "000")
        weights = self.run(tmp_path, "realbasicvsr_net_reds", 24)
        assert set(terms["first"]) == {"pixel", "cleaning"}
        for name, before in terms["before"].items():
            assert terms["after"][name] < 0.95 * before
        record = json.loads((weights.parents[1] / "run.json").read_text())
        assert record["finished"]
        averaged = torch.load(weights, weights_only=True)["params_ema"]

        layers = {"conv1_2": 0.1}
        more = {
            "path.pretrain_network_g": str(weights),
            "network_d": {**JUDGE, "num_feat": 8},
            "train.losses.perceptual.layer_weights": layers,
            "train.losses.perceptual.vgg_weights": str(write_vgg19(tmp_path / "vgg19.pth", last="conv1_2")),
        }
        still = self.run(tmp_path, "realbasicvsr_gan_reds", 1, **more, **{"train.optim_g.lr": 0.0})
        started = torch.load(still, weights_only=True)["params"]
        assert all(torch.equal(started[key], value) for key, value in averaged.items())

        self.run(tmp_path, "realbasicvsr_gan_reds", 20, **more, **{"path.resume": "none"})
        assert set(terms["first"]) == {"pixel", "cleaning", "perceptual", "gan", "d"}
        assert terms["after"]["perceptual"] < terms["before"]["perceptual"]
        assert sum(terms["after"].values()) < sum(terms["before"].values())


def write_clip(folder: Path) -> None:
    """Four frames of large patches of colour that move: what is small in them is degradation."""
    patches = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    folder.mkdir(parents=True)
    for number in range(4):
        cv2().imwrite(str(folder / f"{number:08d}.png"), patches[number : number + 72, number : number + 80])
