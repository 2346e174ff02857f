from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from deblurkit.arguments import check_arguments, signature_of
from deblurkit.errors import OptionsError, RegistryError
from deblurkit.options import Component, Options, load_options
from deblurkit.registry import HOOK_REGISTRY

TRAIN = """\
schema: deblurkit/1
name: a_run
num_gpu: 0
manual_seed: 10
datasets:
  train:
    type: VideoDataset
    dataroot: datasets/GoPro
    split: train
    num_frame: 5
    gt_size: 256
    batch_size_per_gpu: 8
    augment: {hflip: 0.5}
  val: {type: VideoDataset, dataroot: datasets/GoPro, split: test}
network_g:
  type: DBN
  num_frames: 5
path: {strict_load_g: true}
train:
  total_epoch: 651
  optim_g: {type: Adam, lr: 2e-4, betas: [0.9, 0.99]}
  scheduler: {type: MultiStepRestartLR, milestones: [500, 600], gamma: 0.1}
  losses:
    pixel: {type: SimDeblurCharbonnierLoss, weight: 1, output: restored}
val: {val_freq: 10, protocol: basicsr-rgb/1}
logger: {print_freq: 100}
"""
Load = Callable[..., Options]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(*changes: str | tuple[str, str], text: str = TRAIN, phase: Literal["train", "test"] = "train") -> Options:
        """The options of TRAIN; a pair replaces a piece of the text, a text is an override."""
        overrides = []
        for change in changes:
            if isinstance(change, tuple):
                assert change[0] in text
                text = text.replace(*change)
            else:
                overrides.append(change)
        (tmp_path / "o.yml").write_text(text)
        return load_options(tmp_path / "o.yml", phase, overrides)

    return load


def problems(load: Load, *changes: Any, **more: Any) -> list[str]:
    """The lines of the error, without the folder."""
    with pytest.raises(OptionsError) as caught:
        load(*changes, **more)
    return [re.sub(r"^\S*o\.yml", "o.yml", line) for line in str(caught.value).splitlines()]


def test_good_options(load: Load) -> None:
    options = load()
    assert options.name == "a_run"
    assert options.network_g is not None
    assert options.network_g.mapping() == {"type": "DBN", "num_frames": 5}
    train = options.training()
    assert (train.unit, train.total_epoch, train.total_iter) == ("epoch", 651, None)
    assert train.optim_g.arguments == {"lr": 2e-4, "betas": [0.9, 0.99]}
    assert train.losses["pixel"].mapping() == {"type": "SimDeblurCharbonnierLoss"}
    assert train.losses["pixel"].weight == 1.0
    assert options.datasets["train"].arguments == {
        "dataroot": "datasets/GoPro",
        "split": "train",
        "num_frame": 5,
        "augment": {"hflip": 0.5},
    }
    assert list(options.sets("train")) == ["train"]
    assert list(options.sets("val")) == ["val"]
    assert (options.path.results_root, options.logger.keep_last, options.val.save_img) == ("results", 3, False)


