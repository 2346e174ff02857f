"""The native options: YAML to validated, typed values. Unknown keys are errors, and all errors are reported at once."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from deblurkit.errors import OptionsError, did_you_mean
from deblurkit.yaml_source import KeyPath, Source, read_source

SCHEMA = "deblurkit/1"

Problem = tuple[KeyPath, str]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Component(BaseModel):
    """`type` and the constructor arguments of a registered class (checked against its signature)."""

    model_config = ConfigDict(extra="allow")
    type: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor arguments."""
        return dict(self.__pydantic_extra__ or {})

    def mapping(self) -> dict[str, Any]:
        """`{"type": ..., **arguments}`."""
        return {"type": self.type, **self.arguments}


class DatasetOptions(Component):
    """A data set (`type` and its arguments) and how it is sampled and loaded.

    Attributes:
        gt_size: side of the square training crop of the ground truth in pixels; None: whole frames.
        batch_size_per_gpu, num_worker_per_gpu: per process.
        prefetch_mode: "auto" (cuda on a GPU, else cpu), "cuda" (side stream), "cpu" (thread), None (none).
        dataset_enlarge_ratio: an epoch visits every sample this many times, each time with another crop.
    """

    gt_size: int | None = Field(None, gt=0)
    batch_size_per_gpu: int = Field(1, gt=0)
    num_worker_per_gpu: int = Field(0, ge=0)
    prefetch_mode: Literal["auto", "cuda", "cpu"] | None = "auto"
    dataset_enlarge_ratio: int = Field(1, gt=0)


class LossOptions(Component):
    """A loss: its `weight` in the sum and the network `output` it looks at."""

    weight: float = 1.0
    output: str = "restored"


class PathOptions(_Section):
    """Weights to start from, and where runs and results go.

    Attributes:
        pretrain_network_g: weights file. strict_load_g: names and sizes must all fit.
    """

    pretrain_network_g: str | None = None
    strict_load_g: bool = True
    experiments_root: str = "experiments"
    results_root: str = "results"


class TrainOptions(_Section):
    """The schedule. `total_epoch` or `total_iter`; milestones, `val_freq` and `save_checkpoint_freq` share that unit."""

    total_epoch: int | None = Field(None, gt=0)
    total_iter: int | None = Field(None, gt=0)
    optim_g: Component
    scheduler: Component | None = None
    losses: dict[str, LossOptions] = Field(min_length=1)
    hooks: list[Component] = []

    @model_validator(mode="after")
    def _one_unit(self) -> TrainOptions:
        if (self.total_epoch is None) == (self.total_iter is None):
            raise ValueError("give either total_epoch or total_iter (and count milestones and frequencies in it)")
        return self

    @property
    def unit(self) -> Literal["epoch", "iter"]:
        """What milestones and frequencies count."""
        return "epoch" if self.total_epoch is not None else "iter"


class ValOptions(_Section):
    """Validation and test. `val_freq` None: no validation during training."""

    val_freq: int | None = Field(None, gt=0)
    protocol: str = "basicsr-rgb/1"
    save_img: bool = False


class LoggerOptions(_Section):
    """Log, TensorBoard and checkpoints. `print_freq` counts iterations; `save_checkpoint_freq` the schedule's unit."""

    print_freq: int = Field(100, gt=0)
    save_checkpoint_freq: int | None = Field(None, gt=0)
    keep_last: int = Field(3, gt=0)
    use_tb_logger: bool = True


