"""A quick verification test on held-out identities, run while training."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sphereid_training.data.augment import center_view
from sphereid_training.data.store import FaceStore
from sphereid_training.evaluation.embedding import embed
from sphereid_training.evaluation.verification import k_fold, tar_at_far


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """Fixed pairs of held-out faces. crops: (M, H, W, 3) uint8; pairs: (P, 2) rows of it; same: (P,)."""

    crops: NDArray[np.uint8]
    pairs: NDArray[np.int64]
    same: NDArray[np.bool_]

    def measure(self, backbone: nn.Module) -> dict[str, float]:
        """Ten-fold accuracy and, with 100 impostor pairs or more, TAR at FAR 1 %; with the flip sum."""
        vectors = embed(backbone, self.crops)
        similarity = np.sum(vectors[self.pairs[:, 0]] * vectors[self.pairs[:, 1]], axis=1).astype(np.float64)
        fold = np.arange(len(self.same)) % 10
        result = {"accuracy": k_fold(similarity, self.same, fold).accuracy}
        if int((~self.same).sum()) >= 100:
            result["tar_at_far_1%"] = tar_at_far(similarity, self.same, 0.01)[0]
        return result


def make_validation(
    store: FaceStore, held_out: NDArray[np.bool_], *, template: str, pool: int, pairs: int, seed: int = 0
) -> Validation | None:
    """`pairs` genuine and `pairs` impostor pairs among held-out faces, impostors within one group.

    None when the held-out identities can't form pairs.
    """
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(held_out & (store.identity >= 0))
    identity, group = store.identity[rows], store.group[rows]
    genuine: list[tuple[int, int]] = []
    members = [rows[identity == value] for value in np.unique(identity)]
    members = [m for m in members if len(m) >= 2]
    if not members or len(np.unique(identity)) < 2:
        return None
    while len(genuine) < pairs:
        for m in members:
            a, b = rng.choice(m, 2, replace=False)
            genuine.append((int(a), int(b)))
    impostor: list[tuple[int, int]] = []
    while len(impostor) < pairs:
        a, b = rng.integers(0, len(rows), 2)
        alone = len(np.unique(identity[group == group[a]])) < 2
        if identity[a] != identity[b] and (alone or group[a] == group[b]):
            impostor.append((int(rows[a]), int(rows[b])))
    picked = np.array([p for both in zip(genuine[:pairs], impostor[:pairs], strict=True) for p in both])
    used, position = np.unique(picked, return_inverse=True)
    crops = center_view(np.asarray(store.images[used]), template, pool)
    # Genuine and impostor alternate; two by two they share a fold, so that every fold is balanced.
    order = np.concatenate([np.arange(0, 2 * pairs, 2), np.arange(1, 2 * pairs, 2)])
    same = np.concatenate([np.ones(pairs, bool), np.zeros(pairs, bool)])
    return Validation(crops, position.reshape(-1, 2)[order], same)
