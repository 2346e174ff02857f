"""The native options: YAML to validated, typed values. Unknown keys are errors, and all errors are reported at once."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from deblurkit.errors import OptionsError, RegistryError, did_you_mean
from deblurkit.yaml_source import KeyPath, Source, dump_yaml, read_source

if TYPE_CHECKING:
    from deblurkit.metrics import Protocol

SCHEMA: Literal["deblurkit/1"] = "deblurkit/1"

Problem = tuple[KeyPath, str]


_TWO_UNITS = "give either total_epoch or total_iter (milestones and frequencies count in the one that is given)"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)  # strict: `batch_size_per_gpu: "8"` or `true` is an error


class Component(BaseModel):
    """`type` and the constructor arguments of a registered class (checked against its signature)."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())
    type: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor arguments."""
        return dict(self.__pydantic_extra__ or {})

    def mapping(self) -> dict[str, Any]:
        """`{"type": ..., **arguments}`."""
        return {"type": self.type, **self.arguments}


class MixupOptions(_Section):
    """Blending of samples: ratios from Beta(`beta`, `beta`); `use_identity`: half of the batches stay as they are."""

    beta: float = Field(1.2, gt=0)
    use_identity: bool = True


class DatasetOptions(Component):
    """A data set (`type` and its arguments) and how it is sampled and loaded.

    Attributes:
        gt_size: side of the square training crop of the ground truth in pixels; None: whole frames.
        batch_size_per_gpu, num_worker_per_gpu: per process.
        iters, gt_sizes, mini_batch_sizes: a progressive schedule (Restormer): so many iterations each with that crop
            and that batch per process, the last stage until the end. They replace `gt_size` and `batch_size_per_gpu`.
        mixup: blend the samples of a batch; None: no.
        prefetch_mode: "auto" (cuda on a GPU, else cpu), "cuda" (side stream), "cpu" (thread), None (none).
        dataset_enlarge_ratio: an epoch visits every sample this many times, each time with another crop.
    """

    gt_size: int | None = Field(None, gt=0)
    batch_size_per_gpu: int = Field(1, gt=0)
    iters: list[Annotated[int, Field(gt=0)]] = []
    gt_sizes: list[Annotated[int, Field(gt=0)]] = []
    mini_batch_sizes: list[Annotated[int, Field(gt=0)]] = []
    mixup: MixupOptions | None = None
    num_worker_per_gpu: int = Field(0, ge=0)
    prefetch_mode: Literal["auto", "cuda", "cpu"] | None = "auto"
    dataset_enlarge_ratio: int = Field(1, gt=0)

    @model_validator(mode="after")
    def _whole_schedule(self) -> DatasetOptions:
        if not len(self.iters) == len(self.gt_sizes) == len(self.mini_batch_sizes):
            raise ValueError(
                "a progressive schedule is three lists of one length: "
                f"iters has {len(self.iters)}, gt_sizes {len(self.gt_sizes)}, mini_batch_sizes "
                f"{len(self.mini_batch_sizes)} items"
            )
        if self.iters and (self.gt_size is not None or self.batch_size_per_gpu != 1):
            raise ValueError(
                "gt_sizes and mini_batch_sizes (a progressive schedule) replace gt_size and batch_size_per_gpu; leave "
                "these out"
            )
        return self


class LooksAt(Component):
    """What a loss looks at, and its `weight` in the sum.

    Attributes:
        output: of the network. target: entry of the sample to compare with (Real-ESRGAN: a sharpened ground truth for
            pixels, the plain one for the discriminator).
    """

    weight: float = 1.0
    output: str = "restored"
    target: str = "gt"


class LossOptions(LooksAt):
    """A loss of restored frames."""


class PenaltyOptions(Component):
    """A term on the discriminator's gradient, and its `weight`."""

    weight: float = 1.0


