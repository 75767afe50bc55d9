"""`sphereid gallery import`, `export`, `evaluate` and `reembed`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from sphereid.cli.images import Gate, Largest, MinFace, MinScore
from sphereid.cli.session import gallery, session
from sphereid.cli.terminal import DONE, FAILED, NOT_ALL, AsJson, GalleryName, err, fail, note, plural, table
from sphereid.progress import Meter, Report
from sphereid.progress import Progress as Told
from sphereid.settings import Settings

if TYPE_CHECKING:
    from sphereid.gallery.service import GalleryService

STOPPED = 130
"""As shells count a command that Ctrl-C ended."""


def import_gallery(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder, or a tar or zip archive, with a folder of photographs a person; a CSV with "
            "the columns identity and file; or a Parquet file of `export`.",
            metavar="DIR|TAR|ZIP|CSV|PARQUET",
        ),
    ],
    gallery_id: GalleryName = "default",
    create: Annotated[bool, typer.Option(help="Make the gallery if there is none.")] = False,
    largest: Largest = False,
    quality: Gate = "normal",
    refuse_duplicates: Annotated[
        bool, typer.Option(help="Leave out faces that resemble another identity.")
    ] = False,
    min_score: MinScore = None,
    min_face: MinFace = None,
    report: Annotated[
        Path | None, typer.Option(help="Write what became of every file here, as .csv or .json.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Enroll many people.

    sphereid gallery import portraits/ --gallery staff --create --report left-out.csv

    Stopped or killed, the same command goes on where it was: a photograph that is enrolled is not enrolled
    twice. Exit code 1: some files were left out.
    """
    from sphereid.bulk.errors import BulkError
    from sphereid.jobs.imports import is_parquet

    if not source.exists():
        raise ValueError(f"there is no file or folder {source}")
    if report is not None and report.suffix.lower() not in (".csv", ".json"):
        raise ValueError(f"{report}: a report is written as .csv or .json")
    try:
        if source.is_file() and is_parquet(source):
            summary = _restore(source, gallery_id, create)
        else:
            summary = _photographs(
                source,
                gallery_id,
                create,
                report,
                {
                    "face": "largest" if largest else "only",
                    "quality": quality,
                    "duplicates": "refuse" if refuse_duplicates else "report",
                    "min_score": min_score,
                    "min_face": min_face,
                },
            )
    except BulkError as error:
        fail(f"{source}: {error}")
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        note("stopped: run the same command to go on")
        raise typer.Exit(STOPPED) from None
    if as_json:
        typer.echo(json.dumps(summary))
    raise typer.Exit(NOT_ALL if summary.get("left_out") else DONE)


def _photographs(
    source: Path, gallery_id: str, create: bool, report: Path | None, options: dict[str, Any]
) -> dict[str, Any]:
    from sphereid.bulk.photographs import ImportOptions, import_photographs
    from sphereid.bulk.report import Journal
    from sphereid.bulk.sources import open_source

    with open_source(source) as opened, session() as loaded:
        if not opened.entries:
            raise ValueError(f"there is no picture in {source}")
        service = loaded.galleries()
        _ready(service, gallery_id, create, loaded.settings)
        loaded.gallery(gallery_id, service)
        if options["min_score"] is None:
            options["min_score"] = loaded.settings.detection.min_score
        journal = Journal()
        try:
            with bar("Importing", "files") as show:
                import_photographs(
                    opened,
                    loaded.pipeline,
                    service,
                    gallery_id,
                    ImportOptions(**options),
                    journal=journal,
                    limits=loaded.engine.limits,
                    workers=loaded.settings.queues.in_flight,
                    report=show,
                )
        finally:
            if report is not None:
                (journal.write_csv if report.suffix.lower() == ".csv" else journal.write_json)(report)
    summary = journal.summary()
    left = [line for line in journal.lines() if line.outcome == "left_out"]
    if left and report is None:
        table(None, ["left out", "reason", "detail"], [(x.file, x.reason, x.detail) for x in left[:20]])
        if len(left) > 20:
            note(f"and {len(left) - 20} more: --report left-out.csv lists all of them")
    note(
        f"{plural(summary['enrolled'], 'face')} enrolled in {gallery_id}, {summary['present']} there "
        f"already, {plural(summary['left_out'], 'file')} left out"
        + (f", {summary['resembling']} resemble another identity" if summary["resembling"] else "")
    )
    return summary


