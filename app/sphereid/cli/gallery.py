"""`sphereid galleries` and `identities`."""

from collections.abc import Sequence
from typing import Annotated

import typer
from pydantic import BaseModel

from sphereid.cli.terminal import AsJson, GalleryName, note, plural, table
from sphereid.settings import Settings

galleries = typer.Typer(
    help="Galleries: list, make, import, export, evaluate, change the model.", no_args_is_help=True
)
identities = typer.Typer(help="List, merge and delete the people of a gallery.", no_args_is_help=True)

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@galleries.command("list")
def list_galleries(as_json: AsJson = False) -> None:
    """List the galleries with their sizes and thresholds."""
    from sphereid.api import views
    from sphereid.cli.session import gallery

    with gallery() as service:
        shown, cursor = [], None
        while True:
            page = service.list_galleries(cursor=cursor, limit=500)
            shown += [views.gallery(each, service.threshold(each.id)) for each in page.items]
            if (cursor := page.cursor) is None:
                break
    if as_json:
        _lines(shown)
        return
    table(
        None,
        ["id", "name", "identities", "faces", "threshold", "policy"],
        (
            (
                each.id,
                each.name,
                each.identities,
                each.faces,
                each.threshold.value,
                each.policy.type + ("" if each.policy.type == "cosine" else f" {each.policy.target:g}"),
            )
            for each in shown
        ),
    )


@galleries.command("create")
def create_gallery(
    gallery_id: Annotated[str, typer.Argument(metavar="ID")],
    name: Annotated[str | None, typer.Option(help="For people to read.")] = None,
    fpir: Annotated[float | None, typer.Option(help="Share of strangers who may get a name.")] = None,
    threshold: Annotated[float | None, typer.Option(help="A fixed similarity instead.")] = None,
    keep_crops: Annotated[
        bool, typer.Option(help="Keep the faces of photographs, so that another model can embed them anew.")
    ] = False,
) -> None:
    """Make a gallery."""
    from sphereid.cli.session import gallery
    from sphereid.gallery.types import CosinePolicy, FpirPolicy, GalleryRules

    if fpir is not None and threshold is not None:
        raise typer.BadParameter("give --fpir or --threshold, not both")
    settings = Settings()
    policy = FpirPolicy(fpir or settings.default_fpir) if threshold is None else CosinePolicy(threshold)
    with gallery(settings) as service:
        made = service.create_gallery(
            gallery_id, name, {}, GalleryRules(policy=policy, keep_crops=keep_crops)
        )
    note(f"made the gallery {made.id}")


@galleries.command("delete")
def delete_gallery(gallery_id: Annotated[str, typer.Argument(metavar="ID")], yes: Yes = False) -> None:
    """Delete a gallery with everybody in it."""
    from sphereid.cli.session import gallery

    with gallery() as service:
        found = service.get_gallery(gallery_id)
        if not yes:
            typer.confirm(
                f"Delete {found.id} with {plural(found.identities, 'identity', 'identities')} and "
                f"{plural(found.faces, 'face')}?",
                abort=True,
            )
        receipt = service.delete_gallery(gallery_id)
    note(
        f"deleted the gallery {gallery_id}: {plural(receipt.identities, 'identity', 'identities')}, "
        f"{plural(receipt.faces, 'face')}"
    )


@identities.command("list")
def list_identities(
    gallery_id: GalleryName = "default",
    name: Annotated[str | None, typer.Option(help="Only names that contain this.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the people of a gallery."""
    from sphereid.api import views
    from sphereid.cli.session import gallery

    with gallery() as service:
        shown, cursor = [], None
        while True:
            page = service.list_identities(gallery_id, cursor=cursor, limit=500, name=name)
            shown += [views.identity(each) for each in page.items]
            if (cursor := page.cursor) is None:
                break
    if as_json:
        _lines(shown)
        return
    table(
        None,
        ["id", "name", "faces", "enrolled"],
        ((each.id, each.name, each.faces, f"{each.created_at:%Y-%m-%d %H:%M}") for each in shown),
    )


@identities.command("delete")
def delete_identity(
    ids: Annotated[list[str], typer.Argument(metavar="IDS...")],
    gallery_id: GalleryName = "default",
    yes: Yes = False,
) -> None:
    """Delete people with all their faces."""
    from sphereid.cli.session import gallery

    with gallery() as service:
        found = [service.get_identity(gallery_id, each) for each in ids]  # all or none: a typo deletes nobody
        faces = sum(each.faces for each in found)
        if not yes:
            named = ", ".join(ids)
            typer.confirm(f"Delete {named} with {plural(faces, 'face')} from {gallery_id}?", abort=True)
        for each in found:
            service.delete_identity(gallery_id, each.id)
    people = plural(len(found), "identity", "identities")
    note(f"deleted {people} and {plural(faces, 'face')} from {gallery_id}")


@identities.command("merge")
def merge_identities(
    into: Annotated[str, typer.Argument(metavar="INTO", help="The identity that stays.")],
    sources: Annotated[
        list[str], typer.Argument(metavar="IDS...", help="Identities that are the same person.")
    ],
    gallery_id: GalleryName = "default",
    yes: Yes = False,
) -> None:
    """Make one person of several: INTO keeps its name and gets the faces of the others, which are gone then.

    sphereid identities merge alice alice-2 alice-3
    """
    from sphereid.cli.session import gallery

    with gallery() as service:
        kept, *found = [service.get_identity(gallery_id, each) for each in (into, *dict.fromkeys(sources))]
        if kept.id in sources:
            raise typer.BadParameter(f"{into} cannot be merged into itself")
        faces = sum(each.faces for each in found)
        if not yes:
            named = ", ".join(each.id for each in found)
            given, had = plural(faces, "face"), plural(kept.faces, "face")
            typer.confirm(f"Give {given} of {named} to {kept.id}, who has {had}?", abort=True)
        for each in found:
            kept = service.merge_identities(gallery_id, kept.id, each.id)
    merged = plural(len(found), "merged identity", "merged identities")
    note(f"{kept.id} has {plural(kept.faces, 'face')} now, {faces} of them from {merged}")


def _lines(items: Sequence[BaseModel]) -> None:
    for model in items:
        typer.echo(model.model_dump_json())
