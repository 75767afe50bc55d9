"""`python -m training import dlib`: dlib's face descriptor as a model folder that the service can load."""

import datetime
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from sphereid.faces.embed import OnnxEmbedder, open_session
from sphereid.faces.manifest import MANIFEST_FILE, Calibration, Manifest, Metric, save_manifest

from sphereid_training.data.store import open_store
from sphereid_training.errors import TrainingError
from sphereid_training.export.calibration import calibrate, impostor_similarities
from sphereid_training.importers.dlib.card import card
from sphereid_training.importers.dlib.chips import TEMPLATE, sample_chips
from sphereid_training.importers.dlib.graph import build_graph
from sphereid_training.importers.dlib.reference import load_reference
from sphereid_training.importers.dlib.weights import (
    CHIP,
    EMBEDDING,
    SCALE,
    DlibWeights,
    load_weights,
    model_path,
)

_CHUNK: Final = 64
_TRAINING_DATA: Final = (
    "About 3 million faces of 7,485 people (FaceScrub, VGG and images from the web), by dlib's author; "
    "nothing of it was seen here."
)
_LICENSE: Final = "CC0-1.0 (public domain dedication by dlib's author, Davis E. King)"
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
    """Convert the descriptor and write `model.onnx`, `manifest.json` and `CARD.md` into the folder `out`.

    weights: dlib's `.dat` (None: the installed package's). store: prepared faces to calibrate on (None: the
    calibration that comes with SphereID). center: subtract the mean descriptor of the store's faces, measured
    worse than the default. say: hears one line a step.

    The folder appears whole or not at all; an older import in its place is replaced. Raises TrainingError
    otherwise, and when anything needed is missing.
    """
    if center and store is None:
        raise TrainingError("the mean descriptor is measured on faces: name a store of prepared ones")
    _check_target(out)
    started = time.monotonic()
    source = weights or model_path()
    network = load_weights(source)
    say(f"read {source.name}: {1 + 2 * len(network.blocks)} convolutions, {network.parameters:,} parameters")

    reference = load_reference()
    chips = None if store is None else sample_chips(open_store(store))
    mean = _mean_descriptor(network, chips) if center and chips is not None else None
    model = build_graph(network, mean, _metadata(network)).SerializeToString()
    manifest = _manifest(network, model, None)
    embedder = OnnxEmbedder(model, manifest, providers="cpu")
    say(f"built an ONNX graph of {len(model) / 1e6:.1f} MB; ONNX Runtime loads and runs it")

    if chips is None:
        calibration = reference.calibration
        say(f"calibration: the one that comes with SphereID ({calibration.pairs:,} impostor pairs)")
    else:
        embeddings = _run(embedder.embed, chips, "calibrating")
        protocol = _PROTOCOL.format(identities=f"{len(chips):,}")
        calibration = calibrate(*impostor_similarities(embeddings, np.arange(len(chips))), protocol)
        say(f"calibration: measured on {calibration.pairs:,} impostor pairs")
    manifest = _manifest(network, model, calibration, () if center else reference.metrics)
    _write(out, model, manifest)
    say(f"wrote {out} in {time.monotonic() - started:.1f} s")
    return manifest


def _check_target(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise TrainingError(f"{out} is a file: name a folder for the model")
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST_FILE).exists():
        raise TrainingError(f"{out} holds other things than a model: name another folder or empty this one")


def _metadata(network: DlibWeights) -> list[tuple[str, str]]:
    return [
        ("color", "rgb"),
        ("mean", json.dumps(network.mean)),
        ("scale", json.dumps(SCALE)),
        ("template", TEMPLATE),
        ("flip", "sum"),
        ("license", _LICENSE),
    ]


def _manifest(
    network: DlibWeights, model: bytes, calibration: Calibration | None, metrics: tuple[Metric, ...] = ()
) -> Manifest:
    return Manifest(
        name="dlib-resnet",
        version="1",
        sha256=hashlib.sha256(model).hexdigest(),
        input=(1, 3, CHIP, CHIP),
        mean=network.mean,
        scale=(SCALE, SCALE, SCALE),
        template=TEMPLATE,
        embedding_size=EMBEDDING,
        flip="sum",
        training_data=_TRAINING_DATA,
        license=_LICENSE,
        metrics=metrics,
        calibration=calibration,
        date=datetime.datetime.now(datetime.UTC).date(),
    )


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


def _write(out: Path, model: bytes, manifest: Manifest) -> None:
    """Write the folder beside its place and move it there."""
    fresh = out.with_name(f".{out.name}.new")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        (fresh / manifest.file).write_bytes(model)
        (fresh / "CARD.md").write_text(card(manifest), encoding="utf-8")
        save_manifest(manifest, fresh)
        if out.exists():
            shutil.rmtree(out)
        fresh.rename(out)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise TrainingError(f"{out} cannot be written: {error.strerror}") from None
