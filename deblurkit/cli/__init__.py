"""The command line: a file per command, which parses, calls the engine and prints. No logic of its own."""

from __future__ import annotations

import _thread
import atexit
import gc
import signal
import sys
import threading
from typing import Any


def main() -> None:
    """Entry point of the `deblurkit` command.

    Exit codes: 0 done; 2 something the user can mend, said in one message (`DeblurkitError`, wrong usage);
    130 interrupted; 1 a bug, with its traceback. A command may have codes of its own.
    """
    # at the end Python looks through all objects of all modules for cycles, which takes torch's most of a second
    atexit.register(_leave_cycles)
    before, sys.unraisablehook = sys.unraisablehook, _ask_again
    try:
        from deblurkit.cli.app import app

        app()
    except KeyboardInterrupt:  # before the command began or after it ended
        sys.exit(130)
    finally:
        sys.unraisablehook = before


def _ask_again(lost: Any) -> None:
    """Repeat a Ctrl-C or SIGTERM that came while Python ran a finalizer, whose exceptions it drops."""
    terminated = lost.exc_type is SystemExit and getattr(lost.exc_value, "code", None) == 143
    if lost.exc_type is KeyboardInterrupt or terminated:
        number = signal.SIGTERM if terminated else signal.SIGINT
        threading.Timer(0.05, _thread.interrupt_main, (number,)).start()
    else:
        sys.__unraisablehook__(lost)


def _leave_cycles() -> None:
    if "triton._C" not in sys.modules:  # training has it, and it writes a page about every object that is left
        gc.freeze()
