"""The Typer application. Command modules import torch and the engine inside their functions only."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="deblurkit",
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
from deblurkit.cli import doctor  # noqa: E402, F401
