"""Whether a mapping of arguments fits the signature of a class, judged before anything is built."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from deblurkit.errors import did_you_mean

#: Key path and what is wrong there.
Problem = tuple[tuple[str, ...], str]


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
    closer = getattr(cls, "argument_problems", None)  # a class may look into its arguments itself
    if closer is not None and not problems:
        problems += closer(arguments)
    return problems


def _misfit(value: Any, annotation: Any) -> str:
    """Why a value does not fit an annotation, "" where it does.

    A list may stand for a tuple and an integer for a float, since YAML has no other way; a text never stands for a
    number, nor a number for a truth value: the constructor would be given the text.
    """
    try:
        adapter = _adapter(annotation)
    except TypeError:  # an annotation that cannot be remembered
        adapter = _adapter.__wrapped__(annotation)
    if adapter is None:
        return ""
    try:
        checked = adapter.validate_python(value)
    except ValidationError as error:
        return either(plain(item) for item in error.errors())
    return _changed(value, checked)


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """What checks values against an annotation; None for one that only a type checker understands."""
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:
        return None


def _changed(given: Any, checked: Any) -> str:
    """What a value should have been when a check silently made another type of it, "" where it did not."""
    if isinstance(given, list | tuple) and isinstance(checked, list | tuple):
        return next((text for pair in zip(given, checked, strict=True) if (text := _changed(*pair))), "")
    if isinstance(given, dict) and isinstance(checked, dict):
        pairs = [(given[key], checked[key]) for key in given if key in checked]  # a TypedDict drops other keys
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
    hints = _hints(constructor)
    found: dict[str, tuple[Any, Any]] = {}
    free = False
    skipped = {"self", *skip}
    for name, parameter in inspect.signature(constructor).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            free = True
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL and name not in skipped:
            found[name] = (hints.get(name, Any), parameter.default)
    return found, free


@functools.cache
def _hints(constructor: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(constructor)
    except (NameError, AttributeError, TypeError, SyntaxError):
        # an annotation that only a type checker can resolve: the names are still checked
        return {}


def _name(cls: Callable[..., Any]) -> str:
    return getattr(cls, "__name__", str(cls))


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


def either(texts: Iterable[str]) -> str:
    """Errors of the alternatives of a union as one sentence."""
    first, *others = dict.fromkeys(texts)
    return " or ".join([first, *(text.removeprefix("should be ") for text in others)])


def plain(item: Any) -> str:
    """The text of one of pydantic's errors without its jargon."""
    text: str = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return _PLAIN.get(item["type"], text[:1].lower() + text[1:])
