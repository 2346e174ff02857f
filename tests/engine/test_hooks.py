"""Hooks: the built-in ones in a real run, and one of the user's own."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import deblurkit
from deblurkit.engine.experiment import newest_finite
from deblurkit.engine.launch import Place
from deblurkit.engine.train import Training, train
from deblurkit.errors import DeblurkitError, OptionsError, TrainingError
from deblurkit.hooks.early_stop_hook import EarlyStopHook
from deblurkit.hooks.loss_window import LossWindow
from deblurkit.hooks.non_finite_hook import NonFiniteHook
from tests.support.runs import write_options
from tests.support.trees import make_tree

CPU = Place(torch.device("cpu"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "tree"
    make_tree(root, splits=("train", "test"), sequences=1, frames=6, size=(32, 40), seed=1)
    return root


def options(tmp_path: Path, tree: Path, **changes: Any) -> deblurkit.options.Options:
    return deblurkit.load_options(write_options(tmp_path / "tiny.yml", tree, **changes))


def poison(run: Training, iterations: range) -> None:
    """Make the ground truth of some iterations NaN on its way to the model."""
    step = run.model.train_step

    def poisoned(batch: dict[str, Any]) -> Any:
        if run.iteration + 1 in iterations:
            batch["gt"].fill_(float("nan"))
        return step(batch)

    run.model.train_step = poisoned  # type: ignore[method-assign]


def test_one_bad_batch_is_left_out_kept_and_reported(tree: Path, tmp_path: Path) -> None:
    run = Training(options(tmp_path, tree, val__val_freq=None), CPU)
    poison(run, range(3, 4))
    assert run.run() == 0
    folder = tmp_path / "experiments" / "tiny"
    kept = torch.load(folder / "non_finite" / "rank0_iter3.pth", weights_only=True)
    assert kept["gt"].isnan().all()
    assert kept["key"]
    log = (folder / "train.log").read_text()
    assert "iter 3: the gradient was not finite" in log
    assert "1 steps in all were left out" in log
    weights = torch.load(folder / "models" / "net_g_latest.pth", weights_only=True)["params"]
    assert all(value.isfinite().all() for key, value in weights.items() if value.is_floating_point())


def test_a_run_that_no_longer_learns_ends_and_keeps_its_checkpoint(tree: Path, tmp_path: Path) -> None:
    settings = options(
        tmp_path,
        tree,
        val__val_freq=None,
        train__total_iter=20,
        train__hooks=[{"type": "NonFiniteHook", "stop_after": 3}],
    )
    run = Training(settings, CPU)
    assert sum(isinstance(hook, NonFiniteHook) for hook in run.hooks) == 1
    poison(run, range(5, 100))
    with pytest.raises(TrainingError, match="3 steps in a row up to iter 7"):
        run.run()
    assert (tmp_path / "experiments" / "tiny" / "training_states" / "4.state").exists()


def stopping_early(tmp_path: Path, tree: Path, **hook: Any) -> deblurkit.options.Options:
    """A learning rate of zero: nothing can improve."""
    return options(
        tmp_path, tree, val__val_freq=1, train__hooks=[{"type": "EarlyStopHook", "patience": 2, **hook}],
        train__optim_g={"type": "SGD", "lr": 0.0}, network_g={"type": "DBN", "num_frames": 3, "inner_channels": 4},
    )  # fmt: skip


def frozen(run: Training) -> Training:
    """Nothing changes: batch norm neither."""
    for module in run.model.net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    return run


def test_early_stop_ends_a_run_that_does_not_improve(tree: Path, tmp_path: Path) -> None:
    run = frozen(Training(stopping_early(tmp_path, tree), CPU))
    assert run.run() == 0
    assert run.iteration == 3
    assert run.finished


def test_a_run_that_was_ended_early_is_finished(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert frozen(Training(stopping_early(tmp_path, tree), CPU)).run() == 0
    states = tmp_path / "experiments" / "tiny" / "training_states"
    before = {path.name: path.stat().st_mtime_ns for path in states.iterdir()}
    capsys.readouterr()
    assert train(stopping_early(tmp_path, tree), CPU) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "is finished already (iter 3: psnr has not improved in 2 validations; a patience above 2 goes on); "
        "--resume none starts anew"
    ) in said
    assert {path.name: path.stat().st_mtime_ns for path in states.iterdir()} == before
    run = frozen(Training(stopping_early(tmp_path, tree, patience=4), CPU))
    assert run.finished_before() is None
    assert run.run() == 0
    assert run.iteration == 5  # the two validations before the stop count
    # another figure has not been waited for
    other = Training(stopping_early(tmp_path, tree, metric="ssim"), CPU)
    assert other.finished_before() is None
    hook = next(hook for hook in other.hooks if isinstance(hook, EarlyStopHook))
    assert (hook.best, hook.waited) == (None, 0)


def test_a_validation_that_is_no_number_names_what_is_needed(tree: Path, tmp_path: Path) -> None:
    run = Training(options(tmp_path, tree), CPU)
    own_step = run.model.train_step

    def diverges(batch: Any) -> Any:
        terms = own_step(batch)
        if run.iteration + 1 == 4:
            with torch.no_grad():
                next(iter(run.model.net.parameters())).fill_(float("nan"))
        return terms

    run.model.train_step = diverges  # type: ignore[method-assign]
    with pytest.raises(DeblurkitError) as caught:
        run.run()
    good = tmp_path / "experiments" / "tiny" / "training_states" / "2.state"
    assert str(caught.value) == (
        "tiny: iter 4: validating val: seq000/00000001: the network returns values that are not numbers; its weights "
        f"are damaged or diverged. Lower the learning rate or set train.grad_clip; {good} is the newest checkpoint "
        f"whose weights are numbers: --resume {good}"
    )
    assert caught.value.exit_code == 2
    assert newest_finite(run.folder) == good
    weights = good.parent.parent / "models" / "net_g_2.pth"
    content = torch.load(weights, weights_only=True)
    next(iter(content["params"].values())).fill_(float("inf"))
    torch.save(content, weights)
    assert newest_finite(run.folder) is None


def test_early_stop_refuses_a_direction_that_is_none() -> None:
    with pytest.raises(ValueError, match="better"):
        EarlyStopHook(2, better="upper")


def test_profiler_writes_a_trace(tree: Path, tmp_path: Path) -> None:
    settings = options(
        tmp_path, tree, val__val_freq=None, train__hooks=[{"type": "ProfilerHook", "start": 2, "steps": 2}]
    )
    assert train(settings, CPU) == 0
    folder = tmp_path / "experiments" / "tiny"
    assert (folder / "profile_iter4.json").stat().st_size > 1000
    assert "aten::" in (folder / "train.log").read_text()


def test_tensorboard_has_curves_and_pictures(tree: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train(options(tmp_path, tree, logger__use_tb_logger=True), CPU) == 0
    events = EventAccumulator(str(tmp_path / "experiments" / "tiny" / "tb"))
    events.Reload()
    tags = events.Tags()
    assert {"losses/pixel", "lr/0", "metrics/val/psnr", "metrics/val/ssim"} <= set(tags["scalars"])
    assert [point.step for point in events.Scalars("losses/pixel")] == [2, 4, 6, 8]
    assert len(tags["images"]) == 1


def test_what_is_printed_is_the_mean_since_the_last_line(tree: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen: list[float] = []
    run = Training(options(tmp_path, tree, val__val_freq=None, logger__use_tb_logger=True, logger__print_freq=4), CPU)
    step = run.model.train_step

    def noted(batch: Any) -> Any:
        terms = step(batch)
        seen.append(float(terms["pixel"]))
        return terms

    run.model.train_step = noted  # type: ignore[method-assign]
    assert run.run() == 0
    means = [sum(seen[:4]) / 4, sum(seen[4:]) / 4]
    lines = (tmp_path / "experiments" / "tiny" / "train.log").read_text().splitlines()
    printed = [float(line.rpartition("pixel: ")[2]) for line in lines if "pixel: " in line]
    assert printed == pytest.approx(means, rel=1e-4)
    events = EventAccumulator(str(tmp_path / "experiments" / "tiny" / "tb"))
    events.Reload()
    assert [point.value for point in events.Scalars("losses/pixel")] == pytest.approx(means, rel=1e-6)


def test_means_of_terms_that_are_not_always_there() -> None:
    window = LossWindow()
    assert window.take() == {}
    for i in range(2500):  # more than it keeps one by one
        window.add({"d": torch.tensor(float(i)), **({"gan": torch.tensor(2.0 * i)} if i % 5 == 0 else {})})
    assert window.take() == pytest.approx({"d": 1249.5, "gan": 2495.0})
    assert window.take() == {}
    window.add({"d": torch.tensor(3.0)})
    assert window.take() == {"d": 3.0}


OWN_HOOK = '''
from deblurkit.hooks.base import Hook
from deblurkit.registry import HOOK_REGISTRY


@HOOK_REGISTRY.register()
class CountingHook(Hook):
    """Counts its calls, also over a restart."""

    def __init__(self, start: int = 0):
        self.count = start

    def after_iter(self, run, losses):
        self.count += 1

    def after_train(self, run):
        (run.folder / "count.txt").write_text(str(self.count))

    def state(self):
        return {"count": self.count}

    def load_state(self, state):
        self.count = state["count"]
'''


def test_a_hook_of_ones_own_keeps_its_state_over_a_restart(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "counting_hook.py").write_text(OWN_HOOK)
    changes = {"val__val_freq": None, "plugins": [str(tmp_path / "plugins")]}
    hooks = [{"type": "CountingHook", "start": 100}]
    assert train(options(tmp_path, tree, train__total_iter=4, train__hooks=hooks, **changes), CPU) == 0
    assert train(options(tmp_path, tree, train__total_iter=8, train__hooks=hooks, **changes), CPU) == 0
    assert (tmp_path / "experiments" / "tiny" / "count.txt").read_text() == "108"


MOMENTS_HOOK = '''
from deblurkit.hooks.base import Hook
from deblurkit.registry import HOOK_REGISTRY


@HOOK_REGISTRY.register()
class MomentsHook(Hook):
    """Writes down when it is called."""

    seen = []

    def before_train(self, run):
        self.seen.append("train")

    def before_epoch(self, run, epoch):
        self.seen.append(f"epoch {epoch}")

    def before_iter(self, run, batch):
        assert batch["lq"].ndim == 5
        self.seen.append(f"before {run.iteration}")

    def after_epoch(self, run, epoch):
        self.seen.append(f"end of epoch {epoch}")

    def after_iter(self, run, losses):
        self.seen.append(f"after {run.iteration}")

    def before_val(self, run):
        self.seen.append("val")

    def after_val(self, run, results):
        self.seen.append("validated")

    def after_train(self, run):
        (run.folder / "moments.txt").write_text(", ".join(self.seen))
        self.seen.clear()
'''


@pytest.mark.usefixtures("own_registries")
def test_hooks_are_called_at_their_moments(tree: Path, tmp_path: Path) -> None:
    """Two iterations make an epoch; the resumed run begins within the second one."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "moments_hook.py").write_text(MOMENTS_HOOK)
    changes = {"plugins": [str(tmp_path / "plugins")], "train__hooks": [{"type": "MomentsHook"}], "val__val_freq": 100}
    seen = tmp_path / "experiments" / "tiny" / "moments.txt"
    assert train(options(tmp_path, tree, train__total_iter=3, **changes), CPU) == 0
    assert seen.read_text() == (
        "train, epoch 1, before 0, after 1, before 1, end of epoch 1, after 2, "
        "epoch 2, before 2, val, validated, after 3"
    )
    assert train(options(tmp_path, tree, train__total_iter=4, **changes), CPU) == 0
    assert seen.read_text() == "train, epoch 2, before 3, end of epoch 2, val, validated, after 4"


