"""The command line: a file per command, which parses, calls the engine and prints. No logic of its own."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the `deblurkit` command. Errors that the user can mend become one message and exit code 2."""
    from deblurkit.cli.app import app
    from deblurkit.errors import DeblurkitError

    try:
        app(standalone_mode=True)
    except DeblurkitError as error:
        from deblurkit.console import fail

        fail(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        from deblurkit.console import say

        say("interrupted")
        sys.exit(130)
