"""Collections brought nearer to one another, so that a face's collection weighs less in its embedding.

Faces of one collection have a part in common that says where they are from: people of one region or age, one
kind of camera. For strangers of a collection that lies apart from the others, it is most of what their
similarity consists of. The directions in which the collections' means differ carry that part.
"""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from sphereid_training.data.store import FaceStore, held_out
from sphereid_training.errors import TrainingError
from sphereid_training.evaluation.embedding import embed
from sphereid_training.evaluation.groups import embed_people

PEOPLE = 1000
"""A collection must have as many. The mean of few says who they are, and that must stay."""


def leveling(means: NDArray[np.floating], share: float) -> NDArray[np.float64]:
    """(D, D) matrix that shrinks, by `share` in [0, 1], the directions in which (K, D) means differ.

    I − share·BᵀB, with B an orthonormal basis of the differences; at 1 all means become the same. What is
    orthogonal to them stays as it is.
    """
    differences = means - means.mean(axis=0)
    _, sizes, basis = np.linalg.svd(differences, full_matrices=False)
    basis = basis[sizes > 1e-9 * max(1.0, float(sizes.max()))]
    matrix: NDArray[np.float64] = np.eye(means.shape[1]) - share * (basis.T @ basis)
    return matrix


def collection_means(
    backbone: nn.Module, store: FaceStore, view: str, holdout_percent: int, console: Console
) -> dict[str, NDArray[np.float64]]:
    """Mean unit embedding, (D,), of `PEOPLE` people of each collection that has so many.

    backbone: takes crops of `view`. Held-out people are not looked at. Raises TrainingError with fewer than
    two collections.
    """
    seen = np.flatnonzero(~held_out(store.identity, holdout_percent))
    people = embed_people(
        partial(embed, backbone), view, store, seen, PEOPLE, least=PEOPLE,
        what="embed collections", console=console,
    )  # fmt: skip
    if len(people) < 2:
        raise TrainingError(
            f"--level needs two collections of {PEOPLE:,} people or more, the store has {len(people)}"
        )
    return {group: embeddings.mean(axis=0, dtype=np.float64) for group, embeddings in people.items()}


def as_layer(matrix: NDArray[np.float64]) -> nn.Linear:
    """A layer that multiplies (N, D) embeddings by a symmetric (D, D) matrix."""
    layer = nn.Linear(len(matrix), len(matrix), bias=False).requires_grad_(False)
    layer.weight.copy_(torch.from_numpy(matrix))
    return layer.eval()