def _restore(source: Path, gallery_id: str, create: bool) -> dict[str, Any]:
    from sphereid.gallery import transfer

    settings = Settings()
    with source.open("rb") as file, gallery(settings) as service:
        header = transfer.read_header(file)
        known = _ready(service, gallery_id, create, settings, header)
        with bar("Importing", "rows") as show:
            done = transfer.restore(service, gallery_id, file, Meter("import", None, show).update)
    note(
        f"{plural(done.enrolled, 'face')} of {plural(done.identities, 'new identity', 'new identities')} "
        f"enrolled in {gallery_id}, {done.present} there already"
        + ("" if known else "; the gallery was made with its rules")
    )
    return {"enrolled": done.enrolled, "identities": done.identities, "present": done.present}


def _ready(
    service: "GalleryService", gallery_id: str, create: bool, settings: Settings, header: Any = None
) -> bool:
    """Whether the gallery was there; it is made where that is allowed. Raises GalleryError."""
    from sphereid.gallery.errors import NotFoundError
    from sphereid.gallery.types import FpirPolicy, GalleryRules

    try:
        service.get_gallery(gallery_id)
    except NotFoundError as error:
        if not create:
            raise NotFoundError(error.code, f"{error}; --create makes it") from None
    else:
        return True
    rules = GalleryRules(FpirPolicy(settings.default_fpir)) if header is None else header.rules
    name, metadata = (None, {}) if header is None else (header.name, header.metadata)
    service.create_gallery(gallery_id, name, metadata, rules)
    return False


def export_gallery(
    target: Annotated[Path, typer.Argument(help="The file to write.", metavar="OUT.parquet")],
    gallery_id: GalleryName = "default",
    force: Annotated[bool, typer.Option(help="Replace a file that exists.")] = False,
) -> None:
    """Write a gallery's identities, faces and embeddings to a Parquet file.

    `sphereid gallery import` reads it back bit for bit. Whoever has the file can find these people elsewhere:
    keep it as you keep the database.
    """
    from sphereid.gallery import transfer

    if target.suffix.lower() != ".parquet":
        raise ValueError(f"{target}: choose a name that ends with .parquet")
    if not target.absolute().parent.is_dir():
        raise ValueError(f"{target}: there is no folder {target.parent}")
    if target.exists() and not force:
        raise ValueError(f"{target} exists; --force replaces it")
    part = target.with_name(target.name + ".part")
    try:
        with gallery() as service, bar("Exporting", "faces") as show, part.open("wb") as file:
            written = transfer.export(service, gallery_id, file, Meter("export", None, show).update)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    people = plural(written.identities, "identity", "identities")
    note(f"{plural(written.faces, 'face')} of {people} in {target}")


