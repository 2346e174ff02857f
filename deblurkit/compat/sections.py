"""Moving keys from a foreign options file to the native form, so that nothing is lost silently.

Every key is moved, ignored (and named in the warning), refused, or unknown. Each keeps the file, the line and the key
path that it was written under, so that later complaints name what the user wrote.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deblurkit.errors import did_you_mean
from deblurkit.yaml_source import KeyPath, Source


@dataclass
class Translation:
    """A translation in progress.

    Attributes:
        source: what the user wrote. target: the native form so far.
        problems: key path (as written) and text. ignored: texts for the warning.
    """

    source: Source
    target: Source = field(default_factory=Source)
    problems: list[tuple[KeyPath, str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def put(self, to: KeyPath, value: Any, written: KeyPath) -> None:
        """Set a native value; `written` is where it comes from."""
        at = self.target.values
        for part in to[:-1]:
            at = at.setdefault(part, {})
        at[to[-1]] = value
        # what stands below in the file stands below here
        for path in [p for p in self.source.places if p[: len(written)] == written]:
            native = (*to, *path[len(written) :])
            self.target.places[native] = self.source.places[path]
        self.target.places.setdefault(to, self.source.place(written))
        self.target.written[to] = written

    def problem(self, path: KeyPath, text: str) -> None:
        """Note something that cannot be translated."""
        self.problems.append((path, text))

    def ignore(self, path: KeyPath, why: str = "") -> None:
        """Note a key that is left out."""
        self.ignored.append(".".join(path) + (f" ({why})" if why else ""))

    def finish(self) -> Source:
        """The native form; what could not be translated stands in its `untranslated`."""
        self.target.untranslated += [(self.source.place(path), path, text) for path, text in self.problems]
        return self.target


class Section:
    """One mapping of the foreign file. `close` complains of every key that nothing has asked for.

    Args:
        translation: where results go. path: the mapping's key path. values: the mapping.
    """

    def __init__(self, translation: Translation, path: KeyPath, values: Mapping[str, Any]) -> None:
        self.translation, self.path, self.values = translation, path, values
        self._asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def at(self, key: str) -> KeyPath:
        """The key path of a key, as written."""
        return (*self.path, key)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, which is known from now on."""
        self._asked.add(key)
        value = self.values.get(key)
        return default if value is None else value

    def number(self, key: str, default: float) -> float:
        """The value of a key that is a number; a problem and the default where it is none."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.translation.problem(self.at(key), f"should be a number, got {value!r}")
            return default
        return value

    def move(self, key: str, *to: str, change: Callable[[Any], Any] | None = None) -> None:
        """Take a key over, where it is given; `change` may raise ValueError with what the value should be."""
        value = self.get(key)
        if value is None:
            return
        if change is not None:
            try:
                value = change(value)
            except ValueError as error:
                self.translation.problem(self.at(key), f"{error}, got {value!r}")
                return
        self.translation.put(to, value, self.at(key))

    def set(self, value: Any, key: str, *to: str) -> None:
        """Set a native value that follows from `key`."""
        self.translation.put(to, value, self.at(key))

    def ignore(self, *keys: str, why: str = "") -> None:
        """Leave keys out. Those that are given and not empty are named in the warning."""
        for key in keys:
            if self.get(key) not in (None, {}, [], ""):
                self.translation.ignore(self.at(key), why)

    def refuse(self, *keys: str, why: str) -> None:
        """Keys that change the result and have no counterpart here; `~` and false are harmless."""
        for key in keys:
            if self.get(key) not in (None, False, 0):
                self.translation.problem(self.at(key), why)

    def section(self, key: str) -> Section | None:
        """The mapping below a key; None where there is none."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.translation.problem(self.at(key), f"should be a mapping (`key: value`), got {value!r}")
            return None
        return Section(self.translation, self.at(key), value)

    def rest(self, *to: str) -> None:
        """Take all other keys over as they are."""
        for key in self.values:
            if key not in self._asked:
                self.move(key, *to, key)

    def alias(self, table: Mapping[str, str], *to: str, kind: str) -> str | None:
        """Take `type` over under its native name; None (and a problem) where the dialect has no such name."""
        name = self.get("type")
        if not isinstance(name, str):
            text = "missing: it is required" if name is None else f"should be a text, got {name!r}"
            self.translation.problem(self.at("type"), text)
            return None
        if name not in table:
            hint = did_you_mean(name, table) or f"; known are {', '.join(sorted(table))}"
            self.translation.problem(self.at("type"), f"there is no counterpart of the {kind} {name!r}{hint}")
            return None
        self.set(table[name], "type", *to, "type")
        return table[name]

    def close(self) -> None:
        """Complain of keys that nobody knows."""
        for key in self.values:
            if key not in self._asked:
                hint = did_you_mean(key, self._asked)
                self.translation.problem(self.at(key), f"unknown key{hint}")


def whole_number(value: Any) -> int:
    """`2e4` and `20000.0` as 20000. Raises ValueError for anything that is no whole number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        raise ValueError("should be a whole number")
    return int(value)
