"""`sphereid audit`: who did what, and whether the log about it is whole."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from sphereid.cli.terminal import AsJson, fail, note, table
from sphereid.settings import Settings

audit = typer.Typer(help="Read and verify the log of writes and identifications.", no_args_is_help=True)

INTACT, BROKEN = 0, 1


@audit.command("list")
def list_audit(
    gallery: Annotated[str | None, typer.Option("--gallery", "-g", help="Only this gallery.")] = None,
    identity: Annotated[str | None, typer.Option(help="Only this identity.")] = None,
    action: Annotated[
        str | None, typer.Option(help="Only this action, or with a dot at the end all that begin so.")
    ] = None,
    limit: Annotated[int, typer.Option("-n", min=1, max=1_000_000, help="Most entries.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show what was done last, also while a server is running. Identifications appear after a second.

    sphereid audit list --identity alice
    """
    from sphereid.gallery import audit as log
    from sphereid.gallery.store.database import Database

    database = Database.existing(Settings().database)
    entries: list[log.AuditEntry] = []
    cursor: str | None = None
    while len(entries) < limit:
        with database.reading() as tx:
            page = log.listed(
                tx,
                cursor=cursor,
                limit=min(500, limit - len(entries)),
                gallery=gallery,
                identity=identity,
                action=action,
            )
        entries += page.items
        if (cursor := page.cursor) is None:
            break
    database.close()
    if as_json:
        for entry in entries:
            typer.echo(json.dumps(asdict(entry)))
        return
    table(
        None,
        ["", "at", "actor", "action", "gallery", "identity", "details"],
        (
            (
                each.number,
                each.at[:19].replace("T", " "),
                each.actor,
                each.action,
                each.gallery or "",
                each.identity or "",
                ", ".join(f"{name} {value}" for name, value in each.details.items()),
            )
            for each in entries
        ),
    )


@audit.command("verify")
def verify_audit(
    head: Annotated[
        str | None,
        typer.Option(help="A head that was noted elsewhere, NUMBER:HASH; the log must hold it."),
    ] = None,
) -> None:
    """Compute the chain of hashes again, also while a server is running. Exit code 1: somebody changed it.

    The log is compared with its head in the file audit.head, or with --head. Keep the head that this prints
    somewhere else from time to time: who can write to the data folder can write a whole new log.
    """
    from sphereid.gallery import audit as log
    from sphereid.gallery.store.database import Database

    settings = Settings()
    noted = log.noted_head(settings.data_dir) if head is None else log.Head.parse(head)
    database = Database.existing(settings.database)
    verdict = log.verify(database, noted)
    database.close()
    if verdict.fault is not None:
        fail(f"the audit log is not whole: {verdict.fault}")
        raise typer.Exit(BROKEN)
    if not verdict.noted:
        note("there was no noted head: entries that were cut off the end would not show")
    typer.echo(f"{verdict.head.number} entries, all in their places; head {verdict.head}")
