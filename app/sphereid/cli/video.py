"""`sphereid video`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from sphereid.cli.images import MinFace, MinScore
from sphereid.cli.session import session
from sphereid.cli.terminal import DONE, FAILED, AsJson, GalleryName, err, fail, note, plural, table

if TYPE_CHECKING:
    from sphereid.progress import Progress as Report

Mode = Literal["tracks", "per_frame"]

STOPPED = 130
"""As shells count a command that Ctrl-C ended."""


def video(
    source: Annotated[Path, typer.Argument(help="The video file.", metavar="VIDEO")],
    gallery: GalleryName = "default",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the video with boxes and names here (.mp4), its sound kept."),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            help="Folder for tracks.json, tracks.csv, timeline.png, captions.vtt, frames.jsonl and crops.",
            show_default="VIDEO.results beside the output, or here",
        ),
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(
            help="tracks pools the evidence of a track and decides once; per_frame decides every face of "
            "every frame by itself."
        ),
    ] = "tracks",
    every_n: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=250,
            help="Search faces in every n-th frame; boxes are carried over to those between.",
            show_default="1 per_frame, ten a second for tracks",
        ),
    ] = None,
    min_score: MinScore = None,
    min_face: MinFace = None,
    as_json: AsJson = False,
) -> None:
    """Find out who is on screen when.

    Everybody enrolled in the gallery, with one image or more, gets a box of their own color; everybody else
    is an outlier, in grey. Stopped with Ctrl-C, the same command goes on where it was.
    """
    if not source.is_file():
        raise ValueError(f"there is no file {source}")
    if out is not None:
        _check_target(source, out)
    folder = results or (out.parent if out is not None else Path()) / f"{source.stem}.results"

    from sphereid.recognition.models import impostor_calibration
    from sphereid.video.errors import VideoError
    from sphereid.video.files import VIDEO
    from sphereid.video.inbox import Inbox
    from sphereid.video.matcher import GalleryMatcher
    from sphereid.video.process import process_video
    from sphereid.video.tracks import Links
    from sphereid.video.types import VideoOptions

    with session() as service:
        galleries = service.gallery(gallery)
        matcher = GalleryMatcher(galleries, gallery, service.manifest.contract)
        inbox = Inbox(galleries, gallery, service.manifest.contract, source.name[:300])
        about = matcher.about()
        if not about["gallery"]["faces"]:
            note(f"nobody is enrolled in the gallery {gallery!r}: everybody will be an outlier")
        score = service.settings.detection.min_score if min_score is None else min_score
        options = VideoOptions(mode, every_n, min_face, score, annotate=out is not None)
        try:
            with _Bar() as bar:
                result = process_video(
                    source,
                    folder,
                    service.pipeline,
                    matcher,
                    options,
                    links=Links.from_calibration(impostor_calibration(service.manifest)),
                    inbox=inbox,
                    about=about,
                    report=bar.update,
                )
        except VideoError as error:
            fail(str(error))
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            note(f"stopped: run the same command to go on; what was found so far is in {folder}")
            raise typer.Exit(STOPPED) from None
    if out is not None:
        (folder / VIDEO).replace(out)
    if result.truncated:
        note("the file breaks off before its end; this is about the part that could be read")
    if result.unknowns:
        note(f"{plural(result.unknowns, 'unknown face')} went into the inbox of the gallery {gallery!r}")
    if as_json:
        typer.echo(json.dumps(json.loads((folder / "tracks.json").read_text(encoding="utf-8"))))
    else:
        columns = ("name", "id", "seconds", "frames", "tracks", "first", "last")
        if result.people:
            table(None, columns, [[person[column] for column in columns] for person in result.people])
        else:
            note(f"nobody of the gallery {gallery!r} is on screen")
        spent = sum(result.seconds.values())
        rate = result.frames / max(spent, 1e-6)
        note(
            f"{plural(result.frames, 'frame')} in {spent:.1f} s ({rate:.1f} a second); "
            f"results in {folder}" + (f", video in {out}" if out is not None else "")
        )
    raise typer.Exit(DONE)


def _check_target(source: Path, out: Path) -> None:
    """Before minutes of work, see that its result can be written."""
    if out.suffix.lower() != ".mp4":
        raise ValueError(f"{out}: the video is written as MP4; choose a name that ends with .mp4")
    if not out.parent.is_dir():
        raise ValueError(f"{out}: there is no folder {out.parent}")
    if out.exists() and out.samefile(source):
        raise ValueError(f"{out} is the video itself; choose another place for the result")


class _Bar:
    """The progress of both passes on stderr, with frames a second and the time to the end."""

    def __init__(self) -> None:
        self._progress = Progress(
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
        self._titles = {"analyze": "Looking for faces", "render": "Drawing"}
        self._tasks = {
            stage: self._progress.add_task(title, total=None, visible=stage == "analyze", speed="")
            for stage, title in self._titles.items()
        }

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, progress: "Report") -> None:
        """Show how far a pass has come."""
        self._progress.update(
            self._tasks[progress.stage],
            completed=progress.done,
            total=progress.total,
            visible=True,
            speed=f"{progress.rate:.1f} frames/s",
        )
