"""The command line of `import dlib`."""

from pathlib import Path
from typing import Annotated, Final

import typer

DEFAULT_OUT: Final = Path("data/models/dlib")


def command(
    out: Annotated[Path, typer.Option(help="Folder to write the model into.")] = DEFAULT_OUT,
    weights: Annotated[
        Path | None, typer.Option(help="dlib's .dat file [default: the installed package's].")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Prepared faces to calibrate on, minutes [default: SphereID's own calibration]."),
    ] = None,
    center: Annotated[
        bool, typer.Option("--center", help="Subtract the store's mean descriptor (measured worse).")
    ] = False,
) -> None:
    """Convert dlib's public-domain face descriptor.

    The service can load the result. Needs the extra `dlib` (package face-recognition-models), neither dlib
    nor torch. Takes seconds. Without --store it writes what `sphereid models install dlib` does.
    To serve the result: SPHEREID_MODELS_DIR=data/models sphereid serve
    """
    from sphereid_training.importers.dlib.convert import import_dlib

    import_dlib(out, weights=weights, store=store, center=center, say=typer.echo)
