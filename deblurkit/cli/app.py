"""The Typer application. Command modules import torch and the engine inside their functions only."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup


class _Group(TyperGroup):
    """Turns what ends a command early into one line on stderr and the exit code that stands for it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As usual, but one `--force_yml` takes several values, as in BasicSR."""
        from deblurkit.compat.command_line import spread_force_yml

        return super().parse_args(ctx, spread_force_yml(args))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; bugs keep their traceback."""
        from deblurkit.errors import DeblurkitError

        try:
            return super().invoke(ctx)
        except DeblurkitError as error:
            from deblurkit.console import fail

            fail(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            from deblurkit.console import say

            say("interrupted")
            raise typer.Exit(130) from error


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """For a block that imports torch: Ctrl-C ends the process where it is, since nothing was begun yet.

    As an exception it would leave half a module behind, over which the next one trips (numpy's C code goes on). And no
    cycles are looked for in what only grows, which takes an eighth of the time.
    """

    def end(*_: object) -> None:
        os.write(2, b"interrupted\n")
        os._exit(130)

    before, collecting = signal.signal(signal.SIGINT, end), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if collecting:
            gc.enable()


app = typer.Typer(
    name="deblurkit",
    cls=_Group,
    help="Train, test and use video and image deblurring networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Train, test and use video and image deblurring networks."""


# importing a module adds its commands to `app`
# isort: off
from deblurkit.cli import train  # noqa: E402, F401
from deblurkit.cli import test  # noqa: E402, F401
from deblurkit.cli import infer  # noqa: E402, F401
from deblurkit.cli import synth  # noqa: E402, F401
from deblurkit.cli import lmdb  # noqa: E402, F401
from deblurkit.cli import convert  # noqa: E402, F401
from deblurkit.cli import convert_config  # noqa: E402, F401
from deblurkit.cli import doctor  # noqa: E402, F401
from deblurkit.cli import listing  # noqa: E402, F401
