from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deblurkit.errors import OptionsError
from deblurkit.yaml_source import Source, dump_yaml, override, read_source


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str, name: str = "o.yml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E-4", 1e-4),
        ("-2e4", -2e4),
        ("2.5e3", 2500.0),
        (".5e-3", 5e-4),
        ("1_000e0", 1000.0),
        ("!!float 1e-4", 1e-4),
        ("!!float 3", 3.0),
        ("0.1", 0.1),
        ("10", 10),
        ("'1e-4'", "1e-4"),
        ("1e", "1e"),
        ("e4", "e4"),
        ("v1.5e-3b", "v1.5e-3b"),
        ("~", None),
        ("on", True),
    ],
)
def test_numbers(write: Any, text: str, value: Any) -> None:
    found = read_source(write(f"a: {text}")).values["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("value", ["1e-4", "1e4", ".5e3", "10", "null", "yes", "a: b", "ä\n#", "", "--set x=1"])
def test_dumped_texts_come_back_as_texts(write: Any, value: str) -> None:
    values = {"z": value, "a": [value, 1e-7, 1e22, 3, None, True, {"k": value}]}
    assert read_source(write(dump_yaml(values))).values == values
    assert list(read_source(write(dump_yaml(values))).values) == ["z", "a"]


def test_places_of_keys_and_items(write: Any) -> None:
    path = write("a: 1\nb:\n  c:\n    - x\n    - y: 2\n")
    source = read_source(path)
    assert source.place(("a",)) == f"{path}:1"
    assert source.place(("b", "c")) == f"{path}:3"
    assert source.place(("b", "c", "1")) == f"{path}:5"
    assert source.place(("b", "c", "1", "y")) == f"{path}:5"
    assert source.place(("b", "missing", "deeper")) == f"{path}:2"
    assert source.place(("nowhere",)) == ""


def test_bases_merge_key_by_key_and_keep_their_places(write: Any) -> None:
    write("a: {x: 1, y: [1, 2, 3]}\nb: base\n", "bases/grand.yml")
    base = write("_base_: bases/grand.yml\na: {x: 2}\nc: base\n", "base.yml")
    path = write("_base_: base.yml\na:\n  y: [9]\nc: own\n")
    source = read_source(path)
    assert source.values == {"a": {"x": 2, "y": [9]}, "b": "base", "c": "own"}
    assert source.place(("a", "x")) == f"{base}:2"
    assert source.place(("a", "y")) == f"{path}:3"
    assert source.place(("a", "y", "2")) == f"{path}:3"  # the base's third item is gone, and so is its place
    assert source.place(("c",)) == f"{path}:4"


def test_several_bases_apply_in_order(write: Any) -> None:
    write("a: 1\nb: 1\n", "one.yml")
    write("b: 2\nc: 2\n", "two.yml")
    source = read_source(write("_base_: [one.yml, two.yml]\nc: 3\n"))
    assert source.values == {"a": 1, "b": 2, "c": 3}


def test_one_base_reached_in_two_ways_is_no_circle(write: Any) -> None:
    write("a: 1\n", "root.yml")
    write("_base_: root.yml\nb: 1\n", "left.yml")
    write("_base_: root.yml\nc: 1\n", "right.yml")
    assert read_source(write("_base_: [left.yml, right.yml]")).values == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize(
    ("own", "merged"),
    [
        ("{type: SGD, momentum: 0.9}", {"type": "SGD", "momentum": 0.9}),  # another type: its arguments are other ones
        ("{type: Adam, eps: 1}", {"type": "Adam", "lr": 1, "eps": 1}),
        ("{eps: 1}", {"type": "Adam", "lr": 1, "eps": 1}),
        ("null", None),
        ("5", 5),
    ],
)
def test_a_changed_type_replaces_the_mapping(write: Any, own: str, merged: Any) -> None:
    write("o: {type: Adam, lr: 1}\n", "base.yml")
    source = read_source(write(f"_base_: base.yml\no: {own}\n"))
    assert source.values == {"o": merged}
    assert (("o", "lr") in source.places) == (isinstance(merged, dict) and "lr" in merged)


def test_a_type_may_be_added_to_a_base_without_one(write: Any) -> None:
    write("o: {lr: 1}\n", "base.yml")
    assert read_source(write("_base_: base.yml\no: {type: Adam}\n")).values == {"o": {"lr": 1, "type": "Adam"}}


def test_yaml_merge_keys_and_anchors(write: Any) -> None:
    path = write("common: &c {a: 1, b: 2}\nx: {<<: *c, b: 3}\ny: *c\nz: {<<: *c}\n")
    source = read_source(path, ["y.a=5"])
    assert source.values["x"] == {"a": 1, "b": 3}
    assert source.values["y"] == {"a": 5, "b": 2}
    assert source.values["common"] == source.values["z"] == {"a": 1, "b": 2}  # not shared with y


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"o.yml:3: the key a stands twice"),
        ("a:\n  b: 1\n  b: 1\n", r"o.yml:3: the key a.b stands twice"),
        ("a: [{b: 1, b: 2}]\n", r"o.yml:1: the key a.0.b stands twice"),
        ("1: x\n'1': y\n", r"o.yml:2: the key 1 stands twice"),
        ("a: &a [*a]\n", r"o.yml:1: a.0: the anchor contains itself"),
        ("a: &a {b: *a}\n", r"o.yml:1: a.b: the anchor contains itself"),
        ("a: [1, 2\nb: 3\n", r"o.yml:2: not valid YAML"),
        ("a: b: c\n", r"o.yml:1: not valid YAML"),
        ("a: *nowhere\n", r"o.yml:1: not valid YAML"),
        ("a: 1\n---\na: 2\n", r"not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", r"o.yml:1: not valid YAML: could not determine"),
        ("a: 1\nb: !!float abc\n", r"o.yml:2: not valid YAML: could not convert string to float"),
        ("a: 2024-13-45\n", r"o.yml:1: not valid YAML: month must be in 1..12"),
        ("- a\n- b\n", r"o.yml: an options file is a mapping"),
        ("text\n", r"o.yml: an options file is a mapping"),
        ("_base_: 5\n", r"o.yml:1: _base_: is a path or a list of paths, not 5"),
        ("a: 1\n_base_: [5]\n", r"o.yml:2: _base_: is a path or a list of paths, not \[5\]"),
        ("_base_: none.yml\n", r"none.yml: there is no such options file \(`_base_` of .*o.yml\)"),
        ("_base_: .\n", r"cannot be read as a text file \(`_base_` of .*o.yml\)"),
    ],
)
def test_bad_files_are_named_with_the_line(write: Any, text: str, message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        read_source(write(text))


def test_empty_files_and_a_byte_order_mark(write: Any) -> None:
    assert read_source(write("")).values == {}
    assert read_source(write("# nothing\n")).values == {}
    assert read_source(write("\ufeffa: 1\n")).values == {"a": 1}
    assert read_source(write("_base_:\na: 1\n")).values == {"a": 1}


def test_missing_and_binary_files(write: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"gone.yml: there is no such options file$"):
        read_source(tmp_path / "gone.yml")
    (tmp_path / "b.yml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(OptionsError, match=r"b\.yml: cannot be read as a text file"):
        read_source(tmp_path / "b.yml")


def test_circles_are_shown(write: Any) -> None:
    path = write("_base_: b.yml\n", "a.yml")
    write("_base_: sub/../a.yml\n", "b.yml")
    with pytest.raises(OptionsError, match=r"`_base_` goes in a circle: .*a.yml -> .*b.yml -> .*a.yml"):
        read_source(path)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a.b=1e-4", {"a": {"b": 1e-4, "l": [{"c": 1}, 2]}, "n": None}),
        ("a.b=", {"a": {"b": None, "l": [{"c": 1}, 2]}, "n": None}),
        ("a.b=x=y", {"a": {"b": "x=y", "l": [{"c": 1}, 2]}, "n": None}),
        (" a . b =[1, 2]", {"a": {"b": [1, 2], "l": [{"c": 1}, 2]}, "n": None}),
        ("a.l.1=3", {"a": {"b": 0, "l": [{"c": 1}, 3]}, "n": None}),
        ("a.l.0.c=3", {"a": {"b": 0, "l": [{"c": 3}, 2]}, "n": None}),
        ("n.new.key={d: 1}", {"a": {"b": 0, "l": [{"c": 1}, 2]}, "n": {"new": {"key": {"d": 1}}}}),
        ("a={type: X}", {"a": {"type": "X"}, "n": None}),
    ],
)
def test_overrides(write: Any, text: str, values: Any) -> None:
    source = read_source(write("a:\n  b: 0\n  l: [{c: 1}, 2]\nn:\n"), [text])
    assert source.values == values


