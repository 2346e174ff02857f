"""AirNet's training: the encoder alone, then everything; a queue that survives a restart and is the same everywhere."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from deblurkit.archs.airnet_arch import AirNet
from deblurkit.errors import OptionsError
from deblurkit.image_io import write_image
from deblurkit.models.airnet_model import AirNetModel
from deblurkit.models.restoration_model import RestorationModel
from deblurkit.options import Options, load_options
from tests.engine.test_model import CPU, Small
from tests.support.runs import deblurkit, distributed, weights_hash

NETWORK = {"type": "AirNet", "batch_size": 4, "dim": 8, "n_groups": 1, "n_blocks": 1, "n_feats": 8}

#: Keeps batch norms as they were saved, so that results do not depend on how a batch is divided among processes, and
#: writes what every process has at the end.
PLUGIN = '''
import torch
from torch import nn
from deblurkit.hooks.base import Hook
from deblurkit.registry import HOOK_REGISTRY


@HOOK_REGISTRY.register()
class SameNormsHook(Hook):
    """Batch norms in evaluation."""

    def before_train(self, run):
        for module in run.model.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def after_train(self, run):
        torch.save(run.model.net.state_dict(), run.folder / f"rank{run.place.rank}.pth")
'''


def options(network: dict[str, Any] | None = None, **train: Any) -> Options:
    return Options.model_validate(
        {
            "schema": "deblurkit/1",
            "name": "small",
            "model_type": "AirNetModel",
            "datasets": {"train": {"type": "AllInOneDataset", "gt_size": 16, "batch_size_per_gpu": 4}},
            "network_g": network or NETWORK,
            "train": {
                "total_iter": 10,
                "optim_g": {"type": "Adam", "lr": 1e-2},
                "losses": {"pixel": {"type": "L1Loss"}},
                "contrastive": {"type": "ContrastiveLoss", "weight": 0.1, "encoder_only": 2},
                **train,
            },
        }
    )


def make(**train: Any) -> AirNetModel:
    torch.manual_seed(0)
    chosen = options(**train)
    assert chosen.network_g is not None
    return AirNetModel(chosen, {"g": AirNet(**chosen.network_g.arguments)}, CPU)


def batch(seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    gt = torch.rand(2, 4, 1, 3, 16, 16, generator=generator)
    lq = (gt + 0.2 * torch.randn(gt.shape, generator=generator)).clamp(0, 1)
    return {"lq": lq[0], "lq_2": lq[1], "gt": gt[0], "gt_2": gt[1]}


def step(model: AirNetModel, iteration: int, data: dict[str, Tensor] | None = None) -> dict[str, float]:
    model.start_iteration(iteration, iteration - 1)
    terms = {name: float(term) for name, term in model.train_step(data or batch(iteration)).items()}
    model.finish_iteration()
    return terms


def test_steps_are_what_one_writes_by_hand() -> None:
    """The encoder alone with weight 1, then L1 and a tenth of the contrast, by one Adam over everything."""
    model = make()
    net = copy.deepcopy(model.net)
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    for iteration in range(1, 5):
        data = batch(iteration)
        restored, logits, labels = net(data["lq"][:, 0], data["lq_2"][:, 0])
        contrast, pixel = F.cross_entropy(logits, labels), F.l1_loss(restored, data["gt"][:, 0])
        optimizer.zero_grad()
        (contrast if iteration <= 2 else pixel + 0.1 * contrast).backward()
        optimizer.step()
        terms = step(model, iteration)
        expected = {"contrastive": contrast} if iteration <= 2 else {"pixel": pixel, "contrastive": 0.1 * contrast}
        assert terms == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-4)
    ours = model.net.state_dict()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_at_first_only_the_encoder_learns_then_everything() -> None:
    model = make()

    def learnt(first: int, last: int) -> set[str]:
        before = {name: p.detach().clone() for name, p in model.net.named_parameters() if p.requires_grad}
        for iteration in range(first, last + 1):
            step(model, iteration)
        return {name for name, p in model.net.named_parameters() if name in before and not torch.equal(p, before[name])}

    everything = {name for name, p in model.net.named_parameters() if p.requires_grad}
    encoder = {name for name in everything if name.startswith("E.")}
    assert learnt(1, 2) == encoder
    assert learnt(3, 6) == everything


def test_views_that_belong_together_are_told_from_earlier_ones() -> None:
    """Every picture has a colour of its own; the follower is a quick one, so that few steps are enough."""
    torch.manual_seed(0)
    network = {**NETWORK, "momentum": 0.9, "batch_size": 1}
    chosen = options(network, contrastive={"type": "ContrastiveLoss", "encoder_only": 100})
    net = AirNet(**{key: value for key, value in network.items() if key != "type"})
    model = AirNetModel(chosen, {"g": net}, CPU)
    losses = []
    for i in range(120):
        gt = torch.rand(4, 1, 3, 1, 1).expand(4, 1, 3, 16, 16)
        views = gt + 0.05 * torch.randn(2, *gt.shape)
        losses.append(step(model, i + 1, {"lq": views[0], "lq_2": views[1], "gt": gt})["contrastive"])
    full = losses[64:]  # 256 keys of pictures are in the queue
    assert np.median(full[-10:]) < 0.8 * np.log(257)


def test_bf16_compares_in_full_precision() -> None:
    plain, reduced = make(), make(precision="bf16")
    for iteration in range(1, 5):
        a, b = step(plain, iteration), step(reduced, iteration)
        assert a == pytest.approx(b, rel=0.2)
    queues = [model.net.state_dict()["E.E.queue"] for model in (plain, reduced)]
    assert all(queue.dtype == torch.float32 for queue in queues)
    torch.testing.assert_close(queues[1].norm(dim=0), torch.ones(1024))


def test_averages_hold_the_queue_too() -> None:
    model = make(ema_decay=0.5)
    step(model, 1)
    for name in ("E.E.queue", "E.E.queue_ptr"):
        assert torch.equal(model.best_net.state_dict()[name], model.net.state_dict()[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contrastive": None}, "needs train.contrastive"),
        ({"contrastive": {"type": "L1Loss"}}, "L1Loss is no ContrastiveLoss"),
        ({"contrastive": {"type": "ContrastiveLoss", "output": "restored"}}, "is logits, not 'restored'"),
        ({"static_graph": True}, "other parameters learn later"),
    ],
)
def test_what_does_not_fit_is_explained(change: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        make(**change)


def test_a_queue_that_batches_do_not_divide_is_refused_at_once() -> None:
    chosen = options()
    chosen.datasets["train"].batch_size_per_gpu = 3
    net = AirNet(batch_size=1, dim=8, n_groups=1, n_blocks=1, n_feats=8)
    with pytest.raises(OptionsError, match=r"network_g.batch_size: a queue of 256 keys .*: set it to 3"):
        AirNetModel(chosen, {"g": net}, CPU)


def test_another_model_does_not_ignore_the_contrast() -> None:
    with pytest.raises(OptionsError, match=r"train.contrastive: a RestorationModel has no use for it"):
        RestorationModel(options(), {"g": Small()}, CPU)


def test_other_networks_and_data_are_refused() -> None:
    with pytest.raises(OptionsError, match="trains AirNet, not Small"):
        AirNetModel(options(), {"g": Small()}, CPU)
    data = batch()
    del data["lq_2"]
    with pytest.raises(OptionsError, match="needs a second view `lq_2`; use AllInOneDataset"):
        step(make(), 1, data)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth coloured pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(6):
        coarse = torch.from_numpy(rng.random((1, 3, 6, 6), np.float32))
        fine = F.interpolate(coarse, (48, 48), mode="bicubic").clamp(0, 1)[0]
        write_image(folder / f"{number}.png", (fine.permute(1, 2, 0) * 255).byte().numpy())
    return folder


def write(path: Path, pictures: Path, **changes: Any) -> Path:
    """An options file of a run on noise and of validation on the same pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "plugins").mkdir(exist_ok=True)
    (path.parent / "plugins" / "same_norms_hook.py").write_text(PLUGIN)
    data = {"type": "AllInOneDataset", "types": ["denoise_15", "denoise_50"], "roots": {"denoise": str(pictures)}}
    values: dict[str, Any] = {
        **options().model_dump(by_alias=True, mode="json", exclude_defaults=True),
        "schema": "deblurkit/1",
        "num_gpu": 0,
        "manual_seed": 5,
        "plugins": [str(path.parent / "plugins")],
        "datasets": {"train": {**data, "gt_size": 16, "batch_size_per_gpu": 4}, "val": data},
        "path": {"experiments_root": str(path.parent / "experiments")},
        "logger": {"print_freq": 2, "use_tb_logger": False},
    }
    values["train"]["total_iter"] = 6
    for dotted, value in changes.items():
        at = values
        *parents, last = dotted.split("__")
        for parent in parents:
            at = at[parent]
        at[last] = value
    path.write_text(yaml.safe_dump(values))
    return path


