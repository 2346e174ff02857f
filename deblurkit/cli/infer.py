"""`deblurkit infer`: restore videos, pictures and folders of frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from deblurkit.cli.app import app
from deblurkit.cli.train import Device, Plugins


@app.command()
def infer(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Videos, pictures, folders of frames (each one sequence), or patterns such as 'clips/*.mp4'.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", help="Result, or folder for results. By default NAME_deblurred.EXT beside the input."
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="Weights: a .pth or .safetensors file.")] = None,
    tile: Annotated[
        str, typer.Option("--tile", help="auto: tiles only where whole frames do not fit; 0: never; N: pixels a side.")
    ] = "auto",
    device: Device = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        typer.Option("--precision", help="auto: bf16 on a GPU where the network is safe in it, else fp32."),
    ] = "auto",
    codec: Annotated[
        str | None,
        typer.Option("--codec", help="libx264 (default), libx265, libsvtav1, libvpx-vp9, prores_ks or ffv1."),
    ] = None,
    crf: Annotated[
        int | None, typer.Option("--crf", help="Quality of the video, lower is better (libx264: 17).")
    ] = None,
    lossless: Annotated[bool, typer.Option("--lossless", help="Keep every pixel value (FFV1 in .mkv).")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
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
    from deblurkit.engine.infer import Encoding
    from deblurkit.engine.infer import infer as run
    from deblurkit.engine.restore import Restorer
    from deblurkit.registry import load_plugins

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files are removed
    load_plugins(plugins)
    net = load_network(weights)
    restorer = Restorer(net, device, precision, "auto" if tile == "auto" else int(tile))
    run(restorer, inputs, output, Encoding(codec, crf, lossless), overwrite)
