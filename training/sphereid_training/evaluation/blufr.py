"""BLUFR's two questions (Liao et al., IJCB 2014): verification over all pairs, and open-set identification,
each at a low false accept rate, on the published lists or on random splits."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sphereid_training.errors import TrainingError
from sphereid_training.evaluation.openset import OpenSet, search
from sphereid_training.evaluation.streaming import trillion

FloatArray = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trial:
    """What one split gave. vr: verification rate by FAR. dir: detection and identification rate (rank 1) by
    FAR, which is the share of strangers that get a name. identities, images: in the test part."""

    vr: dict[float, float]
    dir: dict[float, float]
    search: OpenSet
    identities: int
    images: int


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Row numbers of the photographs: test, all pairs of which are verified; gallery, one of each person
    enrolled; probes, of them and of strangers."""

    test: Rows
    gallery: Rows
    probes: Rows


def random_splits(
    identity: Rows, *, gallery: int = 1000, trials: int = 10, test_share: float = 0.74, seed: int = 0
) -> Iterator[Split]:
    """Splits by identity, (N,): `test_share` of the people are tested; the rest is BLUFR's training part,
    which a ready model does not need. One photograph each of `gallery` people is enrolled; all other
    photographs of the test part are probes. Raises ValueError when there are too few people."""
    rng = np.random.default_rng(seed)
    people = np.unique(identity)
    count = round(test_share * len(people))
    for _ in range(trials):
        test = np.flatnonzero(np.isin(identity, rng.choice(people, count, replace=False)))
        values, counts = np.unique(identity[test], return_counts=True)
        several = values[counts >= 2]
        if len(several) < gallery or len(values) <= gallery:
            raise ValueError(
                f"a gallery of {gallery} needs as many identities with two images, and strangers besides; "
                f"the test part has {len(several)} of {len(values)}"
            )
        chosen = rng.choice(several, gallery, False)
        enrolled = np.array([rng.choice(test[identity[test] == person]) for person in chosen])
        yield Split(test, enrolled, np.setdiff1d(test, enrolled))


def published_splits(path: Path, names: Sequence[str]) -> list[Split]:
    """The splits of BLUFR's own file, `blufr_lfw_config.mat`: `imageList` of file names, and for every trial
    `testIndex`, `galIndex` and `probIndex`, counted from 1 in that list. names: (N,) of the photographs, at
    any depth. A listed photograph that is not among them, for lack of a face, is left out, and so are all
    probes of a person whose enrolled photograph it is.

    Raises TrainingError when the file is none, or when none of its photographs is among the names.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        stored: dict[str, Any] = loadmat(path, simplify_cells=True)
        listed = [PurePosixPath(str(name)).stem for name in np.atleast_1d(stored["imageList"])]
        parts = [[np.atleast_1d(each).astype(np.int64) - 1 for each in stored[key]]
                 for key in ("testIndex", "galIndex", "probIndex")]  # fmt: skip
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror or error}") from None
    except (MatReadError, KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise TrainingError(f"{path} is not BLUFR's list of trials: {error}") from None
    highest = max(int(rows.max(initial=-1)) for part in parts for rows in part)
    if highest >= len(listed) or len({len(part) for part in parts}) != 1:
        raise TrainingError(f"{path} is not BLUFR's list of trials: its indices do not fit its images")
    place = {PurePosixPath(name).stem: row for row, name in enumerate(names)}
    row_of = np.array([place.get(name, -1) for name in listed])
    if (row_of < 0).all():
        raise TrainingError(f"none of the {len(listed)} photographs of {path.name} is there")
    person = np.array([name.rpartition("_")[0] for name in listed])
    splits = []
    for test, gallery, probes in zip(*parts, strict=True):
        lost = person[gallery[row_of[gallery] < 0]]
        kept = probes[(row_of[probes] >= 0) & ~np.isin(person[probes], lost)]
        there, enrolled = test[row_of[test] >= 0], gallery[row_of[gallery] >= 0]
        splits.append(Split(row_of[there], row_of[enrolled], row_of[kept]))
    return splits


def blufr(
    features: FloatArray,
    identity: Rows,
    splits: Iterable[Split],
    *,
    vr_fars: Sequence[float] = (1e-3, 1e-2),
    dir_fars: Sequence[float] = (1e-2, 1e-1),
) -> list[Trial]:
    """Both measures on every split. features: (N, D) unit rows; identity: (N,). A FAR that a trial's scores
    can't show is left out. Raises ValueError when a split has no pair of one person."""
    made = []
    for split in splits:
        x, who = features[split.test], identity[split.test]
        pairs = trillion(x, who, (), total=0, fars=vr_fars)
        found = search(
            features[split.gallery].astype(np.float64),
            identity[split.gallery],
            features[split.probes].astype(np.float64),
            identity[split.probes],
        )
        rates = {far: 1 - found.fnir_at(far)[0] for far in dir_fars if far * len(found.non_mated) >= 1 - 1e-9}
        vr = {row.far: row.tpr for row in pairs.rows}
        made.append(Trial(vr, rates, found, len(np.unique(who)), len(who)))
    return made
