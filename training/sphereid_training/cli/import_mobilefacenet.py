"""The command line of `import mobilefacenet`."""

from pathlib import Path
from typing import Annotated, Final

import typer

DEFAULT_OUT: Final = Path("data/models/mobilefacenet")


def command(
    file: Annotated[Path, typer.Argument(help="mobilefacenet.tflite.")],
    out: Annotated[Path, typer.Option(help="Folder to write the model into.")] = DEFAULT_OUT,
    store: Annotated[Path, typer.Option(help="Prepared faces to calibrate on.")] = Path("runs/store"),
    flip: Annotated[bool, typer.Option("--flip", help="Sum the mirror image in, at twice the cost.")] = False,
    level: Annotated[
        float, typer.Option(min=0, max=1, help="Bring collections of faces nearer to one another.")
    ] = 0.0,
) -> None:
    """Convert a MobileFaceNet of 192 outputs from TensorFlow Lite.

    The service can load the result. Needs the extra `mobilefacenet` (package tflite). Takes minutes, most of
    them for the calibration. Research use only, as the network's training data demand.
    """
    from sphereid_training.cli import command_line
    from sphereid_training.importers.mobilefacenet.convert import import_mobilefacenet

    import_mobilefacenet(
        file, out, store=store, flip="sum" if flip else "none", level=level,
        command=command_line(),
    )  # fmt: skip
