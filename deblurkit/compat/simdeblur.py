"""SimDeblur's configs (`ljzycmd/SimDeblur@0a6da06`). They are converted, not run as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deblurkit.compat.sections import Section, Translation
from deblurkit.yaml_source import Source

_LOSSES = {
    "MSELoss": "MSELoss",
    "L1Loss": "L1Loss",
    "CharbonnierLoss": "SimDeblurCharbonnierLoss",
    "HEMLoss": "HEMLoss",
}
_LAYOUTS = {"DVD": "dvd", "GOPRO": "gopro", "REDS": "reds", "BSD": "bsd"}
#: Augmentations with a probability, and ours. (Its RandomRotation90 is a transpose.)
_AUGMENTATIONS = {
    "RandomHorizontalFlip": "hflip",
    "RandomVerticalFlip": "vflip",
    "RandomRotation90": "transpose",
    "RandomReverse": "reverse",
}
_SCHEDULERS = {"MultiStepLR": "MultiStepLR", "CosineAnnealingLR": "TrueCosineAnnealingLR"}


def is_simdeblur(source: Source) -> bool:
    """True for a config of SimDeblur."""
    return {"dataset", "model", "schedule"} <= source.values.keys()


def translate_simdeblur(translation: Translation, name: str) -> None:
    """Fill `translation.target`; what cannot be carried over is noted as a problem.

    Args:
        name: of the run; SimDeblur has none.
    """
    root = Section(translation, (), translation.source.values)
    values = translation.target.values
    values.update({"schema": "deblurkit/1", "name": root.get("name", name), "model_type": "RestorationModel"})
    root.move("seed", "manual_seed")
    datasets = root.section("dataset")
    for key in datasets.values if datasets else ():
        assert datasets is not None
        entry = datasets.section(key)
        if entry:
            _dataset(entry, key)
    model = root.section("model")
    if model:
        model.move("name", "network_g", "type")
        model.rest("network_g")
    meta = root.section("meta_arch")
    if meta:
        meta.ignore(*meta.values, why="networks say themselves how they are run")
    _loss(root)
    _schedule(root)
    for section, key, to in (("logging", "period", "print_freq"), ("ckpt", "period", "save_checkpoint_freq")):
        found = root.section(section)
        if found:
            found.move(key, "logger", to)
            found.close()
    if root.get("resume_from") not in (None, "None"):
        root.ignore("resume_from", why="give --resume or path.pretrain_network_g")
    if root.get("init_lr") is not None:
        root.ignore("init_lr")
    root.ignore("work_dir", "experiment_name", "args", "gpus", "local_rank")
    root.close()


def _dataset(entry: Section, key: str) -> None:
    to = ("datasets", key)
    entry.set("VideoDataset", "name", *to, "type")
    layout = _LAYOUTS.get(str(entry.get("name")).upper())
    if layout is None:
        entry.translation.problem(entry.at("name"), f"there is no layout for the data set {entry.get('name')!r}")
    else:
        entry.set(layout, "name", *to, "layout")
    # roots end in the split's folder there; here the split has its own key
    root = str(entry.get("root_gt", ""))
    parent, _, last = root.rstrip("/").rpartition("/")
    split = last if last in ("train", "val", "valid", "test") else ("train" if key == "train" else "test")
    entry.set(parent if split == last else root, "root_gt", *to, "dataroot")
    entry.set(split, "mode", *to, "split")
    if layout == "reds":
        entry.ignore("root_input", why="a REDS folder holds both sides; set dataroot to it")
    if entry.get("use_gamma"):
        entry.set("blur_gamma", "use_gamma", *to, "lq")
    _sampling(entry, to)
    entry.move("num_frames", *to, "num_frame")
    entry.move("interval", *to, "interval")
    entry.move("overlapping", *to, "overlapping")
    loader = entry.section("loader")
    if loader:
        if key == "train":
            loader.move("batch_size", *to, "batch_size_per_gpu")
            loader.move("num_workers", *to, "num_worker_per_gpu")
        loader.ignore(*(k for k in loader.values if key != "train" or k not in ("batch_size", "num_workers")))
    if key == "train":
        _augmentation(entry, to)
    else:
        entry.ignore("augmentation")
    entry.get("mode"), entry.get("data_type")
    entry.close()


def _sampling(entry: Section, to: tuple[str, ...]) -> None:
    sampling = entry.get("sampling", "n_c")
    native = {"strcnn": "context", "dvd_test": "n_c"}.get(str(sampling), sampling)
    entry.set(native, "sampling", *to, "sampling")
    if sampling == "dvd_test":
        entry.set("dvd_test", "sampling", *to, "anchors")


def _augmentation(entry: Section, to: tuple[str, ...]) -> None:
    augmentation = entry.section("augmentation")
    for name in augmentation.values if augmentation else ():
        assert augmentation is not None
        value = augmentation.get(name)
        arguments: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        if name == "RandomCrop":
            size = arguments.get("size", value)
            sides = size if isinstance(size, list) and size else [size]
            if sides != [sides[0]] * len(sides) or not isinstance(sides[0], int):
                augmentation.translation.problem(augmentation.at(name), f"crops are square here, got {size!r}")
            else:
                augmentation.set(sides[0], name, *to, "gt_size")
        elif name in _AUGMENTATIONS:
            augmentation.set(arguments.get("p", 0.5), name, *to, "augment", _AUGMENTATIONS[name])
        else:
            augmentation.ignore(name)


def _loss(root: Section) -> None:
    loss = root.section("loss")
    if loss is None:
        return
    criteria = loss.get("criterion") or []
    criteria = criteria if isinstance(criteria, list) else [criteria]
    weights = loss.get("weights", [1.0] * len(criteria))
    if not isinstance(weights, list) or len(weights) != len(criteria):
        loss.translation.problem(loss.at("weights"), f"is a list with a number for each criterion, got {weights!r}")
        weights = [1.0] * len(criteria)
    for number, (criterion, weight) in enumerate(zip(criteria, weights, strict=True)):
        name = str(criterion.get("name") if isinstance(criterion, Mapping) else criterion)
        if name not in _LOSSES:
            loss.translation.problem(loss.at("criterion"), f"there is no counterpart of the loss {name!r}")
            continue
        to = ("train", "losses", "pixel" if number == 0 else f"loss_{number}")
        loss.set(_LOSSES[name], "criterion", *to, "type")
        loss.set(weight, "weights", *to, "weight")
        if isinstance(criterion, Mapping) and criterion.keys() - {"name", "loss_weight"}:
            extra = ", ".join(sorted(criterion.keys() - {"name", "loss_weight"}))
            loss.translation.problem(loss.at("criterion"), f"carry the arguments of {name} over by hand: {extra}")
    loss.close()


def _schedule(root: Section) -> None:
    schedule = root.section("schedule")
    if schedule is None:
        return
    schedule.move("epochs", "train", "total_epoch")
    schedule.move("val_epochs", "val", "val_freq")
    optimizer = schedule.section("optimizer")
    if optimizer:
        optimizer.move("name", "train", "optim_g", "type")
        optimizer.rest("train", "optim_g")
    scheduler = schedule.section("lr_scheduler")
    if scheduler:
        name = str(scheduler.get("name"))
        if name in _SCHEDULERS:
            scheduler.set(_SCHEDULERS[name], "name", "train", "scheduler", "type")
            scheduler.rest("train", "scheduler")
        else:
            schedule.translation.problem(scheduler.at("name"), f"there is no counterpart of the scheduler {name!r}")
    schedule.close()
