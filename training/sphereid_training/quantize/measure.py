"""What an int8 file costs: its embeddings against those of the fp32 file, on pairs and in an open set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from sphereid.faces.embed import OnnxEmbedder

from sphereid_training.data.store import held_out, open_store
from sphereid_training.evaluation import lfw
from sphereid_training.evaluation.inputs import embed_crops, embed_faces, face_crops, view_of
from sphereid_training.evaluation.openset import open_set_searches
from sphereid_training.evaluation.verification import accuracy_at, best_threshold, k_fold

FloatArray = NDArray[np.float32]

OPEN_SET_FPIR: Final = 0.01
ENROLLED: Final = 100
_TRIALS: Final = 10


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure in [0, 1] by three ways: both sides fp32, both int8, and fp32 against int8."""

    fp32: float
    int8: float
    mixed: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What int8 costs.

    similarity: mean cosine between the two embeddings of a face. pairs: accuracy as a share of the test
    pairs, measured as `protocol` says. threshold_pairs: the same the other way round, where they are given:
    those pairs, at the test pairs' threshold. pooled: accuracy on both lists together. open_set: FNIR at
    FPIR 1 % with 100 enrolled of the store's held-out identities, mean of ten galleries; None where they are
    too few. Its mixture has fp32 in the gallery and int8 probes, as in a gallery that was made before the
    change.
    """

    similarity: float
    pairs: Compared
    threshold_pairs: Compared | None
    pooled: Compared
    open_set: Compared | None
    protocol: str

    @property
    def loss(self) -> float:
        """The larger of what int8 alone and the mixture lose on all pairs, as a share. On the test pairs
        alone 0.2 points may be two pairs, and chance moves more."""
        return self.pooled.fp32 - min(self.pooled.int8, self.pooled.mixed)


def measure_cost(
    fp32: OnnxEmbedder,
    int8: OnnxEmbedder,
    *,
    images: Path,
    pairs: Path,
    threshold_pairs: Path | None,
    store: Path,
    percent: int,
    cache: Path | None,
    console: Console,
) -> Cost:
    """Compare a model's two embedders. percent: how much of the store's identities is held out."""
    test = lfw.read_pairs(pairs)
    train = lfw.read_pairs(threshold_pairs) if threshold_pairs is not None else None
    names = set(test.names) | set(train.names if train is not None else ())
    crops = face_crops(images, names, fp32.manifest, cache=cache, aligned=False, console=console)
    features = [embed_crops(each, crops.crops, cache=cache, console=console) for each in (fp32, int8)]
    way = f"threshold of {threshold_pairs.name}" if threshold_pairs is not None else "ten folds"
    on_test = _by_each(features, lambda left, right: _accuracy(left, right, crops, test, train))
    on_train = None
    if train is not None:
        on_train = _by_each(features, lambda left, right: _accuracy(left, right, crops, train, test))
    return Cost(
        similarity=float(np.mean(np.sum(features[0][crops.found] * features[1][crops.found], axis=1))),
        pairs=on_test,
        threshold_pairs=on_train,
        pooled=on_test
        if on_train is None or train is None
        else _pooled(on_test, len(test.same), on_train, len(train.same)),
        open_set=_open_set(fp32, int8, store, percent, console),
        protocol=f"{len(test.same)} pairs of {pairs.name}, {way}",
    )


def _pooled(one: Compared, count: int, other: Compared, other_count: int) -> Compared:
    """The shares of both lists together."""
    share = count / (count + other_count)

    def mean(a: float, b: float) -> float:
        return share * a + (1 - share) * b

    return Compared(mean(one.fp32, other.fp32), mean(one.int8, other.int8), mean(one.mixed, other.mixed))


def _by_each(features: list[FloatArray], measure: Callable[[FloatArray, FloatArray], float]) -> Compared:
    fp32, int8 = features
    return Compared(measure(fp32, fp32), measure(int8, int8), measure(fp32, int8))


def _accuracy(
    left: FloatArray, right: FloatArray, crops: lfw.Crops, test: lfw.Pairs, train: lfw.Pairs | None
) -> float:
    """Share of right answers; the threshold is best on `train`, or on the other nine folds of `test`."""
    row = {name: index for index, name in enumerate(crops.names)}

    def similarity(pairs: lfw.Pairs) -> NDArray[np.float64]:
        rows = np.array([row[name] for name in pairs.names])
        return lfw.cross_similarities(pairs, left[rows], right[rows], crops.found[rows])

    if train is None:
        return k_fold(similarity(test), test.same, test.fold).accuracy
    return accuracy_at(similarity(test), test.same, best_threshold(similarity(train), train.same))


def _open_set(
    fp32: OnnxEmbedder, int8: OnnxEmbedder, store_folder: Path, percent: int, console: Console
) -> Compared | None:
    store = open_store(store_folder)
    rows = np.flatnonzero(held_out(store.identity, percent))
    if len(np.unique(store.identity[rows])) <= ENROLLED:
        return None
    features = [
        embed_faces(
            each.embed,
            view_of(each.manifest),
            store,
            rows,
            what=f"held out ({each.precision})",
            console=console,
        )
        for each in (fp32, int8)
    ]

    def fnir(gallery: FloatArray, probes: FloatArray) -> float:
        searches = open_set_searches(
            probes, store.identity[rows], enrolled=ENROLLED, trials=_TRIALS, gallery=gallery
        )
        return float(np.mean([each.fnir_at(OPEN_SET_FPIR)[0] for each in searches]))

    try:
        return _by_each(features, fnir)
    except ValueError:  # too few of them with several images, or too few strangers
        return None
