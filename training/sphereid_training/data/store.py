"""Aligned faces unpacked once into one memory-mapped array, with identities and teacher descriptors beside
it.

A store is a folder: `images.npy` (N, 128, 128, 3) uint8 RGB, the 112×112 face at [8:120, 8:120]; `meta.npz`
with `name` and `identity` (N,), −1 where unlabeled; optionally `teacher.npy` (N, D) float32.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sphereid_training.errors import TrainingError

CANVAS = 128
BORDER = 8


@dataclass(frozen=True, slots=True, eq=False)
class Centering:
    """How a teacher's descriptors become targets: length 1, less `mean` (D,), times `scale`.

    Lengths say how good a picture is, not who is on it: centering without the first step mixes the two.
    """

    mean: NDArray[np.float32]
    scale: np.float32

    @classmethod
    def fit(cls, descriptors: NDArray[np.float32], share: float = 1.0) -> Self:
        """Of (N, D) descriptors: `share` of their mean to subtract, and what brings them to a mean length
        of 1."""
        unit = _unit(descriptors)
        mean = share * unit.mean(axis=0)
        return cls(mean, 1 / np.linalg.norm(unit - mean, axis=1).mean())

    def apply(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, D) descriptors to (N, D) targets."""
        targets: NDArray[np.float32] = (_unit(descriptors) - self.mean) * self.scale
        return targets


def _unit(descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
    return unit


@dataclass(frozen=True, slots=True, eq=False)
class FaceStore:
    """images: (N, 128, 128, 3) uint8, memory-mapped. name: (N,) `GROUP/IDENTITY/FILE`. identity: (N,)
    int64, −1 where unknown. teacher: (N, D) float32 descriptors, mean-centred as asked for and scaled to a
    mean length of 1, or None; centering: what did that to them."""

    images: NDArray[np.uint8]
    name: NDArray[np.str_]
    identity: NDArray[np.int64]
    teacher: NDArray[np.float32] | None
    centering: Centering | None = None

    @property
    def group(self) -> NDArray[np.str_]:
        """(N,) the first folder of every name."""
        return np.array([name.split("/", 1)[0] for name in self.name])


def open_store(folder: Path, center: float = 1.0) -> FaceStore:
    """Map a store made by `prepare`. center: share of the teacher's mean to subtract.

    Raises TrainingError when it is absent or unfinished.
    """
    try:
        meta = np.load(folder / "meta.npz", allow_pickle=False)
        images = np.load(folder / "images.npy", mmap_mode="r")
    except FileNotFoundError as error:
        raise TrainingError(
            f"no prepared faces at {folder} ({Path(str(error.filename)).name} is missing); "
            "run `python -m training prepare` first"
        ) from None
    names, identity = meta["name"], meta["identity"].astype(np.int64)
    if not len(images) == len(names) == len(identity):
        raise TrainingError(
            f"{folder} is inconsistent: {len(images)} images, {len(names)} names; prepare it again"
        )
    teacher = centering = None
    if (folder / "teacher.npy").exists():
        descriptors = np.load(folder / "teacher.npy").astype(np.float32)
        centering = Centering.fit(descriptors, center)
        teacher = centering.apply(descriptors)
    return FaceStore(images, names, identity, teacher, centering)


def held_out(identity: NDArray[np.int64], percent: int) -> NDArray[np.bool_]:
    """(N,) True for images of the identities kept out of training.

    An identity is in or out by a hash of its number, so the split survives added data.
    """
    known = np.unique(identity[identity >= 0])
    out = [i for i in known if int(hashlib.sha256(f"identity {i}".encode()).hexdigest(), 16) % 100 < percent]
    return np.isin(identity, out)


def class_labels(
    identity: NDArray[np.int64], usable: NDArray[np.bool_], min_images: int
) -> tuple[NDArray[np.int64], int]:
    """(N,) class numbers 0…C−1, −1 for images of no class, and C.

    A class is an identity with at least `min_images` usable images.
    """
    kept = usable & (identity >= 0)
    values, counts = np.unique(identity[kept], return_counts=True)
    classes = values[counts >= min_images]
    position = np.searchsorted(classes, identity)
    position = np.clip(position, 0, max(len(classes) - 1, 0))
    match = kept & (classes[position] == identity) if len(classes) else np.zeros_like(kept)
    return np.where(match, position, -1), len(classes)