class Options(_Section):
    """A whole options file."""

    schema_: Literal["deblurkit/1"] = Field(SCHEMA, alias="schema")
    name: str = Field(min_length=1, pattern=r"^[^/\\]+$")
    model_type: str = "RestorationModel"
    scale: int = Field(1, gt=0)
    num_gpu: int | Literal["auto"] = "auto"
    manual_seed: int = Field(0, ge=0)
    plugins: list[str] = []
    datasets: dict[str, DatasetOptions] = Field(min_length=1)
    network_g: Component | None = None
    path: PathOptions = Field(default_factory=PathOptions)
    train: TrainOptions | None = None
    val: ValOptions = Field(default_factory=ValOptions)
    logger: LoggerOptions = Field(default_factory=LoggerOptions)

    def sets(self, phase: str) -> dict[str, DatasetOptions]:
        """The data sets of a phase ("train", "val" or "test") in order: keys `phase` and `phase_...`."""
        return {key: value for key, value in self.datasets.items() if key.split("_")[0] == phase}

    def training(self) -> TrainOptions:
        """The train section.

        Raises:
            OptionsError: the file has none.
        """
        if self.train is None:
            raise OptionsError(f"{self.name}: these options have no `train` section")
        return self.train

    def dump(self) -> str:
        """YAML text that gives the same options again."""
        values = self.model_dump(by_alias=True, mode="json")
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def load_options(
    path: str | Path,
    phase: Literal["train", "test"] = "train",
    overrides: Iterable[str] = (),
    plugins: Iterable[str | Path] = (),
) -> Options:
    """Read and check an options file.

    Args:
        path: YAML file. phase: what it is to be used for; decides what must be there.
        overrides: `a.b.c=value` texts (`--set`). plugins: folders with the user's own classes.

    Raises:
        OptionsError: with every problem found, one a line: file and line, key path, and the nearest key for a typo.
        RegistryError: a plugin folder is not usable.
    """
    source = read_source(path, overrides)
    if source.values.get("schema") is None:
        raise OptionsError(
            f"{path}: the line `schema: {SCHEMA}` is missing. This version reads deblurkit's own options only; "
            "a file written for BasicSR, NAFNet or Restormer has to be rewritten (options/train_dbn.yml is a model)"
        )
    problems: list[Problem] = []
    options: Options | None = None
    try:
        options = Options.model_validate(source.values)
    except ValidationError as error:
        problems += [_explain(item) for item in error.errors()]
    extra = source.values.get("plugins")
    from deblurkit.registry import load_plugins

    load_plugins([*plugins, *(extra if isinstance(extra, list) else [])])
    problems += _check_components(source.values)
    problems += _check_phase(source.values, phase)
    if problems:
        raise OptionsError(_report(path, source, problems))
    assert options is not None
    return options


def check_arguments(cls: Callable[..., Any], arguments: Mapping[str, Any], skip: Iterable[str] = ()) -> list[Problem]:
    """What is wrong with `cls(**arguments)`, judged by the signature: unknown, missing and wrongly typed arguments.

    Args:
        skip: parameters that the caller fills in itself.
    """
    parameters, free = _parameters(cls, skip)
    fields = {
        name: (annotation, ... if default is inspect.Parameter.empty else default)
        for name, (annotation, default) in parameters.items()
    }
    config = ConfigDict(extra="allow" if free else "forbid", arbitrary_types_allowed=True, protected_namespaces=())
    # pydantic refuses some names for fields (leading underscores, "copy"...), so each goes in under an alias of its own
    aliased = {f"p{i}": (t, Field(d, alias=name)) for i, (name, (t, d)) in enumerate(fields.items())}
    model = create_model("Arguments", __config__=config, **typing.cast(Any, aliased))
    problems: list[Problem] = []
    try:
        checked = model.model_validate(dict(arguments))
    except ValidationError as error:
        for item in error.errors():
            path = tuple(str(part) for part in item["loc"])
            if item["type"] == "extra_forbidden":
                problems.append((path, f"unknown argument of {_name(cls)}{did_you_mean(path[-1], fields)}"))
            elif item["type"] == "missing":
                problems.append((path, f"missing: {_name(cls)} needs it"))
            else:
                # the alternatives of a union (int | None) come as separate errors with the type's name in the path
                shown = path[:1]
                text = _plain(item["msg"])
                if not any(p == shown for p, _ in problems):
                    problems.append((shown, f"{text}, got {arguments.get(path[0])!r} (argument of {_name(cls)})"))
        return problems
    for i, name in enumerate(fields):
        value = arguments.get(name)
        if isinstance(value, str) and not isinstance(getattr(checked, f"p{i}"), str):
            problems.append(((name,), f"is the text {value!r}; {_name(cls)} needs a value of another type"))
    return problems


def signature_of(cls: Callable[..., Any], skip: Iterable[str] = ()) -> dict[str, tuple[Any, Any]]:
    """Constructor arguments of a class: name to (annotation, default); `inspect.Parameter.empty` for no default."""
    return _parameters(cls, skip)[0]


def _parameters(cls: Callable[..., Any], skip: Iterable[str]) -> tuple[dict[str, tuple[Any, Any]], bool]:
    """Named parameters, and whether any others are accepted."""
    constructor = cls.__init__ if inspect.isclass(cls) else cls
    try:
        hints = typing.get_type_hints(constructor)
    except Exception:  # an annotation that only a type checker can resolve: the names are still checked
        hints = {}
    found: dict[str, tuple[Any, Any]] = {}
    free = False
    skipped = {"self", *skip}
    for name, parameter in inspect.signature(constructor).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            free = True
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL and name not in skipped:
            found[name] = (hints.get(name, Any), parameter.default)
    return found, free


