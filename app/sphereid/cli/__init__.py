"""The command line: what the HTTP API does, on files, folders and globs."""

import sys
from typing import Annotated

import typer

from sphereid import __version__
from sphereid.cli import audit, bulk, gallery, images, keys, models, serve, snapshot, tune, video, watch
from sphereid.cli.terminal import FAILED, fail

app = typer.Typer(
    name="sphereid",
    help="Face recognition: enroll people with one picture each, then find them in others.\n\n"
    "The commands work on the same data folder as the server (SPHEREID_DATA_DIR), one process at a time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve.serve)
app.command()(images.detect)
app.command()(images.verify)
app.command()(images.enroll)
app.command()(images.identify)
app.command()(video.video)
app.command()(watch.watch)
app.command()(tune.tune)
app.command()(snapshot.snapshot)
app.command()(snapshot.restore)
app.command()(keys.rotate_key)
gallery.galleries.command("import")(bulk.import_gallery)
gallery.galleries.command("export")(bulk.export_gallery)
gallery.galleries.command("evaluate")(bulk.evaluate_gallery)
gallery.galleries.command("reembed")(bulk.reembed_gallery)
app.add_typer(gallery.galleries, name="gallery")
app.add_typer(gallery.galleries, name="galleries", hidden=True)
app.add_typer(gallery.identities, name="identities")
app.add_typer(models.models, name="models")
app.add_typer(audit.audit, name="audit")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sphereid {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point. Whatever we foresee ends in one line that says what is wrong and what to do."""
    from pydantic import ValidationError

    from sphereid.errors import CodedError

    try:
        app()
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False):
            name = "__".join(str(part) for part in fault["loc"]).upper()
            fail(f"{name}: {fault['msg']}" if name else fault["msg"])
        sys.exit(FAILED)
    except (CodedError, OSError, ValueError) as error:
        fail(str(error))
        sys.exit(FAILED)
