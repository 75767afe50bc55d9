"""BLUFR's two questions (Liao et al., IJCB 2014) on random splits: verification over all pairs, and open-set
identification, each at a low false accept rate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.openset import OpenSet, search
from training.evaluation.streaming import trillion

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Trial:
    """One random split. vr: verification rate by FAR. dir: detection and identification rate (rank 1) by
    FAR, which is the share of strangers that get a name. identities, images: in the test part."""

    vr: dict[float, float]
    dir: dict[float, float]
    search: OpenSet
    identities: int
    images: int


def blufr(
    features: FloatArray,
    identity: NDArray[np.int64],
    *,
    gallery: int = 1000,
    trials: int = 10,
    test_share: float = 0.74,
    vr_fars: Sequence[float] = (1e-3, 1e-2),
    dir_fars: Sequence[float] = (1e-2, 1e-1),
    seed: int = 0,
) -> list[Trial]:
    """Random splits by identity. features: (N, D) unit rows; identity: (N,).

    In each, `test_share` of the identities are tested (the rest is BLUFR's training part, which a ready model
    does not need). Verification takes all their pairs. Identification enrolls one image each of `gallery`
    of them; their other images are genuine probes, the images of the others are strangers. A FAR that a
    trial's scores can't show is left out. Raises ValueError when there are too few identities.
    """
    rng = np.random.default_rng(seed)
    people = np.unique(identity)
    count = round(test_share * len(people))
    made = []
    for _ in range(trials):
        rows = np.flatnonzero(np.isin(identity, rng.choice(people, count, replace=False)))
        x, who = features[rows], identity[rows]
        values, counts = np.unique(who, return_counts=True)
        several = values[counts >= 2]
        if len(several) < gallery or len(values) <= gallery:
            raise ValueError(
                f"a gallery of {gallery} needs as many identities with two images, and strangers besides; "
                f"the test part has {len(several)} of {len(values)}"
            )
        pairs = trillion(x, who, (), total=0, fars=vr_fars)
        enrolled = np.array(
            [rng.choice(np.flatnonzero(who == person)) for person in rng.choice(several, gallery, False)]
        )
        probe = np.ones(len(who), bool)
        probe[enrolled] = False
        found = search(x[enrolled].astype(np.float64), who[enrolled], x[probe].astype(np.float64), who[probe])
        rates = {far: 1 - found.fnir_at(far)[0] for far in dir_fars if far * len(found.non_mated) >= 1 - 1e-9}
        vr = {row.far: row.tpr for row in pairs.rows}
        made.append(Trial(vr, rates, found, len(values), len(rows)))
    return made