class GANOptions(LooksAt):
    """The adversarial loss of a `GANModel`; `weight` is that of the generator's term.

    Attributes:
        discriminator_weight: factor of the discriminator's own loss. penalties: terms added to it.
        net_d_iters: the generator is stepped at every so many-th iteration, the discriminator at each.
        net_d_init_iters: iterations at the start in which the discriminator alone is trained.
    """

    discriminator_weight: float = 1.0
    penalties: dict[str, PenaltyOptions] = {}
    net_d_iters: int = Field(1, gt=0)
    net_d_init_iters: int = Field(0, ge=0)


class ParamGroup(_Section):
    """Parameters whose names match a pattern (`spynet.*`): rate times `lr_mul`, frozen for some iterations.

    `optional`: the network may have none.
    """

    match: list[str] = Field(min_length=1)
    lr_mul: float = Field(1.0, gt=0)
    frozen_until: int = Field(0, ge=0)
    optional: bool = False


class PathOptions(_Section):
    """Weights to start from, and where runs and results go.

    Attributes:
        pretrain_network_g: weights file. strict_load_g: names and sizes must all fit.
        param_key_g: which weights to take from a file that holds averaged ones (`params_ema`) too.
        resume: what `--resume` is when it is not given.
    """

    pretrain_network_g: str | None = None
    strict_load_g: bool = True
    param_key_g: Literal["params", "params_ema"] = "params_ema"
    pretrain_network_d: str | None = None
    strict_load_d: bool = True
    param_key_d: Literal["params", "params_ema"] = "params_ema"
    resume: str = "auto"
    experiments_root: str = "experiments"
    results_root: str = "results"


