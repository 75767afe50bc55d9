"""`sphereid detect`, `verify`, `enroll` and `identify`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sphereid.cli.session import Read, session
from sphereid.cli.terminal import (
    DONE,
    IMAGE_SUFFIXES,
    NOT_ALL,
    AsJson,
    GalleryName,
    Paths,
    expand,
    fail,
    note,
    progress,
    table,
)
from sphereid.recognition.quality_gate import Strictness, gate

if TYPE_CHECKING:
    from sphereid.faces.pipeline import AnalyzedFace
    from sphereid.gallery.types import Decision, Identity

MinScore = Annotated[
    float | None,
    typer.Option(
        "--min-detection-score",
        min=0,
        max=0.9999,
        help="Lowest detection score of a face.",
        show_default="0.9",
    ),
]
MinFace = Annotated[
    int | None, typer.Option(min=12, help="Shortest side of a face in pixels.", show_default="by image size")
]
Limit = Annotated[
    float | None,
    typer.Option("--threshold", min=-1, max=1, help="Similarity for a match.", show_default="by promise"),
]
Largest = Annotated[bool, typer.Option(help="Take the largest face of an image that has several.")]
Gate = Annotated[
    Strictness,
    typer.Option(help="Faces to refuse: none, those too small, or those with any fault."),
]


def detect(
    paths: Paths, min_score: MinScore = None, min_face: MinFace = None, as_json: AsJson = False
) -> None:
    """Find the faces of images: boxes, landmarks, scores and quality."""
    from sphereid.api import views

    files = expand(paths)
    rows: list[Sequence[object]] = []
    failed = 0
    with session() as service, progress("Detecting", len(files)) as advance:
        for read in service.read(files, embed=False, min_score=min_score, min_face=min_face):
            advance()
            failed += _complain(read)
            faces = [views.face_members(each.face) for each in read.faces]
            if as_json:
                _print(read, [face.model_dump(mode="json") for face in faces])
            else:
                rows += [
                    (
                        read.path,
                        *_corner(each),
                        face.detection_score,
                        face.quality.score,
                        ", ".join(face.quality.reasons),
                    )
                    for each, face in zip(read.faces, faces, strict=True)
                ] or ([] if read.error else [(read.path, "no face", None, None, None, "")])
    if rows:
        table(None, ["file", "box", "size", "score", "quality", "faults"], rows)
    raise typer.Exit(NOT_ALL if failed else DONE)


def verify(
    first: Annotated[Path, typer.Argument(help="An image of one person.")],
    second: Annotated[Path, typer.Argument(help="Another image.")],
    threshold: Limit = None,
    largest: Largest = False,
    as_json: AsJson = False,
) -> None:
    """Do two images show the same person?

    Exit code 0: yes; 1: that was not shown; 2: it could not be told.
    """
    from sphereid.gallery.thresholds.calibration import verification_threshold
    from sphereid.gallery.types import Threshold
    from sphereid.recognition.models import impostor_calibration

    with session() as service:
        faces = [_only_face(read, largest) for read in service.read(expand([str(first), str(second)]))]
        if len(faces) == 1:  # the same file twice
            faces *= 2
        vectors = [_vector(face) for face in faces]
        calibration = impostor_calibration(service.manifest)
        limit = verification_threshold(calibration, service.settings.verification_fmr)
    if threshold is not None:
        limit = Threshold(threshold, "cosine")
    similarity = max(-1.0, min(1.0, float(vectors[0] @ vectors[1])))
    match = similarity >= limit.value
    if as_json:
        answer = {
            "decision": "match" if match else "unknown",
            "similarity": round(similarity, 6),
            "threshold": round(limit.value, 6),
        }
        typer.echo(json.dumps(answer))
    else:
        verdict = "the same person" if match else "not shown to be the same person"
        typer.echo(f"{verdict}: similarity {similarity:.3f}, threshold {limit.value:.3f}")
    raise typer.Exit(DONE if match else NOT_ALL)


def enroll(
    identity: Annotated[str | None, typer.Argument(help="Id of the person, such as alice.")] = None,
    paths: Annotated[
        list[str] | None, typer.Argument(help="Image files, folders or quoted globs.", metavar="PATHS...")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The person's name.")] = None,
    people: Annotated[
        Path | None,
        typer.Option(help="Instead: a folder with one folder of images a person, or one image a person."),
    ] = None,
    gallery_id: GalleryName = "default",
    largest: Largest = False,
    quality: Gate = "normal",
    refuse_duplicates: Annotated[
        bool, typer.Option(help="Refuse faces that belong to somebody already.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Enroll people into a gallery.

    One: sphereid enroll alice alice.jpg --name Alice. Many at once: sphereid enroll --people portraits/
    """
    from sphereid.faces.crops import pack
    from sphereid.gallery.errors import ConflictError
    from sphereid.gallery.types import NewFace

    if (people is None) == (identity is None or not paths):
        raise typer.BadParameter("give an identity and its images, or --people FOLDER")
    crowd = _crowd(people) if people is not None else {str(identity): expand(paths or [])}
    rows: list[Sequence[object]] = []
    left_out = 0
    total = sum(len(files) for files in crowd.values())
    with session() as service, progress("Enrolling", total) as advance:
        gallery = service.gallery(gallery_id)
        keep = gallery.get_gallery(gallery_id).keep_crops
        for who, files in crowd.items():
            new: list[NewFace] = []
            for read in service.read(files):
                advance()
                trouble, face = _candidate(read, largest)
                if face is not None and (reasons := gate(face.face, quality)):
                    trouble = f"the face is not good enough ({', '.join(reasons)}); --quality off takes it"
                if trouble or face is None:
                    left_out += 1
                    note(f"{read.path}: left out: {trouble}")
                    continue
                assert face.embedding is not None
                assert read.image is not None
                new.append(
                    NewFace(
                        vector=face.embedding.vector,
                        contract=face.embedding.contract,
                        quality=face.face.quality.score if face.face.quality else 0.0,
                        detection_score=face.face.score,
                        source=read.path.name[:200],
                        crop=pack(read.image, face.face) if keep else None,
                    )
                )
            if not new:
                continue
            try:
                enrolled = gallery.enroll(
                    gallery_id, who, new, create=True, name=name, strict=refuse_duplicates
                )
            except ConflictError as error:
                left_out += len(new)
                fail(f"{who}: {error}")
                continue
            also = sorted({each.identity_id for each in enrolled.duplicates})
            if as_json:
                line = {
                    "identity": who,
                    "faces": [each.id for each in enrolled.faces],
                    "duplicates": [
                        {"identity": each.identity_id, "similarity": round(each.similarity, 6)}
                        for each in enrolled.duplicates
                    ],
                }
                typer.echo(json.dumps(line))
            rows.append((who, len(enrolled.faces), ", ".join(also)))
    if rows and not as_json:
        table(None, ["identity", "faces enrolled", "resembles"], rows)
    raise typer.Exit(NOT_ALL if left_out else DONE)


