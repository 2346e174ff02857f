"""What BasicSR's command line changes in an options file: `--force_yml` and `--debug`."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from deblurkit.errors import OptionsError

if TYPE_CHECKING:
    from deblurkit.yaml_source import Source  # `deblurkit --help` comes by here and needs no YAML


def forced_value(text: str) -> Any:
    """The value that `--force_yml` makes of a text: no signs, no exponents, but `!!float 1e-4`.

    Raises:
        ValueError: `!!float` or a list that cannot be read.
    """
    if text == "~" or text.lower() == "none":
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.startswith("!!float"):
        return float(text.removeprefix("!!float"))
    if text.isdecimal():
        return int(text)
    if text.count(".") == 1 and text.replace(".", "").isdecimal():
        return float(text)
    if text.startswith("["):
        try:
            return ast.literal_eval(text)
        except SyntaxError:
            raise ValueError(f"{text!r} is not a list") from None
    return text


def force(source: Source, entries: Iterable[str]) -> None:
    """Apply `--force_yml A:B:c=value`. Parents must exist, the last key may be new.

    Raises:
        OptionsError: an entry has another form, or leads through a key that is not there.
    """
    for entry in entries:
        place = f"--force_yml {entry}"
        key, equals, text = entry.partition("=")
        path = tuple(part.strip() for part in key.split(":"))
        if not equals or "=" in text or not all(path):
            raise OptionsError(f"{place}: write it as --force_yml A:B:c=value, with one `=`")
        at: Any = source.values
        for depth, part in enumerate(path[:-1]):
            if not isinstance(at, dict) or part not in at:
                raise OptionsError(f"{place}: there is no key {':'.join(path[: depth + 1])} in the options")
            at = at[part]
        if not isinstance(at, dict):
            raise OptionsError(f"{place}: {':'.join(path[:-1])} has no keys of its own")
        try:
            at[path[-1]] = forced_value(text.strip())
        except ValueError as error:
            raise OptionsError(f"{place}: {error}") from None
        source.forget_places(path)
        source.places[path] = place


def apply_debug(source: Source) -> None:
    """`--debug`: validate and save every 8 iterations, log each, no TensorBoard, and a name of its own."""
    values = source.values
    name = str(values.get("name", ""))
    changes: dict[tuple[str, ...], Any] = {
        ("name",): name if name.startswith("debug") else f"debug_{name}",
        ("logger", "print_freq"): 1,
        ("logger", "save_checkpoint_freq"): 8,
        ("logger", "use_tb_logger"): False,
    }
    if isinstance(values.get("val"), dict):
        changes["val", "val_freq"] = 8
    for path, value in changes.items():
        at = values
        for part in path[:-1]:
            if not isinstance(at.get(part), dict):
                at[part] = {}
            at = at[part]
        at[path[-1]] = value
        source.forget_places(path)
        source.places[path] = "--debug"


def spread_force_yml(arguments: Iterable[str]) -> list[str]:
    """`--force_yml a=1 b=2` as `--force_yml a=1 --force_yml b=2`."""
    spread: list[str] = []
    inside = False  # behind a --force_yml and its first value
    for argument in arguments:
        if inside and spread[-1] != "--force_yml" and not argument.startswith("-"):
            spread.append("--force_yml")
        inside = argument == "--force_yml" or (inside and not argument.startswith("-"))
        spread.append(argument)
    return spread
