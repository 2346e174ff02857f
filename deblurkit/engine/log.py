"""The log of a run: lines on the console and in `train.log`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from deblurkit.console import say
from deblurkit.engine.launch import Place
from deblurkit.errors import DeblurkitError


class _ConsoleHandler(logging.Handler):
    """Prints through the one console, so that lines and progress bars do not overwrite each other."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


class _FileHandler(logging.FileHandler):
    """One that does not hide a full disk."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        error = sys.exc_info()[1]
        raise DeblurkitError(f"{self.baseFilename}: cannot be written: {error}") from error


def open_log(path: Path, place: Place) -> logging.Logger:
    """A logger that writes to `path` (appending) and to the console; silent but for warnings on other ranks than 0."""
    log = logging.getLogger(f"deblurkit.run.{path.resolve()}")
    log.propagate = False
    close_log(log)
    handlers: list[logging.Handler] = [_ConsoleHandler()]
    if place.is_main:
        file = _FileHandler(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        handlers.append(file)
    for handler in handlers:
        log.addHandler(handler)
    log.setLevel(logging.INFO if place.is_main else logging.WARNING)
    return log


def close_log(log: logging.Logger) -> None:
    """Close the file and detach the handlers."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