def test_dump_gives_the_same_options(load: Load, tmp_path: Path) -> None:
    options = load("name=1e4_run", "path.pretrain_network_g='1e-4'", "train.optim_g.lr=1e-7", "manual_seed=3")
    (tmp_path / "dumped.yml").write_text(options.dump())
    again = load_options(tmp_path / "dumped.yml")
    assert again == options
    assert again.path.pretrain_network_g == "1e-4"
    assert again.training().optim_g.arguments["lr"] == 1e-7
    assert again.dump() == options.dump()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        # a typo at every level: line, key path, nearest key
        (("manual_seed:", "manual_sed:"), "o.yml:4: manual_sed: unknown key; did you mean 'manual_seed'?"),
        (("strict_load_g", "strict_load"), "o.yml:18: path.strict_load: unknown key; did you mean 'strict_load_g' or"),
        (("  scheduler:", "  sheduler:"), "o.yml:22: train.sheduler: unknown key; did you mean 'scheduler'?"),
        (("protocol:", "protocoll:"), "o.yml:25: val.protocoll: unknown key; did you mean 'protocol'?"),
        (("print_freq", "print_frq"), "o.yml:26: logger.print_frq: unknown key; did you mean 'print_freq'?"),
        (("num_frames: 5", "num_frame: 5"), "network_g.num_frame: unknown argument of DBN; did you mean 'num_frames'?"),
        (
            ("gt_size", "gt_sise"),
            "o.yml:11: datasets.train.gt_sise: unknown argument of VideoDataset; did you mean 'gt_",
        ),
        (
            ("weight: 1", "weigth: 1"),
            "o.yml:24: train.losses.pixel.weigth: unknown argument of SimDeblurCharbonnierLoss",
        ),
        (
            ("gamma: 0.1", "gama: 0.1"),
            "o.yml:22: train.scheduler.gama: unknown argument of MultiStepRestartLR; did you",
        ),
        (("betas", "beta"), "o.yml:21: train.optim_g.beta: unknown argument of Adam; did you mean 'betas'?"),
        (("hflip", "hflp"), "o.yml:13: datasets.train.augment: should be 'hflip', 'vflip', 'transpose', "),
        # unknown names
        (
            ("type: DBN", "type: DBM"),
            "o.yml:16: network_g.type: there is no 'DBM' among the archs; did you mean 'DBN'?",
        ),
        (("Adam", "Adan"), "train.optim_g.type: there is no 'Adan' among the optimizers; did you mean 'Adam'"),
        (
            ("MultiStepRestart", "MultiRestart"),
            "train.scheduler.type: there is no 'MultiRestartLR' among the schedulers",
        ),
        (
            ("type: Sim", "type: Sin"),
            "train.losses.pixel.type: there is no 'SinDeblurCharbonnierLoss' among the losses",
        ),
        (
            ("rgb/1", "rgb/2"),
            "o.yml:25: val.protocol: there is no 'basicsr-rgb/2' among the protocols; did you mean 'ba",
        ),
        ("model_type=Restore", "--set model_type=Restore: model_type: there is no 'Restore' among the models"),
        (("datasets:\n  train:", "datasets:\n  trian:"), "o.yml:6: datasets.trian: a data set is called train, val"),
        # types: nothing is converted silently
        (("lr: 2e-4", "lr: '2e-4'"), "train.optim_g.lr: should be a number, got '2e-4' (argument of Adam)"),
        (
            ("num_frames: 5", "num_frames: 5.0"),
            "network_g.num_frames: should be a whole number, got 5.0 (argument of DBN",
        ),
        (("num_frames: 5", "num_frames: true"), "network_g.num_frames: should be a whole number, got True"),
        (("gt_size: 256", "gt_size: '256'"), "o.yml:11: datasets.train.gt_size: should be a whole number, got '256'"),
        (("per_gpu: 8", "per_gpu: 8.0"), "datasets.train.batch_size_per_gpu: should be a whole number, got 8.0"),
        (("per_gpu: 8", "per_gpu: 0"), "datasets.train.batch_size_per_gpu: should be greater than 0, got 0"),
        (("_g: true", "_g: 'true'"), "o.yml:18: path.strict_load_g: should be true or false, got 'true'"),
        (("[500, 600]", "[500, a]"), "train.scheduler.milestones: should be a whole number, got [500, 'a']"),
        (("[500, 600]", "[500, '600']"), "train.scheduler.milestones: should be a whole number, got [500, '600']"),
        (("[500, 600]", "500"), "train.scheduler.milestones: should be a list, got 500"),
        (("[0.9, 0.99]", "[0.9]"), "train.optim_g.betas: has too few items, got [0.9]"),
        ("num_gpu=all", "--set num_gpu=all: num_gpu: should be a whole number or 'auto', got 'all'"),
        ("name=1e4", "--set name=1e4: name: should be a text, got 10000.0"),
        ("name=a/b", "--set name=a/b: name: names the folder of the run: 'a/b' cannot"),
        ("name=..", "name: names the folder of the run: '..' cannot"),
        ("schema=deblurkit/2", "schema: should be 'deblurkit/1', got 'deblurkit/2'"),
        ("datasets.val=3", "--set datasets.val=3: datasets.val: should be a mapping (`key: value`), got 3"),
        ("train.hooks={}", "train.hooks: should be a list, got {}"),
        ("train.losses={}", "train.losses: has too few items, got {}"),
        # what is missing
        (("    type: VideoDataset\n    data", "    data"), "o.yml:6: datasets.train.type: missing: it is required"),
        (("    split: train\n", ""), "o.yml:6: datasets.train.split: missing: VideoDataset needs it"),
        (
            ("milestones: [500, 600], ", ""),
            "o.yml:22: train.scheduler.milestones: missing: MultiStepRestartLR needs it",
        ),
        (("  total_epoch: 651\n", ""), "o.yml:19: train: give either total_epoch or total_iter"),
        ("train.total_iter=5", "train: give either total_epoch or total_iter"),
        ("network_g=null", "--set network_g=null: network_g: missing: training needs it"),
        (("  val: {type: VideoDataset, dataroot: datasets/GoPro, split: test}\n", ""), "o.yml:24: val.val_freq: valid"),
    ],
)
def test_each_mistake_is_one_line(load: Load, change: Any, line: str) -> None:
    found = problems(load, change)
    assert line in found[0]
    if "datasets.trian" not in line:  # there the data set `train` is missing too
        assert len(found) == 1


