"""What the gallery asks of an index."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sphereid.gallery.types import Vectors

Keys = NDArray[np.int64]
"""(N,) int64, each at least 0 and unique within an index."""

_FEW = 8
"""Keys that are looked for one by one: among a million that takes a fifth of the time of `isin`, and searches
wait for it."""

_NOWHERE = np.empty(0, np.intp)

Similarities = NDArray[np.float32]


def sink(target: Path | Any) -> Any:
    """What FAISS takes to write to or read from: a path as text, or its own reader or writer."""
    return str(target) if isinstance(target, Path) else target


def places_of(keys: Keys, wanted: Keys) -> NDArray[np.intp]:
    """Where some of the keys are, rising; those that are not there are left out."""
    if len(wanted) > _FEW:
        return np.flatnonzero(np.isin(keys, wanted))
    return np.sort(np.concatenate([np.flatnonzero(keys == key) for key in wanted] or [_NOWHERE]))


class VectorIndex(Protocol):
    """Unit vectors by key, searched by inner product. Not thread-safe: the caller lets one writer or many
    readers in.

    kind: a name of `sphereid.gallery.index.kinds.KINDS`. dimension: D. exact: every stored vector is
    compared. lossless: the vectors are stored as they came, so that similarities are true cosines.
    worn: it has changed so much that one built anew would serve better.
    """

    @property
    def kind(self) -> str: ...

    @property
    def exact(self) -> bool: ...

    @property
    def lossless(self) -> bool: ...

    @property
    def worn(self) -> bool: ...

    @property
    def dimension(self) -> int: ...

    def __len__(self) -> int: ...

    def keys(self) -> Keys:
        """(N,) int64 in no particular order."""
        ...

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """keys (M,), none of them in the index; vectors (M, D) float32 of norm 1."""
        ...

    def remove(self, keys: Keys) -> int:
        """Forget them, vectors included; returns how many there were."""
        ...

    def search(self, queries: Vectors, k: int) -> tuple[Similarities, Keys]:
        """queries (Q, D) float32 -> similarities and keys, both (Q, min(k, N)), best first.

        Where an approximate kind found fewer, the rest is -inf with key -1. Equal similarities come in any
        order.
        """
        ...

    def save(self, target: Path | Any) -> None:
        """Write it to a file, or through a `faiss.IOWriter`; `load_index` reads it back."""
        ...