def _name(cls: Callable[..., Any]) -> str:
    return getattr(cls, "__name__", str(cls))


def _check_components(values: Mapping[str, Any]) -> list[Problem]:
    """Every `type` must be registered and its arguments must fit; looks at the raw values, so that all errors show."""
    from deblurkit.engine.schedules import OPTIMIZERS, SCHEDULES, known_name
    from deblurkit.metrics import PROTOCOLS
    from deblurkit.registry import ARCH_REGISTRY, DATASET_REGISTRY, HOOK_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY

    problems: list[Problem] = []

    def section(*path: str) -> Any:
        at: Any = values
        for part in path:
            at = at.get(part) if isinstance(at, Mapping) else None
        return at

    def check(path: KeyPath, find: Callable[[str], Any], own: Iterable[str] = (), skip: Iterable[str] = ()) -> None:
        mapping = section(*path[:-1])
        mapping = mapping[int(path[-1])] if isinstance(mapping, list) else section(*path)
        if not isinstance(mapping, Mapping) or not isinstance(mapping.get("type"), str):
            return  # absent, or already reported
        try:
            cls = find(mapping["type"])
        except Exception as error:
            from deblurkit.errors import RegistryError

            if not isinstance(error, RegistryError):
                raise
            problems.append(((*path, "type"), str(error)))
            return
        arguments = {key: value for key, value in mapping.items() if key != "type" and key not in own}
        problems.extend(((*path, *where), text) for where, text in check_arguments(cls, arguments, skip))

    check(("network_g",), ARCH_REGISTRY.get)
    loader_keys = [key for key in DatasetOptions.model_fields if key != "type"]
    for key in section("datasets") if isinstance(section("datasets"), Mapping) else ():
        check(("datasets", key), DATASET_REGISTRY.get, own=loader_keys)
    check(("train", "optim_g"), lambda name: known_name("optimizers", name, OPTIMIZERS()), skip=("params",))
    check(("train", "scheduler"), lambda name: known_name("schedulers", name, SCHEDULES))
    losses = section("train", "losses")
    for key in losses if isinstance(losses, Mapping) else ():
        check(("train", "losses", key), LOSS_REGISTRY.get, own=("weight", "output"))
    hooks = section("train", "hooks")
    for i in range(len(hooks)) if isinstance(hooks, list) else ():
        check(("train", "hooks", str(i)), HOOK_REGISTRY.get)

    from deblurkit.errors import RegistryError

    for named, find in ((("model_type",), MODEL_REGISTRY.get), (("val", "protocol"), PROTOCOLS.get)):
        value = section(*named)
        if isinstance(value, str):
            try:
                find(value)
            except RegistryError as error:
                problems.append((named, str(error)))
    return problems


def _check_phase(values: Mapping[str, Any], phase: str) -> list[Problem]:
    problems: list[Problem] = []
    datasets = values.get("datasets")
    keys = list(datasets) if isinstance(datasets, Mapping) else []
    for key in keys:
        if key.split("_")[0] not in ("train", "val", "test"):
            problems.append(
                (("datasets", key), f"a data set is called train, val, val_..., test or test_...{did_you_mean(key, ['train', 'val', 'test'])}")
            )  # fmt: skip
    if phase == "train":
        for key in ("train", "network_g"):
            if values.get(key) is None:
                problems.append(((key,), "missing: training needs it"))
        if keys and "train" not in keys:
            problems.append((("datasets",), "training needs a data set `train`"))
        val = values.get("val")
        if isinstance(val, Mapping) and val.get("val_freq") and not any(k.split("_")[0] == "val" for k in keys):
            problems.append((("val", "val_freq"), "validation is asked for, but there is no data set `val`"))
    elif keys and not any(key.split("_")[0] in ("test", "val") for key in keys):
        problems.append((("datasets",), "testing needs a data set `test` or `val`"))
    return problems


def _explain(item: Any) -> Problem:
    """A pydantic error in our words."""
    path = tuple(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return path, f"unknown key{did_you_mean(path[-1], _keys_at(path[:-1]))}"
    if item["type"] == "missing":
        return path, "missing: it is required"
    if item["type"] == "value_error":
        return path, _plain(item["msg"])
    return path, f"{_plain(item['msg'])}, got {item['input']!r}"


def _plain(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].lower() + message[1:]


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


def _report(path: str | Path, source: Source, problems: list[Problem]) -> str:
    lines = []
    for where, text in problems:
        place = source.place(where)
        line = f"{place or path}: {'.'.join(where)}: {text}"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)
