"""YAML files with `_base_` inheritance and `--set` overrides, remembering in which line each value stands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deblurkit.errors import OptionsError

KeyPath = tuple[str, ...]

_OVERRIDE = "--set"


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `1e-4` and `2e4` are numbers (YAML 1.1 takes them for text) and `!!float` works."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@dataclass
class Source:
    """A tree of plain values and where each came from.

    Attributes:
        values: the merged mapping.
        places: "file:line" of each key path; an override's place is the text of its `--set`.
    """

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """The place of a key, or of the nearest parent that was written down."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, "")


def read_source(path: str | Path, overrides: Iterable[str] = ()) -> Source:
    """Read an options file, merged onto its `_base_` files, with overrides on top.

    `_base_` is a path or a list of paths, relative to the file that names it. Mappings merge key by key, except that a
    mapping with another `type` than its base's replaces it; everything else is replaced.

    Args:
        path: the file. overrides: texts like `train.optim_g.lr=1e-4`; the value is YAML.

    Raises:
        OptionsError: a file is missing or not YAML, a key stands twice, bases go in a circle, an override has no `=`.
    """
    source = _read_file(Path(path), chain=())
    for text in overrides:
        _override(source, text)
    return source


def _read_file(path: Path, chain: tuple[Path, ...]) -> Source:
    if path.resolve() in chain:
        raise OptionsError(f"{path}: `_base_` goes in a circle: " + " -> ".join(str(p) for p in (*chain, path)))
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise OptionsError(f"{path}: there is no such options file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OptionsError(f"{path}: cannot be read as a text file: {error}") from None
    try:
        node = yaml.compose(text, Loader=_Loader)
        loader = _Loader("")
        own = Source()
        if node is not None:
            values = _construct(loader, node, (), str(path), own.places)
            if not isinstance(values, dict):
                raise OptionsError(f"{path}: an options file is a mapping of keys to values, this one is not")
            own.values = values
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise OptionsError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    bases = own.values.pop("_base_", [])
    own.places.pop(("_base_",), None)
    merged = Source()
    for base in [bases] if isinstance(bases, str) else bases:
        _merge(merged, _read_file(path.parent / str(base), (*chain, path.resolve())))
    _merge(merged, own)
    return merged


def _construct(loader: _Loader, node: yaml.Node, path: KeyPath, file: str, places: dict[KeyPath, str]) -> Any:
    """Plain values of a node tree; notes the line of every key."""
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node))
            line = key_node.start_mark.line + 1
            if key in result and (*path, key) in places:
                raise OptionsError(f"{file}:{line}: the key {'.'.join((*path, key))} stands twice")
            places[(*path, key)] = f"{file}:{line}"
            result[key] = _construct(loader, value_node, (*path, key), file, places)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, item, (*path, str(i)), file, places) for i, item in enumerate(node.value)]
    return loader.construct_object(node, deep=True)


def _merge(onto: Source, new: Source) -> None:
    def merge(base: dict[str, Any], own: dict[str, Any], path: KeyPath) -> None:
        for key, value in own.items():
            here = (*path, key)
            old = base.get(key)
            same_type = isinstance(old, dict) and value_type(value) in (None, value_type(old))
            if isinstance(value, dict) and isinstance(old, dict) and same_type:
                merge(old, value, here)
            else:
                for known in [p for p in onto.places if p[: len(here)] == here]:
                    del onto.places[known]
                base[key] = value

    def value_type(value: Any) -> Any:
        return value.get("type") if isinstance(value, dict) else None

    merge(onto.values, new.values, ())
    onto.places.update(new.places)


def _override(source: Source, text: str) -> None:
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise OptionsError(f"{_OVERRIDE} {text}: write it as {_OVERRIDE} a.b.c=value")
    try:
        value = yaml.load(raw, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise OptionsError(f"{_OVERRIDE} {text}: the value is not valid YAML: {error}") from None
    path = tuple(key.strip().split("."))
    at: Any = source.values
    for depth, part in enumerate(path[:-1]):
        if isinstance(at, list) and part.isdigit() and int(part) < len(at):
            at = at[int(part)]
        elif isinstance(at, dict):
            if not isinstance(at.get(part), dict | list):
                at[part] = {}
            at = at[part]
        else:
            raise OptionsError(f"{_OVERRIDE} {text}: {'.'.join(path[: depth + 1])} is not in the options")
    if isinstance(at, list):
        if not path[-1].isdigit() or int(path[-1]) >= len(at):
            raise OptionsError(f"{_OVERRIDE} {text}: {'.'.join(path)} is not in the options")
        at[int(path[-1])] = value
    else:
        at[path[-1]] = value
    source.places[path] = f"{_OVERRIDE} {text}"
