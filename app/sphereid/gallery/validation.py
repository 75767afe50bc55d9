"""What a caller may pass. Each check returns the value as the gallery keeps it, or raises
InvalidRequestError."""

import json
import math
import re
import secrets
import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from sphereid.gallery.errors import ContractMismatchError, InvalidRequestError
from sphereid.gallery.thresholds.calibration import check_policy
from sphereid.gallery.types import GalleryRules, MetadataFilter, NewFace, Strictness, TemplatePolicy, Vectors

NAME_LENGTH = 200
METADATA_BYTES = 16_384
MAX_LIMIT = 1000
MAX_TOP = 100
MAX_FILTERS = 8
NORM_TOLERANCE = 1e-3

_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Bidirectional embeddings, overrides and isolates: with them a name shows as another one."""

_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800")
"""Letters and symbols that Unicode calls visible and fonts draw as nothing."""

_FILTER_KEY = re.compile(r'[^"\\\x00-\x1f]{1,100}')
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def new_id() -> str:
    """24 hexadecimal digits: 12 of the time in ms, so that later ids sort later, and 12 at random."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(6)}"


def slug(value: str, what: str) -> str:
    if not _SLUG.fullmatch(value):
        raise InvalidRequestError(
            f"{value[:80]!r} is no {what} id: 1 to 64 letters, digits, '.', '_' or '-', "
            "starting with a letter or digit"
        )
    return value


def name(value: str | None, fallback: str) -> str:
    called = fallback if value is None else value.strip()
    if not 0 < len(called) <= NAME_LENGTH or "\x00" in called:
        raise InvalidRequestError(f"a name has 1 to {NAME_LENGTH} characters")
    if _TURNS.search(called) or not any(_visible(character) for character in called):
        raise InvalidRequestError(
            "a name needs a letter, digit or sign that can be seen, and no marks that turn the text around"
        )
    return called


def _visible(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNPS" and character not in _BLANK


def metadata(value: Mapping[str, Any]) -> dict[str, Any]:
    try:
        size = len(json.dumps(dict(value), allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"metadata must be JSON: {error}") from error
    if size > METADATA_BYTES:
        raise InvalidRequestError(f"metadata takes {size} bytes as JSON, {METADATA_BYTES} are allowed")
    return dict(value)


def metadata_filter(value: MetadataFilter) -> MetadataFilter:
    if len(value) > MAX_FILTERS:
        raise InvalidRequestError(f"a filter has at most {MAX_FILTERS} members, got {len(value)}")
    for key, wanted in value.items():
        if not _FILTER_KEY.fullmatch(key) or len(wanted) > NAME_LENGTH or "\x00" in wanted:
            raise InvalidRequestError(
                f"a filter names members of metadata with 1 to 100 characters, no quotes or backslashes, and "
                f"values of at most {NAME_LENGTH} characters"
            )
    return value


def rules(value: GalleryRules) -> None:
    check_policy(value.policy)
    if not 0 <= value.ambiguity_margin <= 2:
        raise InvalidRequestError(f"an ambiguity margin lies in [0, 2], got {value.ambiguity_margin}")
    if value.template not in get_args(TemplatePolicy):
        raise InvalidRequestError(
            f"template is one of {', '.join(get_args(TemplatePolicy))}; got {value.template!r}"
        )
    if value.quality not in get_args(Strictness):
        raise InvalidRequestError(
            f"quality is one of {', '.join(get_args(Strictness))}; got {value.quality!r}"
        )


def limit(value: int) -> int:
    if not 1 <= value <= MAX_LIMIT:
        raise InvalidRequestError(f"a list gives 1 to {MAX_LIMIT} items at a time, asked for {value}")
    return value


def top(k: int) -> int:
    if not 1 <= k <= MAX_TOP:
        raise InvalidRequestError(f"1 to {MAX_TOP} candidates can be asked for, got {k}")
    return k


def cosine(value: float) -> float:
    if not (math.isfinite(value) and -1 <= value <= 1):
        raise InvalidRequestError(f"a threshold is a cosine in [-1, 1], got {value}")
    return value


def probes(vectors: Vectors) -> Vectors:
    """(N, D) float32, finite, norm 1 within `NORM_TOLERANCE`."""
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.ndim != 2 or (len(array) and not array.shape[1]):
        raise InvalidRequestError(f"embeddings come as (N, D), got an array of shape {array.shape}")
    norms = np.linalg.norm(array, axis=1)
    if not np.all(np.abs(norms - 1) <= NORM_TOLERANCE):  # NaN fails it too
        raise InvalidRequestError("an embedding must be finite and of norm 1")
    return array


def new_faces(faces: Sequence[NewFace]) -> tuple[Vectors, str]:
    """The vectors (N, D) and the one contract of faces to enroll."""
    if not faces:
        raise InvalidRequestError("there is no face to enroll")
    if len({face.contract for face in faces}) > 1:
        raise ContractMismatchError("the faces of one call come from different models; enroll them with one")
    if len({np.shape(face.vector) for face in faces}) > 1:
        raise InvalidRequestError("the embeddings of one call have different lengths")
    for face in faces:
        for value in (face.quality, face.detection_score):
            if not math.isfinite(value):
                raise InvalidRequestError("quality and detection score must be finite")
        if face.source is not None and len(face.source) > 300:
            raise InvalidRequestError("a source has at most 300 characters")
    return probes(np.stack([np.asarray(face.vector) for face in faces])), faces[0].contract
