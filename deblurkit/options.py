"""The native options: YAML to validated, typed values. Unknown keys are errors, and all errors are reported at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator

from deblurkit.arguments import Problem
from deblurkit.errors import OptionsError, RegistryError
from deblurkit.option_sections import (
    TWO_UNITS,
    Component,
    ContrastiveOptions,
    CropOptions,
    DatasetOptions,
    DiscriminatorOptions,
    GANOptions,
    LoggerOptions,
    LooksAt,
    LossOptions,
    MixupOptions,
    ParamGroup,
    PathOptions,
    PenaltyOptions,
    ProtocolOptions,
    Section,
    TrainOptions,
    ValOptions,
)
from deblurkit.yaml_source import Source, dump_yaml, read_source

__all__ = [
    "SCHEMA",
    "TWO_UNITS",
    "Component",
    "ContrastiveOptions",
    "CropOptions",
    "DatasetOptions",
    "DiscriminatorOptions",
    "GANOptions",
    "LoggerOptions",
    "LooksAt",
    "LossOptions",
    "MixupOptions",
    "Options",
    "ParamGroup",
    "PathOptions",
    "PenaltyOptions",
    "ProtocolOptions",
    "Section",
    "TrainOptions",
    "ValOptions",
    "check_source",
    "load_options",
]

SCHEMA: Literal["deblurkit/1"] = "deblurkit/1"


class Options(Section):
    """A whole options file."""

    schema_: Literal["deblurkit/1"] = Field(SCHEMA, alias="schema")
    name: str
    model_type: str = "RestorationModel"
    scale: int = Field(1, gt=0)
    num_gpu: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    manual_seed: int = Field(0, ge=0)
    plugins: list[str] = Field(default=[])
    datasets: dict[str, DatasetOptions] = Field(min_length=1)
    network_g: Component | None = None
    network_d: DiscriminatorOptions | None = None
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
    from deblurkit.option_checks import at, check_components, check_phase, explain, report
    from deblurkit.registry import load_plugins

    problems: list[Problem] = []
    options: Options | None = None
    try:
        options = Options.model_validate(source.values)
    except ValidationError as error:
        problems += explain(error, source.values)
    load_plugins(plugins)
    for i, folder in enumerate(at(source.values, "plugins") or []):
        try:
            load_plugins([folder] if isinstance(folder, str) else [])
        except RegistryError as error:
            problems.append((("plugins", str(i)), str(error)))
    problems += check_components(source.values)
    problems += check_phase(source.values, phase)
    if problems or source.untranslated:
        raise OptionsError(report(path, source, problems))
    assert options is not None
    return options
