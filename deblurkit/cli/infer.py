"""`deblurkit infer`: restore videos, pictures and folders of frames."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

import typer

from deblurkit.cli.app import app, importing
from deblurkit.cli.train import Device, Plugins

#: Help panels.
OUTPUT, SPEED, COMPARISON = "Output", "Speed and memory", "Comparison"


@app.command()
def infer(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Videos, pictures, folders of frames (each one sequence), patterns such as 'clips/*.mp4', or - for "
            "standard input.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Result, or folder for results. By default NAME_deblurred.EXT beside the input. FRAMES/ with a slash: "
            "the frames of a video as PNG. -: standard output.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            help="Weights: a .pth or .safetensors file, or a name that `deblurkit list weights` shows. By default the "
            "only ones in ~/.deblurkit/weights.",
            show_default=False,
        ),
    ] = None,
    tile: Annotated[
        str,
        typer.Option(
            "--tile",
            help="auto: tiles only where whole frames do not fit; 0: never; N: pixels a side.",
            rich_help_panel=SPEED,
        ),
    ] = "auto",
    device: Device = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        typer.Option(
            "--precision",
            help="auto: bf16 on a GPU where the network is safe in it, else fp32.",
            rich_help_panel=SPEED,
        ),
    ] = "auto",
    shots: Annotated[
        bool,
        typer.Option(
            "--shots/--no-shots",
            help="Whether networks that look at several frames begin anew where a new shot begins.",
            rich_help_panel=SPEED,
        ),
    ] = True,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Networks that look at whole clips (BasicVSR) see whole shots instead of segments; needs room on the "
            "disk.",
            rich_help_panel=SPEED,
        ),
    ] = False,
    clip_length: Annotated[
        int,
        typer.Option(
            "--clip-length", min=1, help="Frames of a segment, for networks that look at clips.", rich_help_panel=SPEED
        ),
    ] = 32,
    clip_overlap: Annotated[
        int,
        typer.Option(
            "--clip-overlap",
            min=0,
            help="Frames of a segment on each side of those that are kept of it; they are computed twice.",
            rich_help_panel=SPEED,
        ),
    ] = 6,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Work in parts of 200 frames; if it is interrupted, the same command goes on. Results that are there "
            "are left alone.",
            rich_help_panel=SPEED,
        ),
    ] = False,
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", help="Number of GPUs that share the work, one process each.", rich_help_panel=SPEED),
    ] = None,
    procs: Annotated[
        int | None,
        typer.Option("--procs", help="Number of processes on the CPU that share the work.", rich_help_panel=SPEED),
    ] = None,
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Try channels-last, torch.compile and, on a GPU, CUDA graphs on the first frame, and keep what is "
            "fastest; takes minutes.",
            rich_help_panel=SPEED,
        ),
    ] = False,
    benchmark: Annotated[
        bool,
        typer.Option(
            "--benchmark",
            help="Show how long decoding, restoring and encoding take, each by itself.",
            rich_help_panel=SPEED,
        ),
    ] = False,
    codec: Annotated[
        str | None,
        typer.Option(
            "--codec",
            help="libx264 (default), libx265, libsvtav1, libvpx-vp9, prores_ks, ffv1 or gif; png, tiff, jpeg, webp or "
            "bmp: the frames as pictures in a folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option("--crf", help="Quality of the video, lower is better (libx264: 17).", rich_help_panel=OUTPUT),
    ] = None,
    lossless: Annotated[
        bool,
        typer.Option("--lossless", help="Keep every pixel value (video: FFV1 in .mkv).", rich_help_panel=OUTPUT),
    ] = False,
    fps: Annotated[
        str,
        typer.Option(
            "--fps", help="Frames per second of a video made of a folder: 25, 30000/1001.", rich_help_panel=OUTPUT
        ),
    ] = "25",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that exist.", rich_help_panel=OUTPUT)
    ] = False,
    side_by_side: Annotated[
        bool,
        typer.Option(
            "--side-by-side",
            help="One video (or picture) with the input on the left and the result on the right.",
            rich_help_panel=COMPARISON,
        ),
    ] = False,
    compare_slider: Annotated[
        bool,
        typer.Option(
            "--compare-slider",
            help="Also write RESULT.html, a page that shows input and result under a slider; it needs no network.",
            rich_help_panel=COMPARISON,
        ),
    ] = False,
    plugins: Plugins = [],  # noqa: B006
) -> None:
    """Deblur videos, pictures and folders of frames; sound, subtitles and timing are kept."""
    import signal
    import sys

    from deblurkit.console import say
    from deblurkit.errors import MissingWeightsError, OptionsError

    if tile != "auto" and not tile.isdecimal():
        raise OptionsError(f"--tile {tile}: use auto, 0 or a number of pixels")
    if 2 * clip_overlap >= clip_length:
        raise OptionsError(
            f"--clip-overlap {clip_overlap}: leaves nothing of a segment of {clip_length} frames; use less than half "
            "of --clip-length"
        )

    from deblurkit.engine.weights import default_weights, find_weights

    file = default_weights() if weights is None else find_weights(weights)
    if not file.exists():  # before torch is loaded, which takes seconds
        raise MissingWeightsError(file)

    with importing():
        from deblurkit.engine import launch
        from deblurkit.engine.infer import Comparison, Encoding, Work
        from deblurkit.engine.infer import infer as run
        from deblurkit.engine.restore import Restorer
        from deblurkit.registry import load_plugins

    encoding = Encoding(codec, crf, lossless, _rate(fps))
    if (gpus is not None or procs is not None) and not launch.inside_launcher():
        count = launch.number_of_processes(1, gpus, procs, device)
        if count > 1:
            if "-" in (*inputs, output):
                raise OptionsError("--gpus, --procs: standard input and output need one process; name files instead")
            raise typer.Exit(launch.start_processes(count, sys.argv[1:]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files are removed
    load_plugins(plugins)
    with launch.process_group("cpu" if procs is not None or gpus == 0 else device) as place:
        if weights is None and place.is_main:
            say(f"weights: {file}")
        side: int | Literal["auto"] = "auto" if tile == "auto" else int(tile)
        restorer = Restorer.from_weights(
            file,
            place.device,
            precision,
            side,
            shots,
            clip_length=clip_length,
            clip_overlap=clip_overlap,
            exact=exact,
            tune=compile_,
        )
        work = Work(resume, place, benchmark)
        run(restorer, inputs, output, encoding, overwrite, Comparison(side_by_side, compare_slider), work)


def _rate(fps: str) -> Fraction:
    from deblurkit.errors import OptionsError

    try:
        rate = Fraction(fps)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise OptionsError(f"--fps {fps}: use a number such as 25 or 30000/1001")
    return rate