def test_all_mistakes_are_reported_at_once(load: Load) -> None:
    found = problems(
        load,
        ("type: DBN", "type: DBM"),
        ("lr: 2e-4", "lr: fast"),
        ("[500, 600]", "[x]"),
        ("total_epoch: 651", "total_epoch: 651\n  total_iter: 5\n  extra: 1"),
        ("print_freq: 100", "print_freq: 0"),
        ("rgb/1", "rgb/9"),
        "plugins=[/nowhere/at/all, 3]",
    )
    text = "\n".join(found)
    for key in (
        "network_g.type",
        "train.optim_g.lr",
        "train.scheduler.milestones",
        "train: give either",
        "train.extra",
        "logger.print_freq",
        "val.protocol",
        "plugins.0: plugins: /nowhere/at/all is not a folder",
        "plugins.1: should be a text, got 3",
    ):
        assert text.count(key) == 1, text
    assert len(found) == 9


@pytest.mark.parametrize("wrong", ["fast", [1e-4], None, True])
def test_learning_rates_that_are_none(wrong: Any) -> None:
    assert [path for path, _ in check_arguments(torch.optim.Adam, {"lr": wrong}, skip=["params"])] == [("lr",)]


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "RMSprop"])
def test_torch_optimisers_have_usable_signatures(name: str) -> None:
    cls = getattr(torch.optim, name)
    assert not check_arguments(cls, {"lr": 1e-4, "weight_decay": 0, "foreach": None}, skip=["params"])
    (problem,) = check_arguments(cls, {"weight_dekay": 0.1}, skip=["params"])
    assert problem[0] == ("weight_dekay",)
    assert problem[1].startswith(f"unknown argument of {name}; did you mean 'weight_decay'")


@pytest.mark.usefixtures("own_registries")
def test_hooks_are_checked_one_by_one(load: Load) -> None:
    @HOOK_REGISTRY.register()
    class TallyHook:
        def __init__(self, every: int) -> None: ...

    found = problems(load, "train.hooks=[{type: TallyHook, every: 3}, {type: TallyHook, evry: 3}, {type: TallyHok}, 4]")
    assert [line.partition("}, 4]: ")[2] for line in found] == [
        "train.hooks.3: should be a mapping (`key: value`), got 4",
        "train.hooks.1.evry: unknown argument of TallyHook; did you mean 'every'?",
        "train.hooks.1.every: missing: TallyHook needs it",
        "train.hooks.2.type: there is no 'TallyHok' among the hooks; did you mean 'TallyHook'?",
    ]
    options = load("train.hooks=[{type: TallyHook, every: 3}]")
    assert [hook.mapping() for hook in options.training().hooks] == [{"type": "TallyHook", "every": 3}]


def test_a_base_and_an_override_are_named_as_places(load: Load, tmp_path: Path) -> None:
    (tmp_path / "base.yml").write_text(TRAIN.replace("num_frames: 5", "num_frame: 5"))
    with pytest.raises(OptionsError) as caught:
        load("network_g.inner=3", text="_base_: base.yml\nname: other\n")
    first, second = sorted(str(caught.value).splitlines())
    assert first.startswith("--set network_g.inner=3: network_g.inner: unknown argument of DBN")
    assert second.startswith(f"{tmp_path / 'base.yml'}:17: network_g.num_frame: unknown argument of DBN")


def test_another_type_drops_the_arguments_of_the_base(load: Load, tmp_path: Path) -> None:
    (tmp_path / "base.yml").write_text(TRAIN)
    options = load(text="_base_: base.yml\ntrain: {scheduler: {type: TrueCosineAnnealingLR, T_max: 651}}\n")
    assert options.training().scheduler == Component(type="TrueCosineAnnealingLR", T_max=651)


def test_files_of_other_tools_are_told_apart(load: Load) -> None:
    with pytest.raises(OptionsError, match=r"o\.yml:2: the line `schema: deblurkit/1` is missing, and model_type"):
        load(("schema: deblurkit/1\n", ""), ("name: a_run\n", "name: a_run\nmodel_type: RestorationModel\n"))


def test_what_a_test_needs(load: Load) -> None:
    start, end = TRAIN.index("train:\n  total_epoch"), TRAIN.index("val: {val_freq")
    text = TRAIN[:start] + TRAIN[end:]
    assert load(text=text, phase="test").train is None
    with pytest.raises(OptionsError, match="a_run: these options have no `train` section"):
        load(text=text, phase="test").training()
    assert "train: missing: training needs it" in problems(load, text=text)[0]
    (line,) = problems(load, ("  val: {", "  train_2: {"), text=text, phase="test")
    assert "datasets: testing needs a data set `test` or `val`" in line


