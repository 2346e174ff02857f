"""What every degradation is, how its parameters drift from frame to frame, and how a list of them is built."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, TypeVar

import numpy as np

from deblurkit.arguments import Problem, check_arguments
from deblurkit.data.degradation_ops import Frame
from deblurkit.errors import OptionsError, did_you_mean

#: Frames in order; see `degradation_ops`. Between two steps of a list they may differ in size.
Clip = list[Frame]
#: Lowest and highest value.
Range = tuple[float, float]
Size = tuple[int, int]
T = TypeVar("T")


class Degradation(ABC):
    """Makes the frames of a clip worse. A class that derives from it is known by its name in options.

    Args:
        prob: how probable it is that a clip is degraded at all.

    Raises:
        OptionsError: a value that makes no sense; the message begins with its key.
    """

    known: ClassVar[dict[str, type[Degradation]]] = {}

    def __init__(self, prob: float = 1.0) -> None:
        if not 0 <= prob <= 1:
            raise OptionsError(f"prob: a probability is from 0 to 1, got {prob}")
        self.prob = prob

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if not inspect.isabstract(cls):
            Degradation.known[cls.__name__] = cls

    def __call__(self, clip: Clip, rng: np.random.Generator, lq_size: Size | None = None) -> Clip:
        """The degraded clip, as new frames; those that come in are not changed.

        Args:
            clip: at least one frame. rng: all that is random comes from it.
            lq_size: height and width that the degraded frames are to have in the end, for `target_size: lq`.
        """
        if self.prob < 1 and rng.random() > self.prob:
            return clip
        return self.degrade(clip, rng, lq_size)

    @abstractmethod
    def degrade(self, clip: Clip, rng: np.random.Generator, lq_size: Size | None) -> Clip:
        """`__call__` for a clip that is degraded."""

    def size_after(self, before: Size | str | None) -> Size | str | None:
        """What is known of the frames' size afterwards: `(h, w)`, "lq" (that of the degraded frames), or None."""
        return before


@dataclass(frozen=True)
class Drift:
    """A parameter that walks at random: each frame's value is the last one's plus U(-step, step), kept in its range.

    Attributes:
        bounds: the range. step: 0: the value stays as it was drawn for the first frame.
    """

    bounds: Range
    step: float = 0.0

    def draw(self, rng: np.random.Generator) -> float:
        """A value for the first frame, uniform in the range."""
        return float(rng.uniform(*self.bounds))

    def walk(self, first: float, count: int, rng: np.random.Generator) -> Iterator[float]:
        """The values of `count` frames."""
        value = first
        for number in range(count):
            if number and self.step:
                value = float(np.clip(value + rng.uniform(-self.step, self.step), *self.bounds))
            yield value


class Choice:
    """One of several names, each with a probability.

    Args:
        key, names: key and value of the list. prob_key, probabilities: likewise. known: the names that there are.

    Raises:
        OptionsError: an unknown name, lists of different lengths, or probabilities that do not sum to 1.
    """

    def __init__(
        self, key: str, names: Sequence[str], prob_key: str, probabilities: Sequence[float], known: Sequence[str]
    ) -> None:
        if not names:
            raise OptionsError(f"{key}: names at least one of {', '.join(known)}")
        for name in names:
            if name not in known:
                hint = did_you_mean(str(name), known) or f"; there are {', '.join(known)}"
                raise OptionsError(f"{key}: {name!r} is unknown{hint}")
        check_probabilities(prob_key, probabilities, len(names), f"one for each of {key}")
        self.names = tuple(names)
        self._ends = tuple(accumulate(probabilities))[:-1]

    def draw(self, rng: np.random.Generator) -> str:
        """One of the names."""
        return self.names[int(np.searchsorted(self._ends, rng.random(), side="right"))]


def check_probabilities(key: str, values: Sequence[float], count: int, meaning: str) -> None:
    """Refuse what are not `count` probabilities that sum to 1 (to 1e-3: published lists are rounded)."""
    if len(values) != count or min(values) < 0 or abs(sum(values) - 1) > 1e-3:
        raise OptionsError(f"{key}: should be {count} probabilities that sum to 1 ({meaning}), got {list(values)}")


