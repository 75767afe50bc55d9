"""`python -m training import dlib`: dlib's face descriptor as a model folder, calibrated on faces at hand."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from sphereid.faces.embed import OnnxEmbedder, open_session
from sphereid.faces.manifest import Manifest
from sphereid.faces.published.dlib.graph import build_graph
from sphereid.faces.published.dlib.model import convert, make
from sphereid.faces.published.dlib.reference import load_reference
from sphereid.faces.published.dlib.weights import SCALE, DlibWeights, load_weights
from sphereid.faces.published.folder import ModelFiles, check_target, write_model

from sphereid_training.data.store import open_store
from sphereid_training.errors import TrainingError
from sphereid_training.export.calibration import calibrate, impostor_similarities
from sphereid_training.importers.dlib.chips import sample_chips

_CHUNK: Final = 64
_PROTOCOL: Final = (
    "all pairs among the first aligned images of {identities} identities of the training faces, cut to "
    "dlib's chip, with the flip sum"
)


def import_dlib(
    out: Path,
    *,
    weights: Path | None = None,
    store: Path | None = None,
    center: bool = False,
    say: Callable[[str], None] = print,
) -> Manifest:
    """Convert the descriptor and write a model folder `out`.

    weights: dlib's `.dat` (None: the installed package's). store: prepared faces to calibrate on (None: what
    `sphereid models install dlib` writes, with the calibration that comes with SphereID). center: subtract
    the mean descriptor of the store's faces, measured worse than the default. say: hears one line a step.

    The folder appears whole or not at all; an older import in its place is replaced. Raises TrainingError
    when faces are missing, ModelError otherwise, and when anything needed is missing.
    """
    if center and store is None:
        raise TrainingError("the mean descriptor is measured on faces: name a store of prepared ones")
    check_target(out, replace=True)
    started = time.monotonic()
    files = make(weights, say=say) if store is None else _calibrated(weights, store, center, say)
    write_model(files, out, replace=True)
    say(f"wrote {out} in {time.monotonic() - started:.1f} s")
    return files.manifest


def _calibrated(weights: Path | None, store: Path, center: bool, say: Callable[[str], None]) -> ModelFiles:
    network = load_weights(weights)
    chips = sample_chips(open_store(store))
    made = convert(network, _mean_descriptor(network, chips) if center else None)
    embedder = OnnxEmbedder(made.model, made.manifest, providers="cpu")
    protocol = _PROTOCOL.format(identities=f"{len(chips):,}")
    embeddings = _run(embedder.embed, chips, "calibrating")
    calibration = calibrate(*impostor_similarities(embeddings, np.arange(len(chips))), protocol)
    say(f"calibration: measured on {calibration.pairs:,} impostor pairs")
    reference = load_reference()
    # Figures of a file hold for that file alone.
    if made.manifest.sha256 != reference.sha256:
        return made.files(calibration)
    return made.files(calibration, reference.metrics, made.with_int8(reference.int8))


def _mean_descriptor(network: DlibWeights, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(128,) mean of the raw descriptors of the chips."""
    session = open_session(build_graph(network).SerializeToString(), "cpu")
    shift = np.asarray(network.mean, dtype=np.float32)[:, None, None]

    def describe(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = (batch.transpose(0, 3, 1, 2) - shift) * np.float32(SCALE)
        descriptors: NDArray[np.float32] = session.run(None, {"pixels": pixels})[0]
        return descriptors

    mean: NDArray[np.float32] = _run(describe, chips, "mean descriptor").mean(axis=0)
    return mean


def _run(
    network: Callable[[NDArray[np.uint8]], NDArray[np.float32]], chips: NDArray[np.uint8], what: str
) -> NDArray[np.float32]:
    """(N, D) rows for all chips, with a progress bar."""
    starts = range(0, len(chips), _CHUNK)
    return np.concatenate([network(chips[i : i + _CHUNK]) for i in track(starts, what)])