def test_overrides_apply_in_order_and_know_their_place(write: Any) -> None:
    source = read_source(write("a:\n  b: 0\n"), ["a.b=1", "a.b=2", "x.y=3", "a.c={d: 1}"])
    assert source.values == {"a": {"b": 2, "c": {"d": 1}}, "x": {"y": 3}}
    assert source.place(("a", "b")) == "--set a.b=2"
    assert source.place(("x",)) == "--set x.y=3"
    assert source.place(("a", "c", "d")) == "--set a.c={d: 1}"


def test_an_override_of_a_mapping_takes_over_its_places(write: Any) -> None:
    source = read_source(write("a:\n  b: 0\n"), ["a={b: 1}"])
    assert source.place(("a", "b")) == "--set a={b: 1}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.b", r"--set a.b: write it as --set a.b.c=value"),
        ("=1", r"write it as --set"),
        ("a..b=1", r"write it as --set"),
        ("l.2=1", r"--set l.2=1: l.2: the list has the items 0 to 1"),
        ("l.-1=1", r"l.-1: the list has the items 0 to 1"),
        ("l.x.y=1", r"l.x: the list has the items 0 to 1"),
        ("s.x=1", r"--set s.x=1: s is 'text' and has no keys of its own"),
        ("a=[1", r"--set a=\[1:1: not valid YAML"),
    ],
)
def test_bad_overrides(write: Any, text: str, message: str) -> None:
    path = write("l: [1, 2]\ns: text\n")
    with pytest.raises(OptionsError, match=message):
        read_source(path, [text])


def test_overrides_alone() -> None:
    source = Source()
    override(source, "width=8")
    assert source.values == {"width": 8}