def evaluate_gallery(
    gallery_id: GalleryName = "default",
    chart: Annotated[Path | None, typer.Option(help="Draw the similarity histograms here (.svg).")] = None,
    out: Annotated[Path | None, typer.Option(help="Write all figures here (.json).")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a gallery on itself, each face left out in turn.

    Says how many enrolled people would be missed (FNIR) and how many strangers named (FPIR) at the threshold
    in force and at others, which threshold these figures suggest, and which faces look like somebody else's.
    """
    from sphereid.bulk.chart import evaluation_svg
    from sphereid.gallery.evaluation import evaluate

    for path, suffix in ((chart, ".svg"), (out, ".json")):
        if path is not None and path.suffix.lower() != suffix:
            raise ValueError(f"{path}: choose a name that ends with {suffix}")
    with gallery() as service, bar("Comparing", "probes") as show:
        found = evaluate(service, gallery_id, tell=Meter("evaluation", None, show).update).document()
    if chart is not None:
        chart.write_text(evaluation_svg(found), encoding="utf-8")
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _show_evaluation(found)
    raise typer.Exit(DONE)


def reembed_gallery(
    model: Annotated[str, typer.Option(help="Name of the new model's folder; `sphereid models` lists them.")],
    gallery_id: GalleryName = "default",
    force: Annotated[bool, typer.Option(help="Change also where the new model is found worse.")] = False,
    compare_only: Annotated[bool, typer.Option(help="Compare, and leave the gallery as it is.")] = False,
    server: Annotated[
        str | None,
        typer.Option(help="Let this running server do it beside its requests.", metavar="URL"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a gallery's model.

    Embeds the gallery's crops with another model, compares both on the gallery's own pairs, and lets the new
    embeddings take over in one write. The gallery must have kept crops of all its faces (`sphereid gallery
    create --keep-crops`). From then on it is served by the new model, whatever SPHEREID_MODEL says. With
    --server http://127.0.0.1:8000 a running server does it, without a gap for those who ask it meanwhile.
    """
    from sphereid.bulk.errors import BulkError
    from sphereid.bulk.reembedding import reembed
    from sphereid.cli.remote import RemoteError, Server
    from sphereid.inference.loading import load_embedder, load_manifests

    settings = Settings()

    def here(show: Report) -> dict[str, Any]:
        known = ", ".join(manifests := load_manifests(settings))
        if model not in manifests:
            raise ValueError(f"there is no model {model!r} in {settings.models_dir} (there: {known})")
        with gallery(settings) as service:
            service.get_gallery(gallery_id)
            embedder = load_embedder(settings, model)
            return reembed(service, gallery_id, embedder, force=force, compare_only=compare_only, report=show)

    def there(show: Report) -> dict[str, Any]:
        body = {"model": model, "force": force, "compare_only": compare_only}
        return Server(str(server), settings).work(f"/v1/galleries/{gallery_id}/reembed", body, show)

    try:
        with bar("Embedding", "faces") as show:
            done = here(show) if server is None else there(show)
    except (BulkError, RemoteError) as error:
        fail(str(error))
        raise typer.Exit(FAILED) from None
    if as_json:
        typer.echo(json.dumps(done))
        return
    rows = []
    for name in ("old", "new"):
        points = done[name].get("points", [])[:3]
        fnirs = [percent(point["fnir"]) if point["measured"] else "too few" for point in points]
        rows.append((name, percent(done[name].get("rank_one")), *fnirs))
    table(None, ["embeddings", "rank one", "FNIR at FPIR 0.1", "at 0.03", "at 0.01"], rows)
    verdict = {
        "better": "the new model tells these people apart better",
        "worse": "the new model tells these people apart less well",
        "alike": "both tell these people apart alike",
        "too_small": "too few probes to tell which is better",
    }[done["verdict"]]
    if done["exchanged"]:
        note(f"{verdict}; {done['faces']} faces of {gallery_id} hold embeddings of {model} now")
    else:
        note(f"{verdict}; {gallery_id} stays as it was")


def percent(rate: dict[str, float] | None) -> str:
    """A rate with its interval."""
    return "–" if rate is None else f"{rate['value']:.2%} ({rate['low']:.2%} to {rate['high']:.2%})"


def _show_evaluation(found: dict[str, Any]) -> None:
    note(
        f"{plural(found['faces'], 'face')} of {plural(found['identities'], 'identity', 'identities')}; "
        f"{found['mated_probes']} mated and "
        f"{found['non_mated_probes']} non-mated probes; rank one {percent(found['rank_one'])}"
    )
    suggested = found["suggested"]
    rows = [("in force", found["current"])] + [(f"FPIR {p['target']:g}", p) for p in found["points"]]
    rows += [("suggested", suggested)] if suggested else []
    table(
        None,
        ["threshold for", "similarity", "FPIR (95 %)", "FNIR (95 %)", ""],
        [
            (name, p["threshold"], percent(p["fpir"]), percent(p["fnir"]), "" if p["measured"] else "too few")
            for name, p in rows
        ],
    )
    if found["look_alikes"]:
        table(
            None,
            ["face", "of", "looks like", "similarity"],
            [(x["face"], x["identity"], x["other"], x["similarity"]) for x in found["look_alikes"]],
        )
    for each in found["notes"]:
        note(each["text"])


@contextmanager
def bar(title: str, unit: str) -> Iterator[Report]:
    """A progress bar on stderr; none without a terminal."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    with progress:
        task = progress.add_task(title, total=None, speed="")

        def show(told: Told) -> None:
            progress.update(task, completed=told.done, total=told.total, speed=f"{told.rate:.1f} {unit}/s")

        yield show
