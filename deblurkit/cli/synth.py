"""`deblurkit synth`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from deblurkit.cli.app import app


@app.command()
def synth(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="VIDEO|FOLDER...", help="Sharp videos, or folders of frames.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the data set.", show_default=False)],
    split: Annotated[Literal["train", "test"], typer.Option("--split", help="Part of the data set.")] = "train",
    frames: Annotated[int, typer.Option("--frames", help="Sharp frames per blurred one; best odd.")] = 7,
    stride: Annotated[
        int | None,
        typer.Option("--stride", help="Source frames from one blurred frame to the next. Without it: as --frames."),
    ] = None,
    curve: Annotated[
        str, typer.Option("--curve", help="Camera response to undo: gamma2.2, srgb, or linear for a plain mean.")
    ] = "gamma2.2",
    scale: Annotated[float, typer.Option("--scale", help="Make frames smaller by this factor first.")] = 1.0,
    limit: Annotated[int | None, typer.Option("--limit", help="At most so many pairs of each input.")] = None,
    video: Annotated[bool, typer.Option("--video", help="Also write NAME_blur.mp4 and NAME_sharp.mp4.")] = False,
    fps: Annotated[
        float | None,
        typer.Option("--fps", help="With --video: frames per second of the inputs. Without it: what the video says."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace sequences that are there already.")] = False,
) -> None:
    """Make blurred/sharp pairs from sharp high-frame-rate video.

    Consecutive frames are averaged in linear light; the frame in the middle is the sharp partner. Each input becomes a
    sequence OUTPUT/SPLIT/NAME/{blur,sharp}/000000.png ... (layout: paired).
    """
    import signal
    import sys

    from deblurkit.data.synthesis import Averaging, synthesise_files

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is half-made is removed
    written = synthesise_files(
        inputs,
        output,
        split,
        Averaging(frames, stride, curve),
        scale=scale,
        limit=limit,
        videos=video,
        frame_rate=fps,
        overwrite=overwrite,
    )
    for folder, pairs in written.items():
        typer.echo(f"{folder}: {pairs} pairs")
