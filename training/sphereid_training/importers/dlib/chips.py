"""The 150×150 chips that dlib's descriptor looks at, cut from crops that were aligned for other networks."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sphereid.faces.align import TEMPLATES, similarity_transforms
from sphereid.faces.published.dlib.model import TEMPLATE

from sphereid_training.data.augment import center_view
from sphereid_training.data.store import FaceStore
from sphereid_training.errors import TrainingError

_LEAST_IDENTITIES: Final = 50


def chip_transform(points: ArrayLike) -> NDArray[np.float64]:
    """(2, 3) matrix from a crop's pixels to the pixels of the chip.

    points: (5, 2), where the template of the crop has its landmarks.
    """
    matrices = similarity_transforms(np.asarray(points)[None], TEMPLATES[TEMPLATE].array)
    return np.ascontiguousarray(matrices[0])


def sample_chips(store: FaceStore) -> NDArray[np.uint8]:
    """(N, 150, 150, 3) uint8 chips, the first image of every identity of a store.

    Raises TrainingError when there are too few identities for a calibration.
    """
    known = np.flatnonzero(store.identity >= 0)
    rows = known[np.unique(store.identity[known], return_index=True)[1]]
    if len(rows) < _LEAST_IDENTITIES:
        raise TrainingError(
            f"a calibration needs faces of {_LEAST_IDENTITIES} identities or more, the store has {len(rows)}"
        )
    return center_view(store.images[np.sort(rows)], "150x150")
