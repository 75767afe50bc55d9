"""`sphereid watch`."""

import json
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from sphereid.cli.images import MinFace, MinScore
from sphereid.cli.session import session
from sphereid.cli.terminal import DONE, FAILED, AsJson, GalleryName, fail, note

if TYPE_CHECKING:
    from sphereid.video.presence import Event


def watch(
    source: Annotated[
        str, typer.Argument(help="A camera's number (0), a URL (rtsp://…, http://…) or a video file.")
    ],
    gallery: GalleryName = "default",
    strangers: Annotated[bool, typer.Option(help="Also tell of people who are not enrolled.")] = True,
    min_score: MinScore = None,
    min_face: MinFace = None,
    as_json: AsJson = False,
) -> None:
    """Say who comes and goes before a camera, until Ctrl-C.

    One line for each arrival and departure. A lost connection is made again, with growing pauses. No picture
    is kept.
    """
    from sphereid.bootstrap import live_streams
    from sphereid.video.errors import VideoError
    from sphereid.video.watch import watch as watched

    stopped = threading.Event()
    with session() as service:
        galleries = service.gallery(gallery)
        assert service.models is not None
        live = live_streams(service.models, galleries, service.engine.limits, service.settings)
        stream = live.open(gallery, min_face=min_face, min_score=min_score)
        try:
            for events in watched(source, stream, stopped, note):
                for event in events:
                    _tell(event, as_json, strangers)
        except VideoError as error:
            fail(str(error))
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            note("stopped")
        finally:
            stopped.set()
    raise typer.Exit(DONE)


def _tell(event: "Event", as_json: bool, strangers: bool) -> None:
    identity = event.identity
    if identity is None and not strangers:
        return
    now = datetime.now().astimezone()
    if as_json:
        from sphereid.video.watch import event_json

        typer.echo(json.dumps(event_json(event, now), ensure_ascii=False))
        return
    name = f"somebody unknown ({event.track})" if identity is None else identity.name or identity.id
    name = "".join(c if c.isprintable() else "?" for c in name)
    similarity = "" if event.similarity is None else f"  similarity {event.similarity:.2f}"
    typer.echo(f"{now:%H:%M:%S}  {event.time:8.1f} s  {name} {event.kind}{similarity}")
