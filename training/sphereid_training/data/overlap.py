"""Training identities that a test set also has: by name, and by face."""

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from sphereid.faces.embed import OnnxEmbedder

from sphereid_training.data.augment import center_view
from sphereid_training.errors import TrainingError
from sphereid_training.evaluation import lfw
from sphereid_training.evaluation.inputs import bar, view_of
from sphereid_training.evaluation.photographs import describe, person_of, photographs

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class HeldOutSet:
    """What must not be trained on.

    source: photographs (PERSON/IMAGE, a folder or tar), or a pair list, which gives names alone. model: a
    model folder, to compare faces too. similarity: from which on two people count as one (None: the strictest
    of the model's calibration). cache: where features of the photographs are kept.
    """

    source: Path
    model: Path | None = None
    similarity: float | None = None
    cache: Path = Path("runs/cache")

    @property
    def names(self) -> set[str]:
        """Names of its people, as their folders or the pair list have them."""
        if self.source.suffix == ".txt":
            return {person_of(name) for name in lfw.read_pairs(self.source).names}
        return {person_of(name) for name, _ in photographs(self.source)}


def plain(name: str) -> str:
    """A name without case, accents, or what separates its words: `José_Ángel` and `jose angel` are one.

    Folded twice, since a compatibility form can hide a capital (Unicode §3.13, D146: `ᴬ` becomes `A`).
    """
    folded = unicodedata.normalize("NFD", name)
    for _ in range(2):
        folded = unicodedata.normalize("NFKD", folded.casefold())
    return "".join(c for c in folded if c.isalnum())


def same_names(identities: Iterable[str], test: Iterable[str]) -> dict[str, str]:
    """Identities whose name a test set also has, with the name as it stands there."""
    known = {plain(name): name for name in test if plain(name)}
    return {identity: known[plain(identity)] for identity in identities if plain(identity) in known}


def centers(features: FloatArray, group: NDArray[np.int64]) -> tuple[NDArray[np.int64], FloatArray]:
    """(G,) group numbers, rising, and (G, D) unit means of (N, D) features by (N,) group."""
    values, member = np.unique(group, return_inverse=True)
    sums = np.zeros((len(values), features.shape[1]))
    np.add.at(sums, member, features)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return values, (sums / np.maximum(lengths, 1e-12)).astype(np.float32)


def nearest(
    rows: FloatArray, others: FloatArray, *, block: int = 4096
) -> tuple[NDArray[np.int64], FloatArray]:
    """(N,) index and similarity of the most similar of (M, D) others for (N, D) unit rows."""
    index, best = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.float32)
    for start in range(0, len(rows), block):
        scores = rows[start : start + block] @ others.T
        index[start : start + block] = scores.argmax(axis=1)
        best[start : start + block] = scores.max(axis=1)
    return index, best


def same_faces(
    images: NDArray[np.uint8],
    names: list[str],
    unlabelled: str,
    test: HeldOutSet,
    console: Console,
) -> dict[int, str]:
    """Rows of (N, 128, 128, 3) canvases to drop, with the reason.

    The mean face of every identity is compared with that of every person of the test set; faces of the folder
    `unlabelled` are compared one by one. names: (N,) GROUP/IDENTITY/FILE.
    """
    assert test.model is not None
    embedder = OnnxEmbedder.load(test.model, precision="fp32")
    limit = _limit(embedder, test)
    described = describe(
        test.source, embedder, cache=test.cache, aligned=False, what="embed the test set", console=console
    )
    rows, found = described.load()
    people = np.array([person_of(name) for name in described.names])[found]
    titles, number = np.unique(people, return_inverse=True)
    _, test_centers = centers(rows[found], number)
    features = _embed(images, embedder, console)
    # An identity is one group; every unlabelled face is a group of its own.
    keys = [name if person_of(name) == unlabelled else person_of(name) for name in names]
    _, group = np.unique(keys, return_inverse=True)
    _, train_centers = centers(features, group)
    index, best = nearest(train_centers, test_centers)
    return {
        row: f"looks like {titles[index[g]]} of the test set ({best[g]:.2f})"
        for row, g in enumerate(group)
        if best[g] >= limit
    }


def _limit(embedder: OnnxEmbedder, test: HeldOutSet) -> float:
    if test.similarity is not None:
        return test.similarity
    calibration = embedder.manifest.calibration
    if calibration is None:
        raise TrainingError(f"model {embedder.name} is not calibrated: say --exclude-similarity")
    return calibration.quantiles[-1].similarity


def _embed(images: NDArray[np.uint8], embedder: OnnxEmbedder, console: Console) -> FloatArray:
    view = view_of(embedder.manifest)
    features = np.empty((len(images), embedder.dim), np.float32)
    with bar(console) as progress:
        task = progress.add_task("compare with the test set", total=len(images))
        for start in range(0, len(images), 256):
            part = np.asarray(images[start : start + 256])
            features[start : start + len(part)] = embedder.embed(center_view(part, view))
            progress.update(task, completed=start + len(part))
    return features


def compact(images: NDArray[np.uint8], keep: Callable[[int], bool]) -> list[int]:
    """Move the rows to keep to the front of a memory-mapped array, in place; returns their old numbers."""
    kept = [row for row in range(len(images)) if keep(row)]
    for new, old in enumerate(kept):
        if new != old:
            images[new] = images[old]
    return kept
