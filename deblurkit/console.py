"""What a person sees while a command works: one console on stderr, progress bars, plain lines without a terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

#: Results go to stdout; everything that is only about the work in hand goes here.
console = Console(stderr=True, highlight=False, soft_wrap=True)

_PLAIN_EVERY_SECONDS = 10.0


def say(message: str) -> None:
    """Print a line for the person at the terminal (stderr), without markup."""
    console.print(message, markup=False)


def warn(message: str) -> None:
    """Print a line that begins with `warning:`."""
    console.print(f"[yellow]warning:[/yellow] {_escape(message)}")


def fail(message: str) -> None:
    """Print a line that begins with `error:`."""
    console.print(f"[bold red]error:[/bold red] {_escape(message)}")


def _escape(message: str) -> str:
    from rich.markup import escape

    return escape(message)


@contextlib.contextmanager
def progress(description: str, total: int | None, unit: str = "frames") -> Iterator[Callable[[int], None]]:
    """Show how far a long job is; yields `advance(n)`, to be called as `n` more units are done.

    On a terminal a rich bar with rate and remaining time; elsewhere a line every ten seconds and one at the end.

    Args:
        description: what is being done, such as "restoring clip.mp4".
        total: number of units, None where it is not known.
        unit: what is counted.
    """
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(_escape(description), total=total, rate="")

            def advance(n: int) -> None:
                bar.advance(task, n)
                speed = bar.tasks[0].speed
                bar.update(task, rate=f"{speed:.1f}/s" if speed else "")

            yield advance
        return

    started = last = time.monotonic()
    done, said = 0, -1

    def line() -> str:
        of = f" of {total}" if total is not None else ""
        rate = done / max(time.monotonic() - started, 1e-9)
        return f"{description}: {done}{of} {unit}, {rate:.1f}/s"

    def advance_plain(n: int) -> None:
        nonlocal done, last, said
        done += n
        if time.monotonic() - last >= _PLAIN_EVERY_SECONDS:
            last, said = time.monotonic(), done
            say(line())

    yield advance_plain
    if said != done:
        say(line())