class TrainOptions(_Section):
    """How long and how to train.

    Attributes:
        total_epoch, total_iter: one of them; milestones, `val_freq` and `save_checkpoint_freq` count in that unit.
        gan, optim_d: for a `GANModel`, beside `network_d`.
        warmup_iter: iterations in which the rate rises linearly from zero.
        param_groups: parameters with a rate of their own, or frozen at first.
        ema_decay: of the moving average of the weights that is validated and saved as `params_ema`; 0: none.
        grad_clip: largest norm of the gradient over all parameters.
        accumulate: parts of `batch_size_per_gpu` samples whose gradients make one step.
        precision: of the forward pass (autocast). tf32: let GPUs multiply fp32 matrices with 10 bits of mantissa.
        checkpoint_modules: name patterns of modules that compute their activations again instead of keeping them.
        sync_bn: batch norm over all processes. find_unused_parameters, static_graph: for DDP.
    """

    total_epoch: int | None = Field(None, gt=0)
    total_iter: int | None = Field(None, gt=0)
    optim_g: Component
    optim_d: Component | None = None
    gan: GANOptions | None = None
    scheduler: Component | None = None
    warmup_iter: int = Field(0, ge=0)
    losses: dict[str, LossOptions] = Field(min_length=1)
    param_groups: list[ParamGroup] = []
    ema_decay: float = Field(0.0, ge=0, lt=1)
    grad_clip: float | None = Field(None, gt=0)
    accumulate: int = Field(1, gt=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    tf32: bool = False
    channels_last: bool = False
    compile: bool = False
    checkpoint_modules: list[str] = []
    sync_bn: bool = False
    find_unused_parameters: bool = False
    static_graph: bool = False
    hooks: list[Component] = []

    @model_validator(mode="after")
    def _one_unit(self) -> TrainOptions:
        if (self.total_epoch is None) == (self.total_iter is None):
            raise ValueError(_TWO_UNITS)
        return self

    @property
    def unit(self) -> Literal["epoch", "iter"]:
        """What milestones and frequencies count."""
        return "epoch" if self.total_epoch is not None else "iter"


class ProtocolOptions(_Section):
    """A protocol of one's own: figure name to metric. It has no published name, so its figures carry what it is."""

    metrics: dict[str, Component] = Field(min_length=1)


class ValOptions(_Section):
    """Validation and test. `val_freq` None: no validation during training. `protocol`: a name, or its metrics."""

    val_freq: int | None = Field(None, gt=0)
    protocol: str | ProtocolOptions = "basicsr-rgb/1"
    save_img: bool = False

    def find_protocol(self) -> Protocol:
        """The protocol to score by."""
        from deblurkit.metrics import PROTOCOLS, own_protocol

        if isinstance(self.protocol, str):
            return PROTOCOLS.get(self.protocol)
        return own_protocol({name: metric.mapping() for name, metric in self.protocol.metrics.items()})


class LoggerOptions(_Section):
    """Log, TensorBoard and checkpoints. `print_freq` counts iterations; `save_checkpoint_freq` the schedule's unit."""

    print_freq: int = Field(100, gt=0)
    save_checkpoint_freq: int | None = Field(None, gt=0)
    keep_last: int = Field(3, gt=0)
    use_tb_logger: bool = True


class Options(_Section):
    """A whole options file."""

    schema_: Literal["deblurkit/1"] = Field(SCHEMA, alias="schema")
    name: str
    model_type: str = "RestorationModel"
    scale: int = Field(1, gt=0)
    num_gpu: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    manual_seed: int = Field(0, ge=0)
    plugins: list[str] = []
    datasets: dict[str, DatasetOptions] = Field(min_length=1)
    network_g: Component | None = None
    network_d: Component | None = None
    path: PathOptions = PathOptions()
    train: TrainOptions | None = None
    val: ValOptions = ValOptions()
    logger: LoggerOptions = LoggerOptions()

    @field_validator("name")
    @classmethod
    def _folder_name(cls, value: str) -> str:
        if value.strip() in ("", ".", "..") or any(sign in value for sign in "/\\\0"):
            raise ValueError(f"names the folder of the run: {value!r} cannot")
        return value

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
        return dump_yaml(self.model_dump(by_alias=True, mode="json"))


def load_options(
    path: str | Path,
    phase: Literal["train", "test"] = "train",
    overrides: Iterable[str] = (),
    plugins: Iterable[str | Path] = (),
    forced: Iterable[str] = (),
    debug: bool = False,
) -> Options:
    """Read and check an options file.

    Args:
        path: YAML file. phase: what it is to be used for; decides what must be there.
        overrides: `a.b.c=value` texts (`--set`), in the keys of the file. plugins: folders with the user's own classes.
        forced, debug: BasicSR's `--force_yml` and `--debug`.

    A file without the line `schema` is one of BasicSR, NAFNet or Restormer, which `model_type` tells.

    Raises:
        OptionsError: with every problem found, one a line: file and line, key path, and the nearest key for a typo.
        RegistryError: one of the folders in `plugins` is not usable.
    """
    from deblurkit.compat.command_line import apply_debug, force
    from deblurkit.compat.options import native_source

    source = read_source(path, overrides)
    force(source, forced)
    if debug:
        apply_debug(source)
    if source.values.get("schema") is None:
        source = native_source(source, path)
    return check_source(path, source, phase, plugins)


def check_source(
    path: str | Path, source: Source, phase: Literal["train", "test"], plugins: Iterable[str | Path] = ()
) -> Options:
    """Check native options that are read already; see `load_options`."""
    from deblurkit.registry import load_plugins

    problems: list[Problem] = []
    options: Options | None = None
    try:
        options = Options.model_validate(source.values)
    except ValidationError as error:
        problems += _explain(error, source.values)
    load_plugins(plugins)
    for i, folder in enumerate(_at(source.values, "plugins") or []):
        try:
            load_plugins([folder] if isinstance(folder, str) else [])
        except RegistryError as error:
            problems.append((("plugins", str(i)), str(error)))
    problems += _check_components(source.values)
    problems += _check_phase(source.values, phase)
    if problems:
        raise OptionsError(_report(path, source, problems))
    assert options is not None
    return options


def check_arguments(
    cls: Callable[..., Any], arguments: Mapping[str, Any], skip: Iterable[str] = (), beside: Iterable[str] = ()
) -> list[Problem]:
    """What is wrong with `cls(**arguments)`, judged by the signature: unknown, missing and wrongly typed arguments.

    Args:
        skip: parameters that the caller fills in itself.
        beside: keys that stand beside the arguments and belong to somebody else; a typo may have meant one of them.
    """
    parameters, free = _parameters(cls, skip)
    problems: list[Problem] = []
    if not free:
        known = [*parameters, *beside]
        problems += [
            ((name,), f"unknown argument of {_name(cls)}{did_you_mean(name, known)}")
            for name in arguments
            if name not in parameters
        ]
    for name, (annotation, default) in parameters.items():
        if name in arguments:
            problem = _misfit(arguments[name], annotation)
            if problem:
                problems.append(((name,), f"{problem}, got {arguments[name]!r} (argument of {_name(cls)})"))
        elif default is inspect.Parameter.empty:
            problems.append(((name,), f"missing: {_name(cls)} needs it"))
    return problems


def _misfit(value: Any, annotation: Any) -> str:
    """Why a value does not fit an annotation, "" where it does.

    A list may stand for a tuple and an integer for a float, since YAML has no other way; a text never stands for a
    number, nor a number for a truth value: the constructor would be given the text.
    """
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # an annotation that only a type checker understands
        return ""
    try:
        checked = adapter.validate_python(value)
    except ValidationError as error:
        return _either(_plain(item) for item in error.errors())
    return _changed(value, checked)


def _changed(given: Any, checked: Any) -> str:
    """What a value should have been when a check silently made another type of it, "" where it did not."""
    if isinstance(given, list | tuple) and isinstance(checked, list | tuple):
        return next((text for pair in zip(given, checked, strict=True) if (text := _changed(*pair))), "")
    if isinstance(given, dict) and isinstance(checked, dict):
        pairs = zip(given.values(), checked.values(), strict=True)
        return next((text for pair in pairs if (text := _changed(*pair))), "")
    if not isinstance(given, str | bool | int | float) or type(given) is type(checked):
        return ""
    if type(given) is int and isinstance(checked, float):
        return ""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return f"should be {names.get(type(checked), f'of type {type(checked).__name__}')}"


def signature_of(cls: Callable[..., Any], skip: Iterable[str] = ()) -> dict[str, tuple[Any, Any]]:
    """Constructor arguments of a class: name to (annotation, default); `inspect.Parameter.empty` for no default."""
    return _parameters(cls, skip)[0]


def _parameters(cls: Callable[..., Any], skip: Iterable[str]) -> tuple[dict[str, tuple[Any, Any]], bool]:
    """Named parameters, and whether any others are accepted."""
    constructor = cls.__init__ if inspect.isclass(cls) else cls
    if inspect.isclass(cls):
        owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
        if owner is object or (owner.__module__, owner.__name__) == ("torch.nn.modules.module", "Module"):
            return {}, False  # no constructor of its own; torch's says (*args, **kwargs) and refuses both
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


def _at(values: Any, *path: str) -> Any:
    """The mapping or list at a key path; None where there is none."""
    for part in path:
        values = values.get(part) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping | list) else None


