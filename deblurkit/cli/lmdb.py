"""`deblurkit lmdb make|info|verify`, and `deblurkit prepare-lmdb`, which is the same as `lmdb make`."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from deblurkit.cli.app import app

lmdb_app = typer.Typer(
    name="lmdb", help="Make, show and check the LMDBs that training reads from.", no_args_is_help=True
)
app.add_typer(lmdb_app)


class LayoutChoice(str, Enum):
    """How the files of a data set lie."""

    auto = "auto"
    gopro = "gopro"
    dvd = "dvd"
    reds = "reds"
    bsd = "bsd"
    hide = "hide"
    realblur = "realblur"
    rsblur = "rsblur"
    vimeo = "vimeo"
    paired = "paired"
    parallel = "parallel"
    pictures = "pictures"
    gopro_large_all = "gopro_large_all"
    photos = "photos"
    frames = "frames"


class SubImageChoice(str, Enum):
    """Forms of sub-images."""

    crops = "crops"
    sub = "sub"


_SUB_IMAGES = "Sub-images, for training with other tools"


class CodecChoice(str, Enum):
    """How frames are stored."""

    raw = "raw"
    tiled = "tiled"
    png = "png"


@app.command("prepare-lmdb")
@lmdb_app.command("make")
def make(
    dataroot: Annotated[Path, typer.Argument(help="Folder of the data set, such as datasets/GoPro.")],
    layout: Annotated[LayoutChoice, typer.Option(help="How its files lie.")] = LayoutChoice.auto,
    split: Annotated[list[str] | None, typer.Option(help="One of its splits (may be repeated); default: all.")] = None,
    lq: Annotated[str, typer.Option(help="Kind of blurred frames, such as blur_gamma of GoPro.")] = "blur",
    codec: Annotated[
        CodecChoice,
        typer.Option(help="raw: pixels, the fastest. tiled: without loss, smaller than PNG. png: BasicSR can read it."),
    ] = CodecChoice.raw,
    tile: Annotated[
        int | None, typer.Option(help="Side of the tiles of tiled (128 by default) or raw (none), in pixels.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; by default one a core.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the LMDBs; by default DATAROOT.lmdb.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make those again that are there.")] = False,
    sub_images: Annotated[
        SubImageChoice | None,
        typer.Option(
            help="Cut frames into parts instead. crops: SPLIT/blur_crops.lmdb (NAFNet's options). "
            "sub: SPLIT_sharp_sub.lmdb (BasicSR's).",
            rich_help_panel=_SUB_IMAGES,
        ),
    ] = None,
    crop_size: Annotated[
        int | None, typer.Option(help="Side in pixels. Default: 512, of sub 480.", rich_help_panel=_SUB_IMAGES)
    ] = None,
    step: Annotated[
        int | None, typer.Option(help="From one to the next. Default: half the side.", rich_help_panel=_SUB_IMAGES)
    ] = None,
    thresh: Annotated[
        int, typer.Option(help="No last one at an end with no more new pixels.", rich_help_panel=_SUB_IMAGES)
    ] = 0,
    files: Annotated[
        bool, typer.Option("--files", help="Folders of PNG files, not LMDBs.", rich_help_panel=_SUB_IMAGES)
    ] = False,
) -> None:
    """Make DATAROOT.lmdb/SPLIT_lq.lmdb and SPLIT_gt.lmdb; an interrupted run is continued."""
    from deblurkit.data.lmdb_make import make_lmdb

    if sub_images is not None:
        from deblurkit.data.sub_images import DEFAULTS, Grid, make_sub_images

        side = crop_size or DEFAULTS[sub_images.value][0]
        grid = Grid(side, side // 2 if step is None else step, thresh)
        for path in make_sub_images(
            dataroot, split or (), layout.value, lq, sub_images.value, grid, files, workers, output, force
        ):
            typer.echo(str(path))
        return

    for path in make_lmdb(dataroot, split or (), layout.value, lq, codec.value, workers, output, force, tile):
        typer.echo(str(path))


@lmdb_app.command()
def info(path: Annotated[Path, typer.Argument(help="Data set, DATAROOT.lmdb, or one LMDB.")]) -> None:
    """Show what LMDBs hold: sequences, frames, shapes, codec, size, fingerprint."""
    from rich.console import Console
    from rich.table import Table

    from deblurkit.data.lmdb_check import find_lmdbs, inspect_lmdb

    stores = find_lmdbs(path)
    table = Table("LMDB", "codec", "sequences", "frames", "shapes", "size", "fingerprint", "files", title=str(path))
    for store in stores:
        found = inspect_lmdb(store)
        table.add_row(
            found.path.name,
            found.form,
            f"{len(found.frames):,}",
            f"{sum(found.frames.values()):,}",
            "\n".join(found.shapes),
            f"{found.size / 1e6:,.1f} MB",
            found.fingerprint,
            found.source,
        )
    # a pipe has no width of its own, and 80 columns would cut the names
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@lmdb_app.command()
def verify(path: Annotated[Path, typer.Argument(help="Data set, DATAROOT.lmdb, or one LMDB.")]) -> None:
    """Compare the checksum of every entry; names each damaged one (exit code 2)."""
    from deblurkit.console import warn
    from deblurkit.data.lmdb_check import find_lmdbs, verify_lmdb
    from deblurkit.errors import DataError

    damages: list[str] = []
    for store in find_lmdbs(path):
        verdict = verify_lmdb(store)
        for note in verdict.notes:
            warn(note)
        damages += verdict.damages
        state = f"{len(verdict.damages)} damaged" if verdict.damages else "all whole"
        typer.echo(f"{verdict.path}: {verdict.entries} entries, {state}")
    if damages:
        raise DataError("\n".join([*damages, f"{len(damages)} entries are damaged: make the LMDB again (--force)"]))
