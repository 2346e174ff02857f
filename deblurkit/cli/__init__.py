"""The command line: a file per command, which parses, calls the engine and prints. No logic of its own."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the `deblurkit` command.

    Exit codes: 0 done; 2 something the user can mend, said in one message (`DeblurkitError`, wrong usage);
    130 interrupted; 1 a bug, with its traceback. A command may have codes of its own.
    """
    try:
        from deblurkit.cli.app import app

        app()
    except KeyboardInterrupt:  # before the command began or after it ended
        sys.exit(130)
