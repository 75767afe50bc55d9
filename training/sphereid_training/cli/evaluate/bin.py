"""`evaluate bin`: InsightFace's packed verification sets with an exported model."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from sphereid.faces.decode import decode
from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.errors import PipelineError

from sphereid_training.cli.evaluate.lfw import FARS
from sphereid_training.data.bin_set import read_bin
from sphereid_training.errors import TrainingError
from sphereid_training.evaluation.inputs import bar
from sphereid_training.evaluation.lfw import Pairs, insightface_protocol, similarities
from sphereid_training.evaluation.report import Report, Table, percent, publish, verification_tables

_SIDE = 112
_COLUMNS: Final = {
    "sphereface-112x96": slice(8, 104),
    "arcface-112x112": slice(None),
    "insightface-112x112": slice(None),
}
"""Which columns of a crop a model sees, by its alignment."""


def evaluate_bin(
    path: Path, model: Path, *, out: Path | None, folder: Path | None, console: Console
) -> dict[str, Any]:
    """Ten-fold accuracy in InsightFace's way; pairs are dealt into folds in their order.

    The set's images are 112×112 ArcFace crops; a 112×96 model gets their middle columns. Raises TrainingError
    for a damaged set, images of another size, or a model with another alignment.
    """
    stored = read_bin(path)
    embedder = OnnxEmbedder.load(model, precision="fp32")
    template = embedder.manifest.template
    if template not in _COLUMNS:
        raise TrainingError(f"{path.name} holds 112×112 ArcFace crops, {embedder.name} wants {template}")
    columns = _COLUMNS[template]
    features = np.empty((len(stored.images), embedder.dim), np.float32)
    with bar(console) as progress:
        task = progress.add_task("embed", total=len(features))
        for start in range(0, len(features), 128):
            part = stored.images[start : start + 128]
            crops = np.stack([_crop(data, path)[:, columns] for data in part])
            features[start : start + len(part)] = embedder.embed(crops)
            progress.update(task, completed=start + len(part))
    count = len(stored.same)
    rows = np.arange(2 * count)
    fold = np.arange(count) * min(10, count) // count
    pairs = Pairs([str(row) for row in rows], rows[::2], rows[1::2], stored.same, fold)
    found = np.ones(2 * count, bool)
    made = insightface_protocol(pairs, features, found)
    terms, thresholds, drawn, refused = verification_tables(
        similarities(pairs, features, found), stored.same, FARS
    )
    result = {
        "model": embedder.name,
        "protocol": "insightface: squared distance, first best threshold of the other folds",
        "pairs": count,
        "accuracy": made.accuracy,
        "std": made.std,
        "standard_error": made.standard_error,
        "folds": list(made.accuracies),
        **terms,
    }
    figures = Table(
        "figures",
        ("figure", "value"),
        (
            ("accuracy, 10 folds, insightface protocol", f"{percent(made.accuracy)} ± {100 * made.std:.2f}"),
            ("folds", " ".join(f"{100 * value:.1f}" for value in made.accuracies)),
        ),
    )
    facts = (
        ("model", embedder.name),
        ("set", f"{path.name}: {count} pairs"),
        ("protocol", str(result["protocol"])),
    )
    name = f"bin-{embedder.name}-{path.stem}"
    title = f"{path.stem}: {embedder.name}"
    report = Report(name, title, facts, result, (figures, thresholds), drawn, refused)
    publish(report, out=out, folder=folder, console=console)
    return result


def _crop(data: bytes, path: Path) -> NDArray[np.uint8]:
    try:
        image = decode(data).pixels
    except PipelineError as error:
        raise TrainingError(f"{path} holds an image that cannot be read: {error}") from None
    if image.shape[:2] != (_SIDE, _SIDE):
        raise TrainingError(f"{path} holds a {image.shape[0]}×{image.shape[1]} image, all should be 112×112")
    return image
