"""A gallery as one Parquet file that any tool reads, and the way back.

One row a face, with its identity beside it; an identity without faces has a row whose face columns are null.
The file's metadata, under `sphereid`, is JSON: the embedding contract, their length, and the gallery's rules.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import numpy as np
from sqlalchemy import Connection, select

from sphereid.gallery import store, validation
from sphereid.gallery.bulk_enrollment import NewPerson
from sphereid.gallery.errors import ContractMismatchError, InvalidRequestError
from sphereid.gallery.service import GalleryService
from sphereid.gallery.store.tables import FACES, IDENTITIES
from sphereid.gallery.types import CosinePolicy, FpirPolicy, Gallery, GalleryRules, NewFace, TemplatePolicy

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT: Final = 1
KEY: Final = b"sphereid"
CHUNK: Final = 5_000
"""Rows that are in memory at a time, and of one row group."""

_WRITE: Final = 500
"""Rows of one write on the way back: what goes on meanwhile waits for no more."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the file says about the gallery that it came from. contract, dimension: None without faces."""

    gallery: str
    name: str
    metadata: Mapping[str, Any]
    policy: Mapping[str, Any]
    ambiguity_margin: float
    template: str
    contract: str | None
    dimension: int | None
    revision: int
    exported_at: str
    format: int = FORMAT

    @property
    def rules(self) -> GalleryRules:
        """For a gallery that is made to take the file. Raises InvalidRequestError."""
        try:
            cosine = self.policy["type"] == "cosine"
            value = float(self.policy["value" if cosine else "target"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRequestError("the file names no policy that this version knows") from error
        policy = CosinePolicy(value) if cosine else FpirPolicy(value)
        rules = GalleryRules(policy, self.ambiguity_margin, cast(TemplatePolicy, self.template))
        validation.rules(rules)
        return rules


@dataclass(frozen=True, slots=True)
class Written:
    """What is in an exported file."""

    identities: int
    faces: int
    revision: int
    contract: str | None


@dataclass(frozen=True, slots=True)
class Restored:
    """What an import of such a file did. present: faces that were there already."""

    identities: int
    enrolled: int
    present: int


Tell = Callable[[int, int], None]
"""Gets told how many rows are done, of how many. What it raises ends the work."""


def export(
    service: GalleryService, gallery_id: str, target: BinaryIO, tell: Tell = lambda done, all: None
) -> Written:
    """Write a gallery to an open file, while it goes on serving. It is read in pieces: of what is enrolled or
    deleted meanwhile, some is in the file and some not. Crops are not in it. Raises OSError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    gallery = service.get_gallery(gallery_id)
    with service.reading() as tx:
        dimension = store.dimension_of(tx, gallery_id)
    header = _header(gallery, dimension)
    schema = _schema().with_metadata({KEY: json.dumps(asdict(header)).encode()})
    total, faces, identities = gallery.faces, 0, 0
    with pq.ParquetWriter(target, schema, compression="zstd", use_dictionary=_DICTIONARY) as writer:
        owners: set[int] = set()
        for rows in _faces(service, gallery_id):
            owners.update(row.pop("owner") for row in rows)
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            faces += len(rows)
            tell(faces, max(total, faces))
        identities += len(owners)
        for rows in _without_faces(service, gallery_id):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            identities += len(rows)
    return Written(identities, faces, gallery.revision, gallery.contract)


def read_header(source: BinaryIO) -> Header:
    """What a file says about itself. Raises InvalidRequestError where it is none of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(source)
        header = Header(**json.loads((schema.metadata or {})[KEY]))
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidRequestError("this is no Parquet file that an export of a gallery wrote") from error
    if header.format != FORMAT:
        raise InvalidRequestError(
            f"the file has format {header.format}; this version reads {FORMAT}: upgrade SphereID"
        )
    missing = set(_schema().names) - set(schema.names)
    if missing:
        raise InvalidRequestError(f"the file lacks the columns {', '.join(sorted(missing))}")
    return header


def restore(
    service: GalleryService,
    gallery_id: str,
    source: BinaryIO,
    tell: Tell = lambda done, all: None,
) -> Restored:
    """Put what `export` wrote into a gallery, as it was: ids, names, times and every bit of the embeddings.

    Faces whose id is there already stay as they are, so that it can be repeated, or go on where it was
    interrupted. An id that another gallery of this database uses is replaced by one that follows from it.
    Raises ContractMismatchError where the gallery holds another model's embeddings, InvalidRequestError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    header = read_header(source)
    gallery = service.get_gallery(gallery_id)
    if None not in (header.contract, gallery.contract) and header.contract != gallery.contract:
        raise ContractMismatchError(
            f"the file holds embeddings of contract {header.contract}, gallery {gallery_id!r} those of "
            f"{gallery.contract}, and the two cannot be compared: import it into a new gallery, or import "
            "the photographs instead"
        )
    identities = enrolled = present = done = 0
    try:
        with pq.ParquetFile(source) as file:
            total = file.metadata.num_rows
            for batch in file.iter_batches(batch_size=_WRITE, columns=_schema().names):
                result, _ = service.enroll_many(gallery_id, _people(batch, header))
                identities += result.identities
                enrolled += len(result.enrolled)
                present += len(result.present)
                done += batch.num_rows
                tell(done, total)
    except (pa.ArrowException, OSError) as error:
        raise InvalidRequestError(f"the file is damaged: {error}") from error
    return Restored(identities, enrolled, present)


_DICTIONARY: Final = ["identity_id", "identity_name", "identity_metadata", "contract", "source"]


def _schema() -> "pa.Schema":
    import pyarrow as pa

    time = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            pa.field("identity_id", pa.string(), nullable=False),
            pa.field("identity_name", pa.string(), nullable=False),
            pa.field("identity_metadata", pa.string(), nullable=False),
            pa.field("identity_created_at", time, nullable=False),
            pa.field("identity_updated_at", time, nullable=False),
            pa.field("face_id", pa.string()),
            pa.field("contract", pa.string()),
            pa.field("embedding", pa.list_(pa.float32())),
            pa.field("quality", pa.float64()),
            pa.field("detection_score", pa.float64()),
            pa.field("source", pa.string()),
            pa.field("face_created_at", time),
        ]
    )


def _header(gallery: Gallery, dimension: int | None) -> Header:
    return Header(
        gallery=gallery.id,
        name=gallery.name,
        metadata=dict(gallery.metadata),
        policy=asdict(gallery.policy),
        ambiguity_margin=gallery.ambiguity_margin,
        template=gallery.template,
        contract=gallery.contract,
        dimension=dimension,
        revision=gallery.revision,
        exported_at=datetime.now(UTC).isoformat(),
    )


def _faces(service: GalleryService, gallery_id: str) -> Iterator[list[dict[str, Any]]]:
    """Rows of all faces, by rising number; each piece is a transaction of its own, as a long one would hold
    up the write-ahead log."""
    last = -1
    while True:
        with service.reading() as tx:
            numbers, vectors = store.vectors_after(tx, gallery_id, last, CHUNK)
            if not len(numbers):
                return
            details = _details(tx, gallery_id, int(numbers[0]), int(numbers[-1]))
        yield [
            details[number] | {"embedding": vector}
            for number, vector in zip(numbers.tolist(), vectors, strict=True)
        ]
        last = int(numbers[-1])


def _details(tx: Connection, gallery_id: str, first: int, last: int) -> dict[int, dict[str, Any]]:
    f, i = FACES.c, IDENTITIES.c
    query = (
        select(f.number, f.id, f.contract, f.quality, f.detection_score, f.source, f.created_at)
        .add_columns(i.number.label("owner"), i.id.label("identity_id"), i.name, i.metadata.label("details"))
        .add_columns(i.created_at.label("made"), i.updated_at.label("changed"))
        .join(IDENTITIES, i.number == f.identity_number)
        .where(f.gallery_id == gallery_id, f.number.between(first, last))
    )
    return {
        row.number: _identity_columns(row.identity_id, row.name, row.details, row.made, row.changed)
        | {
            "owner": row.owner,
            "face_id": row.id,
            "contract": row.contract,
            "quality": row.quality,
            "detection_score": row.detection_score,
            "source": row.source,
            "face_created_at": row.created_at,
        }
        for row in tx.execute(query)
    }


def _without_faces(service: GalleryService, gallery_id: str) -> Iterator[list[dict[str, Any]]]:
    i = IDENTITIES.c
    last = -1
    while True:
        query = select(IDENTITIES).where(i.gallery_id == gallery_id, i.faces == 0, i.number > last)
        with service.reading() as tx:
            rows = tx.execute(query.order_by(i.number).limit(CHUNK)).all()
        if not rows:
            return
        yield [_identity_columns(r.id, r.name, r.metadata, r.created_at, r.updated_at) for r in rows]
        last = rows[-1].number


def _identity_columns(
    id: str, name: str, metadata: Mapping[str, Any], made: datetime, changed: datetime
) -> dict[str, Any]:
    return {
        "identity_id": id,
        "identity_name": name,
        "identity_metadata": json.dumps(metadata),
        "identity_created_at": made,
        "identity_updated_at": changed,
    }


def _people(batch: "pa.RecordBatch", header: Header) -> list[NewPerson]:
    """The identities of some rows, in their order, each with its faces there."""
    embeddings = batch.column("embedding")
    rows = batch.drop_columns(["embedding"]).to_pylist()
    flat = np.asarray(embeddings.flatten(), dtype=np.float32)
    ends = np.cumsum([0 if length is None else length for length in embeddings.value_lengths().to_pylist()])
    people: dict[str, NewPerson] = {}
    for row, start, end in zip(rows, [0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        try:
            metadata = json.loads(row["identity_metadata"])
        except ValueError as error:
            raise InvalidRequestError("an identity's metadata is no JSON") from error
        if not isinstance(metadata, dict):
            raise InvalidRequestError("an identity's metadata is no JSON object")
        before = people.get(row["identity_id"])
        faces = [] if before is None else list(before.faces)
        if row["face_id"] is not None:
            faces.append(_face(row, flat[start:end], header))
        people[row["identity_id"]] = NewPerson(
            id=row["identity_id"],
            faces=faces,
            name=row["identity_name"],
            metadata=metadata,
            created_at=row["identity_created_at"],
            updated_at=row["identity_updated_at"],
        )
    return list(people.values())


def _face(row: Mapping[str, Any], vector: "np.ndarray[Any, np.dtype[np.float32]]", header: Header) -> NewFace:
    if row["contract"] != header.contract or len(vector) != header.dimension:
        raise InvalidRequestError(f"face {row['face_id']!r} is not of the model that the file names")
    return NewFace(
        vector=vector,
        contract=row["contract"],
        quality=row["quality"],
        detection_score=row["detection_score"],
        source=row["source"],
        id=row["face_id"],
        created_at=row["face_created_at"],
    )
