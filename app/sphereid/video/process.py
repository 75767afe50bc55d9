"""A whole video: analyze, decide, write the results."""

import shutil
from collections.abc import Mapping, Set
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final

from sphereid.faces.pipeline import FacePipeline
from sphereid.progress import Canceled, Report
from sphereid.storage.encrypted_files import PLAIN, EncryptedFiles
from sphereid.video import outputs
from sphereid.video.analyze import FrameAnalyzer, analyze
from sphereid.video.colors import assign_colors
from sphereid.video.decide import decide_parts, show_faces, show_tracks
from sphereid.video.draw import Painter, write_timeline
from sphereid.video.files import CAPTIONS, CROPS, FRAMES, TABLE, TIMELINE, TRACKS, VIDEO
from sphereid.video.inbox import SEEN, UNKNOWN, BestFaces, Inbox, UnknownFace
from sphereid.video.reader import VideoInfo, VideoReader
from sphereid.video.render import render
from sphereid.video.segments import Segment, segments
from sphereid.video.spool import Spool
from sphereid.video.tracks import Links, pairs_after
from sphereid.video.types import Matcher, Verdict, VideoOptions

_WORK: Final = "analysis.part"
_FACES: Final = "faces.part"


@dataclass(frozen=True, slots=True, eq=False)
class VideoResult:
    """What was found. folder: holds what `sphereid.video.files` names. frames: of the video.
    seconds: how long each step took. truncated: the file broke off before its end. unknowns: faces that went
    into the inbox."""

    folder: Path
    info: VideoInfo
    frames: int
    truncated: bool
    segments: tuple[Segment, ...]
    people: tuple[Mapping[str, Any], ...]
    seconds: Mapping[str, float]
    unknowns: int = 0


def process_video(
    source: Path,
    folder: Path,
    pipeline: FacePipeline,
    matcher: Matcher,
    options: VideoOptions | None = None,
    *,
    links: Links | None = None,
    inbox: Inbox | None = None,
    about: Mapping[str, Any] | None = None,
    name: str | None = None,
    files: EncryptedFiles = PLAIN,
    report: Report | None = None,
    canceled: Canceled | None = None,
) -> VideoResult:
    """Find out who is on screen when, and write the results into `folder`.

    links: how alike faces of one track must be (None: defaults that suit no model in particular). inbox: gets
    the best face of each track that stays unknown, where it is open.
    files: opens the source and all that is written.
    about: goes into `tracks.json` as it is (the gallery and its revision, say). name: of the video there
    (default: the file's). Called again with the same arguments after it was interrupted, it goes on where
    the first pass stopped. Memory does not grow with the video's length but for about a kilobyte a track.
    Raises VideoError when the file cannot be used, CanceledError when `canceled` became true.
    """
    options = options or VideoOptions()
    crops, work = folder / CROPS, folder / _WORK
    start = monotonic()
    analyzer = FrameAnalyzer(pipeline, options, links)
    header = {
        "bytes": source.stat().st_size,
        "contract": pipeline.embedder.contract,
        **{key: value for key, value in asdict(options).items() if key not in ("annotate", "workers")},
    }
    with ExitStack() as open_files:
        reader = open_files.enter_context(VideoReader(source, files=files))
        crops.mkdir(parents=True, exist_ok=True)  # only now: what is no video leaves no folder behind
        spool = open_files.enter_context(Spool(work, header, files))
        if not spool.resumed:  # what is left was found by another model, or with other options
            shutil.rmtree(folder / _FACES, ignore_errors=True)
            for crop in crops.glob("[0-9]*.jpg"):
                crop.unlink()
        best = BestFaces(folder / _FACES, files) if inbox is not None and inbox.open else None
        count = analyze(
            reader, analyzer, spool, options, crops, best=best, files=files, report=report, canceled=canceled
        )
        info, truncated = reader.info, reader.truncated
        analyzed = monotonic()
        verdicts = _decide(analyzer, spool, options, matcher, folder / FRAMES, files)
    decided = monotonic()
    found = segments(outputs.read_frames(folder / FRAMES, files), 1 / info.rate, verdicts)
    identities = matcher.identities(sorted({s.identity for s in found if s.identity is not None}))
    missing = {s.identity for s in found if s.identity is not None} - set(identities)
    colors = assign_colors(identities.values()) | dict.fromkeys(missing, "#607d8b")
    duration = max([info.duration or 0.0, *(s.end for s in found)])
    people = outputs.people(found, identities, colors)
    rows = list(outputs.rows(found, identities, crops))
    outputs.write_csv(folder / TABLE, rows, files)
    outputs.write_vtt(folder / CAPTIONS, rows, files)
    write_timeline(folder / TIMELINE, found, duration, identities, colors, files=files)
    if options.annotate:
        names = {identity.id: identity.name for identity in identities.values()}
        shown = outputs.read_frames(folder / FRAMES, files)
        render(
            source,
            folder / VIDEO,
            shown,
            Painter(names, colors),
            files=files,
            report=report,
            canceled=canceled,
        )
    finished = monotonic()
    seconds = {
        "analyze": round(analyzed - start, 3),
        "decide": round(decided - analyzed, 3),
        "render": round(finished - decided, 3),
    }
    outputs.write_json(
        folder / TRACKS,
        {
            "video": {
                "name": name or source.name,
                "width": info.width,
                "height": info.height,
                "duration": round(duration, 3),
                "frames": count,
                "frames_per_second": round(info.rate, 3),
                "truncated": truncated,
            },
            "model": {"name": pipeline.embedder.name, "contract": pipeline.embedder.contract},
            **(about or {}),
            "mode": options.mode,
            "every_n": options.step(info.rate),
            "seconds": seconds,
            "people": people,
            "tracks": rows,
        },
        files,
    )
    kept = 0
    if inbox is not None and best is not None:
        named = {segment.part for segment in found if segment.identity is not None}
        kept = inbox.put(_unknown(analyzer, matcher, named, best))
        best.clear()
    work.unlink()
    return VideoResult(folder, info, count, truncated, tuple(found), tuple(people), seconds, kept)


def _unknown(
    analyzer: FrameAnalyzer, matcher: Matcher, named: Set[int], best: BestFaces
) -> list[UnknownFace]:
    """The best face of each part that was seen long enough and never named."""
    parts, merged = analyzer.book.merged()
    verdicts = decide_parts(parts, pairs_after(analyzer.book.together, merged), matcher)
    unknown = [
        best.of(number)
        for number, verdict in verdicts.items()
        if verdict.reason in UNKNOWN and parts[number].embedded >= SEEN and number not in named
    ]
    return [face for face in unknown if face is not None]


def _decide(
    analyzer: FrameAnalyzer,
    spool: Spool,
    options: VideoOptions,
    matcher: Matcher,
    target: Path,
    files: EncryptedFiles,
) -> dict[int, Verdict] | None:
    """Write the frames with their names to `target`; the verdicts of the parts in `tracks` mode."""
    parts, merged = analyzer.book.merged()
    if options.mode == "per_frame":
        outputs.write_frames(target, show_faces(spool.frames(), merged, matcher), files)
        return None
    verdicts = decide_parts(parts, pairs_after(analyzer.book.together, merged), matcher)
    outputs.write_frames(target, show_tracks(spool.frames(), merged, verdicts), files)
    return verdicts
