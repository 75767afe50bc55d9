"""What a finished analysis is written as: JSON, CSV and WebVTT."""

import csv
import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sphereid.gallery.types import Identity
from sphereid.storage.encrypted_files import PLAIN, EncryptedFiles
from sphereid.video.segments import Segment
from sphereid.video.types import Shown, ShownFrame

COLUMNS = (
    "track",
    "identity",
    "name",
    "from",
    "to",
    "frames",
    "detections",
    "mean_similarity",
    "similarity",
    "best_crop",
)


def rows(
    segments: Iterable[Segment], identities: Mapping[str, Identity], crops: Path
) -> Iterator[dict[str, Any]]:
    """One row a segment, with the keys of COLUMNS; times in seconds, `best_crop` relative to the results."""
    for segment in segments:
        identity = identities.get(segment.identity) if segment.identity is not None else None
        crop = crops / f"{segment.part}.jpg"
        yield {
            "track": segment.track,
            "identity": segment.identity,
            "name": identity.name if identity is not None else segment.identity,
            "from": round(segment.start, 3),
            "to": round(segment.end, 3),
            "frames": segment.frames,
            "detections": segment.detections,
            "mean_similarity": _rounded(segment.mean_similarity),
            "similarity": _rounded(segment.similarity),
            "best_crop": f"{crops.name}/{crop.name}" if crop.is_file() else None,
        }


def people(
    segments: Sequence[Segment], identities: Mapping[str, Identity], colors: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Who occurs, with the seconds and frames on screen, most present first. Outliers are not counted."""
    found: dict[str, list[Segment]] = {}
    for segment in segments:
        if segment.identity is not None:
            found.setdefault(segment.identity, []).append(segment)
    answer = []
    for identity_id, own in found.items():
        identity = identities.get(identity_id)
        answer.append(
            {
                "id": identity_id,
                "name": identity.name if identity is not None else identity_id,
                "color": colors[identity_id],
                "seconds": round(sum(s.end - s.start for s in own), 3),
                "frames": sum(s.frames for s in own),
                "tracks": len(own),
                "first": round(own[0].start, 3),
                "last": round(max(s.end for s in own), 3),
            }
        )
    return sorted(answer, key=lambda person: (-person["seconds"], person["id"]))


def write_json(path: Path, content: Mapping[str, Any], files: EncryptedFiles = PLAIN) -> None:
    """Write UTF-8 JSON that people can read."""
    files.put(path, (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode())


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], files: EncryptedFiles = PLAIN) -> None:
    """Write rows under a header line. Text that a spreadsheet would take for a formula gets an apostrophe."""
    with files.write_text(path) as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _harmless(value) for key, value in row.items()})


def write_vtt(path: Path, rows: Iterable[Mapping[str, Any]], files: EncryptedFiles = PLAIN) -> None:
    """Write WebVTT cues with the names on screen; outliers get none."""
    named = [row for row in rows if row["identity"] is not None]
    blocks = ["WEBVTT"]
    blocks += [
        f"track-{row['track']}\n{_clock(row['from'])} --> {_clock(row['to'])}\n"
        f"{html.escape(' '.join(str(row['name']).split()), quote=False)}"
        for row in named
    ]
    files.put(path, ("\n\n".join(blocks) + "\n").encode())


def write_frames(path: Path, frames: Iterable[ShownFrame], files: EncryptedFiles = PLAIN) -> None:
    """Write one JSON line a frame: index, seconds, and the faces shown in it."""
    with files.write_text(path) as file:
        for frame in frames:
            faces = [
                {
                    "box": face.box,
                    "chain": face.chain,
                    "part": face.part,
                    "identity": face.identity,
                    "similarity": _rounded(face.similarity),
                    "interpolated": face.interpolated,
                }
                for face in frame.faces
            ]
            row = {"index": frame.index, "time": round(frame.time, 6), "faces": faces}
            file.write(json.dumps(row, separators=(",", ":")) + "\n")


def read_frames(path: Path, files: EncryptedFiles = PLAIN) -> Iterator[ShownFrame]:
    """What `write_frames` wrote."""
    with files.read_text(path) as file:
        for line in file:
            row = json.loads(line)
            faces = tuple(Shown(**{**face, "box": tuple(face["box"])}) for face in row["faces"])
            yield ShownFrame(row["index"], row["time"], faces)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _clock(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