def test_the_queue_survives_a_restart(pictures: Path, tmp_path: Path) -> None:
    """Stopped in either stage and resumed, a run ends with the same bits, the queue and the follower among them."""
    hashes = []
    for name, stops in (("whole", [6]), ("first", [1, 6]), ("second", [4, 6])):
        path = write(tmp_path / name / "tiny.yml", pictures, val={"val_freq": 6})
        for stop in stops:
            done = deblurkit("train", "-opt", path, "--set", f"train.total_iter={stop}")
            assert done.returncode == 0, done.stderr
        weights = path.parent / "experiments" / "small" / "models" / "net_g_latest.pth"
        hashes.append(weights_hash(weights))
    assert len(set(hashes)) == 1
    state = torch.load(weights, weights_only=True)["params"]
    assert state["E.E.queue_ptr"].tolist() == [24]


def test_two_processes_have_one_queue_and_learn_as_one_does(pictures: Path, tmp_path: Path) -> None:
    """In both stages; batch norms are fixed, for those of a process see its own samples alone."""
    found = {}
    for processes in (1, 2):
        path = write(
            tmp_path / str(processes) / "tiny.yml",
            pictures,
            datasets__train__batch_size_per_gpu=4 // processes,
            train__hooks=[{"type": "SameNormsHook"}],
        )
        done = distributed(processes, "train", "-opt", path, "--device", "cpu")
        assert done.returncode == 0, done.stderr
        folder = path.parent / "experiments" / "small"
        found[processes] = [torch.load(folder / f"rank{rank}.pth", weights_only=True) for rank in range(processes)]
    (alone,), (first, second) = found[1], found[2]
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        torch.testing.assert_close(value, alone[name], rtol=1e-3, atol=1e-4, msg=name)
    assert first["E.E.queue_ptr"].tolist() == [24]  # six steps of four samples


def test_a_misspelt_key_is_named(pictures: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.yml", pictures)
    text = path.read_text().replace("encoder_only", "encoder_onyl")
    path.write_text(text)
    with pytest.raises(OptionsError, match=r"train.contrastive.encoder_onyl: .*encoder_only"):
        load_options(path)