def checked_range(key: str, value: Sequence[float], least: float, most: float = float("inf")) -> Range:
    """A range `[low, high]` between `least` and `most`.

    Raises:
        OptionsError: it is none.
    """
    if len(value) != 2 or not least <= value[0] <= value[1] <= most:
        limits = f"from {least:g}" + (f" to {most:g}" if most < float("inf") else " on")
        raise OptionsError(f"{key}: should be a range [low, high] {limits}, got {list(value)}")
    return float(value[0]), float(value[1])


def checked_step(key: str, value: float) -> float:
    """A step of a drift, 0 or more. Raises OptionsError."""
    if value < 0:
        raise OptionsError(f"{key}: a step is 0 or more, got {value}")
    return value


#: A degradation as options have it, `{type: ..., arguments}`, or a group of them that is applied in order.
Entry = Mapping[str, Any] | Sequence[Any]


def degradation_problems(entries: Any, path: tuple[str, ...] = ("degradations",)) -> list[Problem]:
    """Everything that is wrong with a list of degradations, each with its key path."""
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        return [(path, f"should be a list of degradations, got {entries!r}")]
    problems: list[Problem] = []
    for number, entry in enumerate(entries):
        where = (*path, str(number))
        if isinstance(entry, Sequence) and not isinstance(entry, str):
            problems += degradation_problems(entry, where)
        else:
            problems += _entry_problems(entry, where)
    return problems


def build_degradations(entries: Sequence[Entry], path: tuple[str, ...] = ("degradations",)) -> list[Degradation]:
    """The degradations that a list of options describes; groups are flattened.

    Raises:
        OptionsError: with every problem found, one a line.
    """
    problems = degradation_problems(entries, path)
    if problems:
        raise OptionsError("\n".join(f"{'.'.join(where)}: {text}" for where, text in problems))
    return [_built(entry) for entry in _flat(entries)]


def degrade(
    clip: Clip, degradations: Sequence[Degradation], rng: np.random.Generator, lq_size: Size | None = None
) -> Clip:
    """A clip after all of the degradations in order; see `Degradation.__call__`."""
    for degradation in degradations:
        clip = degradation(clip, rng, lq_size)
    return clip


def size_after(degradations: Sequence[Degradation], before: Size | str | None) -> Size | str | None:
    """What is known of the frames' size after all of them; see `Degradation.size_after`."""
    for degradation in degradations:
        before = degradation.size_after(before)
    return before


def _flat(entries: Sequence[Entry]) -> Iterator[Mapping[str, Any]]:
    for entry in entries:
        if isinstance(entry, Mapping):
            yield entry
        else:
            yield from _flat(entry)


def _built(entry: Mapping[str, Any]) -> Degradation:
    return Degradation.known[entry["type"]](**{key: value for key, value in entry.items() if key != "type"})


def _entry_problems(entry: Any, path: tuple[str, ...]) -> list[Problem]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("type"), str):
        return [(path, f"should be a mapping with a `type` and its arguments, got {entry!r}")]
    name = entry["type"]
    if name not in Degradation.known:
        hint = did_you_mean(name, Degradation.known) or f"; there are {', '.join(sorted(Degradation.known))}"
        return [((*path, "type"), f"there is no degradation {name!r}{hint}")]
    cls = Degradation.known[name]
    arguments = {key: value for key, value in entry.items() if key != "type"}
    if "params" in arguments:
        return [((*path, "params"), "parameters stand beside `type` here, not in a mapping of their own")]
    problems = [((*path, *where), text) for where, text in check_arguments(cls, arguments)]
    inner = arguments.get("degradations")
    if not problems and inner is not None:
        problems = degradation_problems(inner, (*path, "degradations"))
    if not problems:
        try:
            cls(**arguments)
        except OptionsError as error:  # it begins with the key
            key, _, text = str(error).partition(": ")
            problems = [((*path, key), f"{text} (argument of {name})")]
    return problems
