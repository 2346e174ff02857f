"""`deblurkit infer`: restore videos, pictures and folders of frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import typer

from deblurkit.cli.app import app
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
    weights: Annotated[Path | None, typer.Option("--weights", help="Weights: a .pth or .safetensors file.")] = None,
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

    from deblurkit.errors import CheckpointError, OptionsError

    if weights is None:
        raise CheckpointError(
            "no weights: name them with --weights FILE (there are no default ones yet: train some with `deblurkit "
            "train -opt options/train_dbn.yml`, or run `bash scripts/demo.sh`, which leaves some at "
            "demo/experiments/demo_dbn/models/net_g_latest.pth)"
        )
    if tile != "auto" and not tile.isdecimal():
        raise OptionsError(f"--tile {tile}: use auto, 0 or a number of pixels")

    from deblurkit.engine.checkpoint import load_network
    from deblurkit.engine.infer import Comparison, Encoding
    from deblurkit.engine.infer import infer as run
    from deblurkit.engine.restore import Restorer
    from deblurkit.registry import load_plugins

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files are removed
    load_plugins(plugins)
    net = load_network(weights)
    restorer = Restorer(net, device, precision, "auto" if tile == "auto" else int(tile))
    encoding = Encoding(codec, crf, lossless, _rate(fps))
    run(restorer, inputs, output, encoding, overwrite, Comparison(side_by_side, compare_slider))


def _rate(fps: str) -> Fraction:
    from deblurkit.errors import OptionsError

    try:
        rate = Fraction(fps)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise OptionsError(f"--fps {fps}: use a number such as 25 or 30000/1001")
    return rate
