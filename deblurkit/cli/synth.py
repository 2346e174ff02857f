"""`deblurkit synth`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from deblurkit.cli.app import app


class ModeChoice(str, Enum):
    """What blurred frames are made of."""

    auto = "auto"
    average = "average"
    photos = "photos"
    shake = "shake"


class SplitChoice(str, Enum):
    """Parts of a data set."""

    train = "train"
    val = "val"
    test = "test"


_AVERAGE = "Averaging frames of video"
_PHOTOS = "Clips of photos (photos, shake)"
_CAMERA = "What the camera does to blurred frames"
_OUTPUT = "Output"


@app.command()
def synth(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Sharp videos, folders of their frames, folders of photos, photos, or GOPRO_Large_all.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the data set.", show_default=False)],
    mode: Annotated[
        ModeChoice,
        typer.Option(
            "--mode",
            help="average: frames of video are added up. photos: a camera moves before photos, and things in them. "
            "shake: random camera-shake kernels. auto: average for video and its frames, else photos.",
        ),
    ] = ModeChoice.auto,
    frames: Annotated[
        int | None,
        typer.Option("--frames", help="Sharp frames per blurred one; best odd. Default: 7.", rich_help_panel=_AVERAGE),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            "--stride",
            help="Source frames from one blurred frame to the next. Without it: as --frames.",
            rich_help_panel=_AVERAGE,
        ),
    ] = None,
    duty: Annotated[
        float | None,
        typer.Option(
            "--duty",
            help="Share of the stride that the shutter is open, instead of --frames.",
            rich_help_panel=_AVERAGE,
        ),
    ] = None,
    interpolate: Annotated[
        int,
        typer.Option(
            "--interpolate", help="First make so many frames of each by optical flow.", rich_help_panel=_AVERAGE
        ),
    ] = 1,
    curve: Annotated[
        str | None,
        typer.Option(
            "--curve",
            help="Camera response to undo: gamma2.2 (GoPro's), reds, srgb, or linear for a plain mean. "
            "Default: gamma2.2, of photos srgb.",
            rich_help_panel=_AVERAGE,
        ),
    ] = None,
    scale: Annotated[
        float, typer.Option("--scale", help="Make frames smaller by this factor first.", rich_help_panel=_AVERAGE)
    ] = 1.0,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            help="INPUT is a data set of this layout; its sharp frames are averaged. (gopro_large_all is found.)",
            rich_help_panel=_AVERAGE,
        ),
    ] = None,
    size: Annotated[
        str, typer.Option("--size", metavar="WxH", help="Size of frames.", rich_help_panel=_PHOTOS)
    ] = "640x360",
    length: Annotated[int, typer.Option("--length", help="Frames of each clip.", rich_help_panel=_PHOTOS)] = 20,
    motion: Annotated[
        str | None,
        typer.Option(
            "--motion",
            metavar="LOW:HIGH",
            help="Pixels that the picture moves by during an exposure; of shake, length of the way. "
            "Default: 1:24, of shake 6:80.",
            rich_help_panel=_PHOTOS,
        ),
    ] = None,
    objects: Annotated[
        int,
        typer.Option("--objects", help="Most things that move on their own before a photo.", rich_help_panel=_PHOTOS),
    ] = 3,
    noise: Annotated[
        float | None,
        typer.Option(
            "--noise",
            help="Most sensor noise: 0 none, 1 a good camera, 4 a quarter of its light. Default: 0, of photos 2.",
            rich_help_panel=_CAMERA,
        ),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(
            "--crf", help="Compress as video (libx264) at this quality, 0 best to 51.", rich_help_panel=_CAMERA
        ),
    ] = None,
    split: Annotated[
        SplitChoice | None,
        typer.Option("--split", help="Part of the data set. Default: train.", rich_help_panel=_OUTPUT),
    ] = None,
    val_share: Annotated[
        float,
        typer.Option("--val-share", help="Share of the inputs that goes to `val` instead.", rich_help_panel=_OUTPUT),
    ] = 0.0,
    limit: Annotated[
        int | None,
        typer.Option("--limit", help="At most so many pairs of a video, or so many photos.", rich_help_panel=_OUTPUT),
    ] = None,
    lmdb: Annotated[
        bool, typer.Option("--lmdb", help="Write OUTPUT.lmdb instead of picture files.", rich_help_panel=_OUTPUT)
    ] = False,
    video: Annotated[
        bool, typer.Option("--video", help="Also write NAME_blur.mp4 and NAME_sharp.mp4.", rich_help_panel=_OUTPUT)
    ] = False,
    fps: Annotated[
        float | None,
        typer.Option(
            "--fps",
            help="With --video: frames per second of the inputs. Without it: what the video says.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of all that is random.", rich_help_panel=_OUTPUT)] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace sequences that are there already.", rich_help_panel=_OUTPUT)
    ] = False,
) -> None:
    """Make blurred/sharp pairs from sharp video or from photos.

    Each input becomes a sequence OUTPUT/SPLIT/NAME/{blur,sharp}/000000.png ...
    (layout: paired). Light is added up as by a shutter; the sharp partner is the
    middle of the exposure. What is there already, made the same way, is left
    alone: the same command goes on with an interrupted run.
    """
    import signal
    import sys

    from deblurkit.data.synthesis_inputs import Request, synthesise_inputs
    from deblurkit.data.synthesis_jobs import Output

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is half-made is removed
    written = synthesise_inputs(
        inputs,
        Request(
            mode=mode.value,
            frames=frames,
            stride=stride,
            duty=duty,
            interpolate=interpolate,
            curve=curve,
            scale=scale,
            layout=layout,
            split=split.value if split else None,
            size=size,
            length=length,
            motion=motion,
            objects=objects,
            noise=noise,
            crf=crf,
            limit=limit,
        ),
        Output(
            output,
            split.value if split else "train",
            held_out=val_share,
            videos=video,
            frame_rate=fps,
            overwrite=overwrite,
            lmdb=lmdb,
            seed=seed,
        ),
    )
    for folder, pairs in written.items():
        typer.echo(f"{folder}: {pairs} pairs")
