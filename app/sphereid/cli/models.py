"""`sphereid models`: what is in the models folder, and what can be installed there."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sphereid.cli.terminal import AsJson, note, table
from sphereid.settings import Settings

if TYPE_CHECKING:
    from sphereid.faces.published.catalog import Published

models = typer.Typer(
    help="The models in the models folder, each with its license; install another.",
    invoke_without_command=True,
)


@models.callback()
def list_models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the models in the models folder, each with its license; the active one is marked."""
    from sphereid.inference.loading import load_manifests, model_folder

    if context.invoked_subcommand is not None:
        return
    settings = Settings()
    active = model_folder(settings).name
    found = load_manifests(settings)
    if as_json:
        for folder, manifest in found.items():
            line = manifest.model_dump(mode="json", exclude={"calibration"})
            line |= {"folder": folder, "active": folder == active, "contract": manifest.contract}
            typer.echo(json.dumps(line))
        return
    table(
        None,
        ["", "model", "version", "size", "crop", "calibrated", "contract", "license"],
        (
            (
                "*" if folder == active else "",
                manifest.name,
                manifest.version,
                manifest.embedding_size,
                manifest.template,
                "no" if manifest.calibration is None else "yes",
                manifest.contract,
                manifest.license,
            )
            for folder, manifest in found.items()
        ),
    )


@models.command("install")
def install(
    name: Annotated[
        str | None, typer.Argument(help="Which one. Without a name: list those that there are.")
    ] = None,
    models_dir: Annotated[
        Path | None, typer.Option(help="Models folder [default: that of the settings, SPHEREID_MODELS_DIR].")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the model that is there.")] = False,
) -> None:
    """Make a model of a network that others published.

    Its weights come with a Python package; nothing is downloaded here. The active model stays the one it is:
    SPHEREID_MODEL chooses.

    sphereid models install dlib
    """
    from sphereid.faces.published.catalog import PUBLISHED, published

    folder = models_dir or Settings().models_dir
    if name is None:
        _list_installable(list(PUBLISHED.values()), folder)
        return
    _install(published(name), folder, force)


def _list_installable(entries: "list[Published]", folder: Path) -> None:
    from sphereid.faces.manifest import MANIFEST_FILE

    table(
        None,
        ["model", "license", "may be used for", "package", "installed"],
        (
            (
                each.name,
                each.license,
                each.use,
                each.package,
                "yes" if (folder / each.name / MANIFEST_FILE).is_file() else "no",
            )
            for each in entries
        ),
    )


def _install(entry: "Published", folder: Path, force: bool) -> None:
    from sphereid.faces.published.folder import check_target, write_model

    target = folder / entry.name
    check_target(target, replace=force)  # before the work
    write_model(entry.make(note), target, replace=force)
    note(f"wrote {target}; license: {entry.license}")
    note(f"serve it: SPHEREID_MODELS_DIR={folder} SPHEREID_MODEL={entry.name} sphereid serve")
