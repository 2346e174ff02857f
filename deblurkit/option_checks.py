"""What is wrong with native options, all of it at once, in words that name the key."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from deblurkit.arguments import Problem, check_arguments, either, plain
from deblurkit.errors import RegistryError, did_you_mean
from deblurkit.options import (
    TWO_UNITS,
    Component,
    ContrastiveOptions,
    DatasetOptions,
    GANOptions,
    LossOptions,
    Options,
    PenaltyOptions,
)
from deblurkit.yaml_source import KeyPath, Source


def at(values: Any, *path: str) -> Any:
    """The mapping or list at a key path; None where there is none."""
    for part in path:
        values = values.get(part) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping | list) else None


def check_components(values: Mapping[str, Any]) -> list[Problem]:
    """Every `type` must be registered and its arguments must fit; looks at the raw values, so that all errors show."""
    from deblurkit.engine.schedules import OPTIMIZERS, SCHEDULES, known_name
    from deblurkit.metrics import PROTOCOLS
    from deblurkit.registry import (
        ARCH_REGISTRY,
        DATASET_REGISTRY,
        HOOK_REGISTRY,
        LOSS_REGISTRY,
        METRIC_REGISTRY,
        MODEL_REGISTRY,
    )

    problems: list[Problem] = []

    def find(path: KeyPath, name: Any, table: Callable[[str], Any]) -> Any:
        if not isinstance(name, str):
            return None  # absent, or reported already
        try:
            return table(name)
        except RegistryError as error:
            problems.append((path, str(error)))
            return None

    def check(
        path: KeyPath, mapping: Any, table: Callable[[str], Any], beside: Iterable[str] = (), skip: Iterable[str] = ()
    ) -> None:
        if not isinstance(mapping, Mapping):
            return
        cls = find((*path, "type"), mapping.get("type"), table)
        if cls is not None:
            arguments = {key: value for key, value in mapping.items() if key not in {"type", *beside}}
            found = check_arguments(cls, arguments, skip, beside)
            problems.extend(((*path, *where), text) for where, text in found)

    def optimizer(name: str) -> Any:
        return known_name("optimizers", name, OPTIMIZERS())

    def scheduler(name: str) -> Any:
        return known_name("schedulers", name, SCHEDULES)

    check(("network_g",), at(values, "network_g"), ARCH_REGISTRY.get)
    judges = at(values, "network_d")
    if isinstance(judges, Mapping) and "type" not in judges:
        for key, mapping in judges.items():
            check(("network_d", key), mapping, ARCH_REGISTRY.get)
    else:
        check(("network_d",), judges, ARCH_REGISTRY.get)
    for key, mapping in (at(values, "datasets") or {}).items():
        check(("datasets", key), mapping, DATASET_REGISTRY.get, beside=_keys(DatasetOptions))
    for key in ("optim_g", "optim_d"):
        check(("train", key), at(values, "train", key), optimizer, skip=("params",))
    check(("train", "gan"), at(values, "train", "gan"), LOSS_REGISTRY.get, beside=_keys(GANOptions))
    for key, mapping in (at(values, "train", "gan", "penalties") or {}).items():
        check(("train", "gan", "penalties", key), mapping, LOSS_REGISTRY.get, beside=_keys(PenaltyOptions))
    check(
        ("train", "contrastive"),
        at(values, "train", "contrastive"),
        LOSS_REGISTRY.get,
        beside=_keys(ContrastiveOptions),
    )
    check(("train", "scheduler"), at(values, "train", "scheduler"), scheduler)
    for key, mapping in (at(values, "train", "losses") or {}).items():
        check(("train", "losses", key), mapping, LOSS_REGISTRY.get, beside=_keys(LossOptions))
    for i, mapping in enumerate(at(values, "train", "hooks") or []):
        check(("train", "hooks", str(i)), mapping, HOOK_REGISTRY.get)
    find(("model_type",), values.get("model_type"), MODEL_REGISTRY.get)
    find(("val", "protocol"), (at(values, "val") or {}).get("protocol"), PROTOCOLS.get)
    for key, mapping in (at(values, "val", "protocol", "metrics") or {}).items():
        check(("val", "protocol", "metrics", key), mapping, METRIC_REGISTRY.get)
    return problems


def _keys(section: type[Component]) -> list[str]:
    """The keys of a component that are not arguments of its class."""
    return [key for key in section.model_fields if key != "type"]


def check_phase(values: Mapping[str, Any], phase: str) -> list[Problem]:
    """What must be there for training, or for testing, and what contradicts it."""
    problems: list[Problem] = []
    datasets = values.get("datasets")
    keys = list(datasets) if isinstance(datasets, Mapping) else []
    phases = ["train", "val", "test"]
    for key in keys:
        if key.split("_")[0] not in phases:
            hint = did_you_mean(key, phases)
            problems.append((("datasets", key), f"a data set is called train, val, val_..., test or test_...{hint}"))
    if phase == "train":
        for key in ("train", "network_g"):
            if values.get(key) is None:
                problems.append(((key,), "missing: training needs it"))
        if keys and "train" not in keys:
            problems.append((("datasets", "train"), "missing: training needs it"))
        train, val = at(values, "train"), at(values, "val")
        if train is not None and (train.get("total_epoch") is None) == (train.get("total_iter") is None):
            problems.append((("train",), TWO_UNITS))  # pydantic comes to it only when all else in the section is right
        schedule = at(values, "datasets", "train", "iters")
        if train is not None and train.get("total_epoch") is not None and schedule:
            text = "a progressive schedule (iters) has epochs of different lengths: give train.total_iter instead"
            problems.append((("train", "total_epoch"), text))
        if val is not None and val.get("val_freq") and not any(k.split("_")[0] == "val" for k in keys):
            problems.append((("val", "val_freq"), "validation is asked for, but there is no data set `val`"))
    elif keys and not any(key.split("_")[0] in ("test", "val") for key in keys):
        problems.append((("datasets",), "testing needs a data set `test` or `val`"))
    return problems


def explain(error: ValidationError, values: Mapping[str, Any]) -> list[Problem]:
    """Pydantic's errors in our words."""
    problems: list[Problem] = []
    alternatives: dict[KeyPath, list[str]] = {}
    for item in error.errors():
        path = tuple(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            problems.append((path, f"unknown key{did_you_mean(path[-1], _keys_at(path[:-1]))}"))
        elif item["type"] == "missing":
            problems.append((path, "missing: it is required"))
        elif item["type"] == "value_error":
            problems.append((path, plain(item)))
        else:
            # the alternatives of a union come one by one, each with its type's name at the end of the path
            path = _written(path, values)
            alternatives.setdefault(path, []).append(plain(item))
    for path, texts in alternatives.items():
        value: Any = values
        for part in path:
            value = value[int(part)] if isinstance(value, list) else value[part]
        problems.append((path, f"{either(texts)}, got {value!r}"))
    return problems


def _written(path: KeyPath, values: Any) -> KeyPath:
    """The part of a key path that stands in the options."""
    for depth, part in enumerate(path):
        if isinstance(values, Mapping) and part in values:
            values = values[part]
        elif isinstance(values, list) and part.isdecimal() and int(part) < len(values):
            values = values[int(part)]
        else:
            return path[:depth]
    return path


def _keys_at(path: KeyPath) -> list[str]:
    """The keys that the schema knows at a path."""
    model: Any = Options
    for part in path:
        if typing.get_origin(model) is dict:
            model = typing.get_args(model)[1]
        elif inspect.isclass(model) and issubclass(model, BaseModel):
            named = {field.alias or name: field for name, field in model.model_fields.items()}
            if part not in named:
                return []
            model = named[part].annotation
        alternatives = [a for a in typing.get_args(model) if a is not type(None)]
        if typing.get_origin(model) is not dict and alternatives:
            model = alternatives[0]
    if inspect.isclass(model) and issubclass(model, BaseModel):
        return [field.alias or name for name, field in model.model_fields.items()]
    return []


def report(path: str | Path, source: Source, problems: list[Problem]) -> str:
    """The problems, one a line, each with the place where its key was written.

    Of a translated file those of the translation are told as well; what is missing only because of them is not.
    """
    found = list(source.untranslated)
    for where, text in problems:
        written = source.as_written(where)
        # of a section in which something was not translated, or of what is missing for that reason
        if any(path[: len(written)] == written for _, path, _ in source.untranslated):
            continue
        if source.untranslated and not _stands(source.values, where):
            continue
        found.append((source.place(where), written, text))
    if source.written:  # in the order of the file, whoever found it
        found.sort(key=lambda item: _line(item[0]))
    lines = [f"{place or path}: {'.'.join(written)}: {text}" for place, written, text in found]
    return "\n".join(dict.fromkeys(lines))


def _stands(values: Any, where: KeyPath) -> bool:
    """Whether there is a value at a key path."""
    return _written(where, values) == where


def _line(place: str) -> int:
    number = place.rpartition(":")[2]
    return int(number) if number.isdecimal() else 0
