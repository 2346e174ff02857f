"""Errors that a user can cause, and the did-you-mean that their messages share.

A `DeblurkitError` is shown as one message (what is wrong, where, what to do) without a traceback; the command
line then exits with 2. Any other exception is a bug and keeps its traceback (exit 1).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class DeblurkitError(Exception):
    """Something the user can mend. The message says what, where (file and key) and what to do."""

    exit_code = 2


class OptionsError(DeblurkitError):
    """An options file or a `--set` is not valid; the message holds every problem found, not the first only."""


class RegistryError(DeblurkitError):
    """An unknown name, a name registered twice, or wrong arguments for a registered class."""


class DataError(DeblurkitError):
    """Images, data sets or LMDBs that are missing, damaged or do not fit together."""


class CheckpointError(DeblurkitError):
    """A weights file or training state that is missing, damaged or belongs to another network."""


class MissingWeightsError(CheckpointError):
    """A weights file that is not there; `path` is where it was looked for."""

    def __init__(self, path: Path, advice: str = "") -> None:
        super().__init__(f"{path}: there is no such file{advice}")
        self.path = path


class VideoError(DeblurkitError):
    """A video that cannot be read or written."""


class TrainingError(DeblurkitError):
    """A run that cannot go on: gradients that stay non-finite, a process that died."""


class NotFiniteError(DeblurkitError):
    """A network that returns NaN or infinity."""


class DeviceError(DeblurkitError):
    """A device, or a number of processes, that this machine does not have."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the closest of `choices`, or `""` when none is close.

    Case is ignored in the comparison, so `dbn` finds `DBN`.
    """
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)
    if not close:
        return ""
    return "; did you mean " + " or ".join(repr(by_lower[c]) for c in close) + "?"