def identify(
    paths: Paths,
    gallery_id: GalleryName = "default",
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write the image with boxes and names; a folder for several images."),
    ] = None,
    threshold: Limit = None,
    top: Annotated[int, typer.Option("-k", min=1, max=100, help="Most candidates a face.")] = 5,
    unique: Annotated[bool, typer.Option(help="Give no identity to two faces of one image.")] = False,
    min_score: MinScore = None,
    min_face: MinFace = None,
    as_json: AsJson = False,
) -> None:
    """Who is on these images?

    sphereid identify party.jpg --out named.jpg writes the image with boxes and names.
    """
    import numpy as np

    from sphereid.api import views

    files = expand(paths)
    if out is not None:
        _check_target(out, files)
    rows: list[Sequence[object]] = []
    failed = 0
    with session() as service, progress("Identifying", len(files)) as advance:
        gallery = service.gallery(gallery_id)
        for read in service.read(files, min_score=min_score, min_face=min_face):
            advance()
            failed += _complain(read)
            vectors = [_vector(face) for face in read.faces]
            size = service.manifest.embedding_size
            decisions, _ = gallery.identify(
                gallery_id,
                np.stack(vectors) if vectors else np.empty((0, size), np.float32),
                service.manifest.contract,
                k=top,
                threshold=threshold,
                assign_unique=unique,
            )
            ids = {c.identity_id for decision in decisions for c in decision.candidates}
            known = gallery.identities(gallery_id, sorted(ids))
            if out is not None and read.image is not None:
                _draw(read, decisions, out if len(files) == 1 and not out.is_dir() else out / read.path.name)
            if as_json:
                named = [
                    views.identified(face.face, decision, known).model_dump(mode="json")
                    for face, decision in zip(read.faces, decisions, strict=True)
                ]
                _print(read, named)
            else:
                rows += _identify_rows(read, decisions, known)
    if rows:
        table(None, ["file", "box", "decision", "identity", "similarity", "threshold"], rows)
    raise typer.Exit(NOT_ALL if failed else DONE)