def test_a_plugin_folder_of_the_call_that_is_none(load: Load, tmp_path: Path) -> None:
    load()
    with pytest.raises(RegistryError, match="nowhere is not a folder"):
        load_options(tmp_path / "o.yml", plugins=[tmp_path / "nowhere"])


@pytest.mark.usefixtures("own_registries")
def test_a_plugin_folder_brings_a_loss(load: Load, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "my_loss.py").write_text(
        "from deblurkit.losses.base import Loss\nfrom deblurkit.registry import LOSS_REGISTRY\n"
        "@LOSS_REGISTRY.register()\nclass MyLoss(Loss):\n    def forward(self, restored, gt): return restored.sum()\n"
    )
    options = load(f"plugins=[{tmp_path / 'mine'}]", "train.losses.mine={type: MyLoss}")
    assert list(options.training().losses) == ["pixel", "mine"]


def test_components_keep_arguments_with_odd_names() -> None:
    component = Component(type="X", arguments=1, mapping=2, model_config=3, copy=4)
    expected = {"type": "X", "arguments": 1, "mapping": 2, "model_config": 3, "copy": 4}
    assert Component.mapping(component) == expected


class Target:
    """Annotations of many kinds."""

    def __init__(
        self,
        a: int | None = None,
        b: Literal["x", "y"] = "x",
        c: tuple[int, int] = (1, 2),
        d: float | tuple[float, float] = 1.0,
        e: list[list[int]] | None = None,
        f: dict[str, float] | None = None,
        g: NotImported = None,  # type: ignore[name-defined]  # noqa: F821
        _h: int = 0,
        copy: bool = False,
    ) -> None: ...


class Typed(Target):
    def __init__(
        self,
        a: int | None = None,
        b: Literal["x", "y"] = "x",
        c: tuple[int, int] = (1, 2),
        d: float | tuple[float, float] = 1.0,
        e: list[list[int]] | None = None,
        f: dict[str, float] | None = None,
        _h: int = 0,
        copy: bool = False,
        text: str = "",
        many: tuple[str, ...] = (),
    ) -> None: ...


@pytest.mark.parametrize(
    "good",
    [
        {},
        {"a": None, "b": "y", "c": [3, 4], "d": [0.5, 1], "e": [[1], []], "f": {"k": 1}},
        {"c": (3, 4), "d": 2, "_h": 3, "copy": True, "text": "1", "many": ["a", "b"]},
    ],
)
def test_values_that_fit(good: dict[str, Any]) -> None:
    assert check_arguments(Typed, good) == []
    Typed(**good)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("a", "5", "should be a whole number, got '5'"),
        ("a", 5.0, "should be a whole number, got 5.0"),
        ("b", "z", "should be 'x' or 'y', got 'z'"),
        ("c", [1], "has too few items, got [1]"),
        ("c", [1, 2, 3], "has too many items"),
        ("c", 3, "should be a list, got 3"),
        ("d", "1e-4", "should be a number, got '1e-4'"),
        ("d", ["1", 2.0], "should be a number, got ['1', 2.0]"),
        ("e", [[1], ["2"]], "should be a whole number, got [[1], ['2']]"),
        ("f", {"k": "1"}, "should be a number, got {'k': '1'}"),
        ("f", [1], "should be a mapping (`key: value`), got [1]"),
        ("_h", None, "should be a whole number, got None"),
        ("copy", 1, "should be true or false, got 1"),
        ("copy", "yes", "should be true or false, got 'yes'"),
        ("text", 1, "should be a text, got 1"),
        ("many", "abc", "should be a list, got 'abc'"),
    ],
)
def test_values_that_do_not_fit(name: str, value: Any, text: str) -> None:
    ((path, found),) = check_arguments(Typed, {name: value})
    assert path == (name,)
    assert text in found
    assert found.endswith("(argument of Typed)")


def test_annotations_that_cannot_be_resolved_leave_the_names() -> None:
    assert check_arguments(Target, {"g": object(), "a": 1}) == []
    assert [path for path, _ in check_arguments(Target, {"aa": 1})] == [("aa",)]


def test_classes_without_a_constructor_take_nothing() -> None:
    class Empty:
        pass

    class Layer(torch.nn.Module):
        pass

    for cls in (Empty, Layer):
        assert signature_of(cls) == {}
        assert [path for path, _ in check_arguments(cls, {"x": 1})] == [("x",)]


def test_a_constructor_that_takes_anything_is_believed() -> None:
    class Free:
        def __init__(self, known: int, **others: Any) -> None: ...

    assert check_arguments(Free, {"known": 1, "whatever": "x"}) == []
    assert [path for path, _ in check_arguments(Free, {"known": "1", "whatever": "x"})] == [("known",)]
