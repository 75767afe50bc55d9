"""`evaluate bin`: InsightFace's packed verification sets with an exported model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from app.pipeline.decode import decode
from app.pipeline.embed import OnnxEmbedder
from app.pipeline.errors import PipelineError
from training.data.bin_set import read_bin
from training.errors import TrainingError
from training.evaluation.lfw import Pairs, insightface_protocol

_SIDE = 112


def evaluate_bin(path: Path, model: Path, *, out: Path | None, console: Console) -> dict[str, Any]:
    """Ten-fold accuracy in InsightFace's way; pairs are dealt into folds in their order.

    The set's images are 112×112 ArcFace crops; a 112×96 model gets their middle columns. Raises TrainingError
    for a damaged set, images of another size, or a model with another alignment.
    """
    stored = read_bin(path)
    embedder = OnnxEmbedder.load(model)
    height, width = embedder.manifest.input[2:]
    if height != _SIDE or width not in (96, _SIDE):
        raise TrainingError(f"{path.name} holds 112×112 crops, {embedder.name} wants {height}×{width}")
    left = (_SIDE - width) // 2
    with console.status(f"embedding {len(stored.images)} crops"):
        features = np.concatenate(
            [
                embedder.embed(
                    np.stack(
                        [_crop(data, path)[:, left : left + width] for data in stored.images[i : i + 128]]
                    )
                )
                for i in range(0, len(stored.images), 128)
            ]
        )
    count = len(stored.same)
    rows = np.arange(2 * count)
    fold = np.arange(count) * min(10, count) // count
    pairs = Pairs([str(row) for row in rows], rows[::2], rows[1::2], stored.same, fold)
    made = insightface_protocol(pairs, features, np.ones(2 * count, bool))
    result = {
        "protocol": "insightface: squared distance, first best threshold of the other folds",
        "pairs": count,
        "accuracy": made.accuracy,
        "std": made.std,
        "standard_error": made.standard_error,
        "folds": list(made.accuracies),
    }
    console.print(
        f"{embedder.name} on {path.name}: {100 * made.accuracy:.2f} % ± {100 * made.std:.2f}, {count} pairs"
    )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _crop(data: bytes, path: Path) -> NDArray[np.uint8]:
    try:
        image = decode(data).pixels
    except PipelineError as error:
        raise TrainingError(f"{path} holds an image that cannot be read: {error}") from None
    if image.shape[:2] != (_SIDE, _SIDE):
        raise TrainingError(f"{path} holds a {image.shape[0]}×{image.shape[1]} image, all should be 112×112")
    return image