def _check_components(values: Mapping[str, Any]) -> list[Problem]:
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

    for key in ("network_g", "network_d"):
        check((key,), _at(values, key), ARCH_REGISTRY.get)
    for key, mapping in (_at(values, "datasets") or {}).items():
        check(("datasets", key), mapping, DATASET_REGISTRY.get, beside=_keys(DatasetOptions))
    for key in ("optim_g", "optim_d"):
        check(("train", key), _at(values, "train", key), optimizer, skip=("params",))
    check(("train", "gan"), _at(values, "train", "gan"), LOSS_REGISTRY.get, beside=_keys(GANOptions))
    for key, mapping in (_at(values, "train", "gan", "penalties") or {}).items():
        check(("train", "gan", "penalties", key), mapping, LOSS_REGISTRY.get, beside=_keys(PenaltyOptions))
    check(("train", "scheduler"), _at(values, "train", "scheduler"), scheduler)
    for key, mapping in (_at(values, "train", "losses") or {}).items():
        check(("train", "losses", key), mapping, LOSS_REGISTRY.get, beside=_keys(LossOptions))
    for i, mapping in enumerate(_at(values, "train", "hooks") or []):
        check(("train", "hooks", str(i)), mapping, HOOK_REGISTRY.get)
    find(("model_type",), values.get("model_type"), MODEL_REGISTRY.get)
    find(("val", "protocol"), (_at(values, "val") or {}).get("protocol"), PROTOCOLS.get)
    for key, mapping in (_at(values, "val", "protocol", "metrics") or {}).items():
        check(("val", "protocol", "metrics", key), mapping, METRIC_REGISTRY.get)
    return problems