class FakeWandb(types.ModuleType):
    """Remembers what it is given; no account and no network."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = 0
        self.id = "abc123"

    def init(self, **arguments: Any) -> FakeWandb:
        self.started.append(arguments)
        return self

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1

    def Image(self, picture: Any) -> tuple[int, ...]:  # noqa: N802 (wandb's name)
        return tuple(picture.shape)


def test_wandb_has_curves_and_pictures_and_goes_on_in_its_run(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    hooks = [{"type": "WandbHook", "project": "sharp", "print_freq": 2}]
    for total in (4, 8):
        assert train(options(tmp_path, tree, train__total_iter=total, train__hooks=hooks), CPU) == 0
    assert [(s["project"], s["name"], s["id"]) for s in fake.started] == [
        ("sharp", "tiny", None), ("sharp", "tiny", "abc123"),
    ]  # fmt: skip
    assert fake.started[0]["config"]["network_g"]["type"] == "DBN"
    curves = [step for step, values in fake.logged if "losses/pixel" in values and "lr/0" in values]
    assert curves == [2, 4, 6, 8]
    pictures = [values for step, values in fake.logged if "metrics/val/psnr" in values]
    assert len(pictures) == 2
    assert (32, 120, 3) in pictures[0].values()
    assert fake.finished == 2


def test_without_wandb_it_is_said_before_anything_is_written(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(OptionsError, match=r"pip install 'deblurkit\[wandb\]'"):
        Training(options(tmp_path, tree, train__hooks=[{"type": "WandbHook", "project": "sharp"}]), CPU)
    assert not (tmp_path / "experiments").exists()