def _identify_rows(
    read: Read, decisions: "list[Decision]", known: "dict[str, Identity]"
) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = []
    for face, decision in zip(read.faces, decisions, strict=True):
        who: str = ""
        if decision.identity is not None:
            who = decision.identity.name or decision.identity.id
        elif decision.candidates:
            nearest = known.get(decision.candidates[0].identity_id)
            who = f"(nearest: {nearest.name if nearest else decision.candidates[0].identity_id})"
        box, _ = _corner(face)
        rows.append((read.path, box, decision.outcome, who, decision.similarity, decision.threshold.value))
    if not rows and read.error is None:
        rows.append((read.path, "no face", "", "", None, None))
    return rows


def _draw(read: Read, decisions: "list[Decision]", target: Path) -> None:
    """Write the image, as it was decoded, with a box and a name for each face."""
    import cv2

    from sphereid.faces.annotate import Mark, annotate

    assert read.image is not None
    marks = [
        Mark(
            box_xyxy=face.face.box_xyxy * read.image.scale,
            label=(decision.identity.name or decision.identity.id) if decision.identity else decision.outcome,
            similarity=decision.similarity,
            identity=decision.identity.id if decision.identity else None,
        )
        for face, decision in zip(read.faces, decisions, strict=True)
    ]
    drawn = annotate(read.image.pixels, marks)
    done, encoded = cv2.imencode(target.suffix.lower(), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"{target} could not be written as {target.suffix}")
    target.write_bytes(encoded.tobytes())


def _check_target(out: Path, files: Sequence[Path]) -> None:
    """Raises ValueError before any work when the result could not be written, or would replace a source."""
    writable = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
    if len(files) > 1 or out.is_dir() or not out.suffix:
        out.mkdir(parents=True, exist_ok=True)
        targets = [out / file.name for file in files]
        if len(set(targets)) < len(targets):
            raise ValueError(f"two of the images have the same name; they cannot both go to {out}")
    else:
        targets = [out]
    for target in targets:
        if target.suffix.lower() not in writable:
            raise ValueError(f"{target}: write .jpg, .png, .webp, .bmp or .tiff")
        if not target.parent.is_dir():
            raise ValueError(f"{target}: there is no folder {target.parent}")
        if any(target.exists() and target.samefile(file) for file in files):
            raise ValueError(f"{target} is one of the images; choose another place for the result")


def _crowd(folder: Path) -> dict[str, list[Path]]:
    """Ids and images of the people in a folder: each sub-folder, or each loose image, is one."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    crowd: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            crowd[_slug(entry.name)] = expand([str(entry)])
        elif entry.suffix.lower() in IMAGE_SUFFIXES:
            crowd.setdefault(_slug(entry.stem), []).append(entry)
    if not crowd:
        raise ValueError(f"no image in the folder {folder}")
    return crowd


def _slug(name: str) -> str:
    """A file name as an id."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
    return plain.strip("._-")[:64] or "unnamed"


def _candidate(read: Read, largest: bool) -> "tuple[str, AnalyzedFace | None]":
    """(what is wrong, the face to take)."""
    if read.error is not None:
        return str(read.error), None
    if not read.faces:
        return "no face was found", None
    if len(read.faces) > 1 and not largest:
        return f"{len(read.faces)} faces were found; --largest takes the largest", None
    return "", read.faces[0]


def _only_face(read: Read, largest: bool) -> "AnalyzedFace":
    trouble, face = _candidate(read, largest)
    if face is None:
        raise ValueError(f"{read.path}: {trouble}")
    return face


def _vector(face: "AnalyzedFace") -> Any:
    assert face.embedding is not None
    return face.embedding.vector


def _complain(read: Read) -> bool:
    if read.error is not None:
        fail(f"{read.path}: {read.error}")
    return read.error is not None


def _corner(face: "AnalyzedFace") -> tuple[str, str]:
    left, top, right, bottom = (round(float(v)) for v in face.face.box_xyxy)
    return f"{left},{top}", f"{right - left}x{bottom - top}"


def _print(read: Read, faces: list[dict[str, Any]]) -> None:
    line: dict[str, Any] = {"file": str(read.path), "faces": faces}
    if read.error is not None:
        line["error"] = {"code": read.error.code, "detail": str(read.error)}
    typer.echo(json.dumps(line))
