"""Foreign options files: which tool one was written for, and its native form."""

from __future__ import annotations

from pathlib import Path

from deblurkit.compat.basicsr import BASICSR
from deblurkit.compat.basicsr_family import translate_family
from deblurkit.compat.dialect import Dialect
from deblurkit.compat.nafnet import NAFNET
from deblurkit.compat.restormer import RESTORMER
from deblurkit.compat.sections import Translation
from deblurkit.console import warn
from deblurkit.errors import OptionsError, did_you_mean
from deblurkit.yaml_source import Source

DIALECTS = (BASICSR, NAFNET, RESTORMER)


def find_dialect(source: Source, name: str | Path) -> Dialect:
    """The tool that a file without `schema` was written for, by its `model_type`.

    Raises:
        OptionsError: none of those that are known here.
    """
    model_type = source.values.get("model_type")
    for dialect in DIALECTS:
        if str(model_type) in dialect.models:
            return dialect
    if "meta_arch" in source.values or "schedule" in source.values:
        raise OptionsError(f"{name}: is in SimDeblur's form; make options of it with `deblurkit convert-config {name}`")
    known = [model for dialect in DIALECTS for model in dialect.models]
    place = source.place(("model_type",)) or str(name)
    written = f"and model_type {model_type!r}" if model_type is not None else "and there is no model_type that"
    raise OptionsError(
        f"{place}: the line `schema: deblurkit/1` is missing, {written} "
        f"{'tells' if model_type is None else 'is not one'} of BasicSR, NAFNet or Restormer"
        f"{did_you_mean(str(model_type), known)} (they are {', '.join(known)})"
    )


def translate(source: Source, name: str | Path) -> Translation:
    """Translate a foreign file; problems and what was left out stand in the result."""
    translation = Translation(source)
    translate_family(translation, find_dialect(source, name))
    return translation


def native_source(source: Source, name: str | Path) -> Source:
    """The native form of a foreign file; keys that mean nothing here are named in one warning.

    Unknown keys and what has no counterpart are noted in it, for `check_source` to report with all else.

    Raises:
        OptionsError: unknown tool.
    """
    translation = translate(source, name)
    native = translation.finish()
    if translation.ignored:
        warn(f"{name}: means nothing here and is left out: {', '.join(translation.ignored)}")
    return native