def _keys(section: type[Component]) -> list[str]:
    """The keys of a component that are not arguments of its class."""
    return [key for key in section.model_fields if key != "type"]


def _check_phase(values: Mapping[str, Any], phase: str) -> list[Problem]:
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
            problems.append((("datasets",), "training needs a data set `train`"))
        train, val = _at(values, "train"), _at(values, "val")
        if train is not None and (train.get("total_epoch") is None) == (train.get("total_iter") is None):
            problems.append((("train",), _TWO_UNITS))  # pydantic comes to it only when all else in the section is right
        schedule = _at(values, "datasets", "train", "iters")
        if train is not None and train.get("total_epoch") is not None and schedule:
            text = "a progressive schedule (iters) has epochs of different lengths: give train.total_iter instead"
            problems.append((("train", "total_epoch"), text))
        if val is not None and val.get("val_freq") and not any(k.split("_")[0] == "val" for k in keys):
            problems.append((("val", "val_freq"), "validation is asked for, but there is no data set `val`"))
    elif keys and not any(key.split("_")[0] in ("test", "val") for key in keys):
        problems.append((("datasets",), "testing needs a data set `test` or `val`"))
    return problems


def _explain(error: ValidationError, values: Mapping[str, Any]) -> list[Problem]:
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
            problems.append((path, _plain(item)))
        else:
            # the alternatives of a union come one by one, each with its type's name at the end of the path
            path = _written(path, values)
            alternatives.setdefault(path, []).append(_plain(item))
    for path, texts in alternatives.items():
        value: Any = values
        for part in path:
            value = value[int(part)] if isinstance(value, list) else value[part]
        problems.append((path, f"{_either(texts)}, got {value!r}"))
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


_PLAIN = {
    "int_type": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "float_parsing": "should be a number",
    "bool_type": "should be true or false",
    "bool_parsing": "should be true or false",
    "string_type": "should be a text",
    "list_type": "should be a list",
    "tuple_type": "should be a list",
    "dict_type": "should be a mapping (`key: value`)",
    "mapping_type": "should be a mapping (`key: value`)",
    "model_type": "should be a mapping (`key: value`)",
    "missing": "has too few items",
    "too_short": "has too few items",
    "too_long": "has too many items",
}


def _either(texts: Iterable[str]) -> str:
    """Errors of the alternatives of a union as one sentence."""
    first, *others = dict.fromkeys(texts)
    return " or ".join([first, *(text.removeprefix("should be ") for text in others)])


def _plain(item: Any) -> str:
    """The text of one of pydantic's errors without its jargon."""
    text: str = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return _PLAIN.get(item["type"], text[:1].lower() + text[1:])


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
        line = f"{place or path}: {'.'.join(source.as_written(where))}: {text}"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)
