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
    """Safe YAML in which `1e-4` and `2e4` are numbers (YAML 1.1 takes them for text)."""


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back: the text "1e4" gets quotes."""


for _one in (_Loader, _Dumper):
    _one.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


def dump_yaml(values: Any) -> str:
    """YAML text that `read_source` reads back as the same values; keys keep their order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


@dataclass
class Source:
    """A tree of plain values and where each came from.

    Attributes:
        values: the merged mapping.
        places: "file:line" of each key path; an override's place is the text of its `--set`.
        written: for values translated from another tool's file, the key path that they were written under.
        untranslated: what could not be translated: place, key path as written, and what is wrong with it.
    """

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)
    written: dict[KeyPath, KeyPath] = field(default_factory=dict)
    untranslated: list[tuple[str, KeyPath, str]] = field(default_factory=list)

    def as_written(self, path: KeyPath) -> KeyPath:
        """The key path that the user knows a key by."""
        for depth in range(len(path), 0, -1):
            if path[:depth] in self.written:
                return (*self.written[path[:depth]], *path[depth:])
        return path

    def place(self, path: KeyPath) -> str:
        """The place of a key, or of the nearest parent that was written down."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, "")

    def forget_places(self, path: KeyPath) -> None:
        """Drop what is known of a key and of all below it."""
        for known in [p for p in self.places if p[: len(path)] == path]:
            del self.places[known]


def read_source(path: str | Path, overrides: Iterable[str] = ()) -> Source:
    """Read an options file, merged onto its `_base_` files, with overrides on top.

    `_base_` is a path or a list of paths, relative to the file that names it. Mappings merge key by key, except that a
    mapping with another `type` than its base's replaces it; everything else, lists too, is replaced.

    Args:
        path: the file. overrides: texts like `train.optim_g.lr=1e-4`; the value is YAML.

    Raises:
        OptionsError: a file is missing or not YAML, a key stands twice, bases go in a circle, an override has no `=`.
    """
    source = _read_file(Path(path), chain=())
    for text in overrides:
        override(source, text)
    return source


def _read_file(path: Path, chain: tuple[Path, ...]) -> Source:
    named_by = f" (`_base_` of {chain[-1]})" if chain else ""
    if path.resolve() in [p.resolve() for p in chain]:
        raise OptionsError(f"{path}: `_base_` goes in a circle: " + " -> ".join(str(p) for p in (*chain, path)))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise OptionsError(f"{path}: there is no such options file{named_by}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OptionsError(f"{path}: cannot be read as a text file{named_by}: {error}") from None
    own = Source()
    values = _parse(text, str(path), own.places)
    if values is not None and not isinstance(values, dict):
        raise OptionsError(f"{path}: an options file is a mapping of keys to values, this one is not")
    own.values = values or {}
    place = own.place(("_base_",))
    bases = own.values.pop("_base_", None) or []
    own.forget_places(("_base_",))
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise OptionsError(f"{place}: _base_: is a path or a list of paths, not {bases!r}")
    merged = Source()
    for base in bases:
        _merge(merged, _read_file(path.parent / base, (*chain, path)))
    _merge(merged, own)
    return merged


def _parse(text: str, name: str, places: dict[KeyPath, str]) -> Any:
    """The plain values of a YAML text; `places` receives "name:line" of each key. OptionsError where it is not YAML."""
    try:
        root = yaml.compose(text, Loader=_Loader)
        if root is None:
            return None
        _check_nodes(root, name)
        return _construct(_Loader(""), root, (), name, places)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise OptionsError(f"{name}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None


def _check_nodes(root: yaml.Node, name: str) -> None:
    """Refuse keys that stand twice (YAML would silently take the last) and anchors that contain themselves."""
    done: set[int] = set()

    def visit(node: yaml.Node, above: tuple[yaml.Node, ...], path: KeyPath) -> None:
        line = f"{name}:{node.start_mark.line + 1}"
        if any(node is parent for parent in above):
            raise OptionsError(f"{line}: {'.'.join(path)}: the anchor contains itself")
        if id(node) in done:
            return
        done.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                visit(item, (*above, node), (*path, str(i)))
        elif isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                here = (*path, str(key.value))
                if key.value in seen and key.value != "<<":
                    raise OptionsError(f"{name}:{key.start_mark.line + 1}: the key {'.'.join(here)} stands twice")
                seen.add(str(key.value))
                visit(value, (*above, node), here)

    visit(root, (), ())


def _construct(loader: _Loader, node: yaml.Node, path: KeyPath, name: str, places: dict[KeyPath, str]) -> Any:
    """Plain values of a node tree; notes the line of every key and list item."""
    if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
        return _scalar(loader, node)  # raises for tags that are not plain YAML
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)  # resolves `<<`; what the mapping says itself comes last and wins
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            here = (*path, str(_scalar(loader, key_node)))
            places[here] = f"{name}:{key_node.start_mark.line + 1}"
            result[here[-1]] = _construct(loader, value_node, here, name, places)
        return result
    if isinstance(node, yaml.SequenceNode):
        items = []
        for i, item in enumerate(node.value):
            here = (*path, str(i))
            places[here] = f"{name}:{item.start_mark.line + 1}"
            items.append(_construct(loader, item, here, name, places))
        return items
    raise AssertionError(f"a YAML node is a mapping, a sequence or has a tag of its own, not {node}")


def _scalar(loader: _Loader, node: yaml.Node) -> Any:
    try:
        return loader.construct_object(node, deep=True)
    except ValueError as error:  # `!!float abc`, `2024-13-45`
        raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from None


def _merge(onto: Source, new: Source) -> None:
    """Put `new` on top of `onto`."""

    def merge(base: dict[str, Any], own: dict[str, Any], path: KeyPath) -> None:
        for key, value in own.items():
            here = (*path, key)
            old = base.get(key)
            if isinstance(value, dict) and isinstance(old, dict) and not other_type(old, value):
                merge(old, value, here)
            else:
                onto.forget_places(here)
                base[key] = value

    def other_type(old: dict[str, Any], value: dict[str, Any]) -> bool:
        return "type" in old and "type" in value and old["type"] != value["type"]

    merge(onto.values, new.values, ())
    onto.places.update(new.places)


def override(source: Source, text: str) -> None:
    """Apply one `a.b.c=value` (the value is YAML) to `source`; numbers address list items, missing mappings are made.

    Raises:
        OptionsError: there is no `=`, the value is not YAML, or the key leads through something that has no keys.
    """
    place = f"{_OVERRIDE} {text}"
    key, equals, raw = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise OptionsError(f"{place}: write it as {_OVERRIDE} a.b.c=value")
    value = _parse(raw, place, {})

    def item(at: list[Any], depth: int) -> int:
        if not path[depth].isdecimal() or int(path[depth]) >= len(at):
            raise OptionsError(f"{place}: {'.'.join(path[: depth + 1])}: the list has the items 0 to {len(at) - 1}")
        return int(path[depth])

    at: Any = source.values
    for depth, part in enumerate(path[:-1]):
        if isinstance(at, list):
            at = at[item(at, depth)]
        else:
            if at.get(part) is None:
                at[part] = {}
                source.places[path[: depth + 1]] = place
            at = at[part]
        if not isinstance(at, dict | list):
            raise OptionsError(f"{place}: {'.'.join(path[: depth + 1])} is {at!r} and has no keys of its own")
    at[item(at, len(path) - 1) if isinstance(at, list) else path[-1]] = value
    source.forget_places(path)
    source.places[path] = place
