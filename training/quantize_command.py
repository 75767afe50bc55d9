"""What `quantize` does: quantize, measure what it costs and gains, and put both beside the model."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from app.pipeline.embed import OnnxEmbedder
from app.pipeline.manifest import (
    MAX_INT8_LOSS,
    MIN_INT8_SPEEDUP,
    Manifest,
    Metric,
    Quantized,
    load_manifest,
    read_model,
    save_manifest,
)
from training import card as cards
from training.data.augment import center_view
from training.data.store import held_out, open_store
from training.errors import TrainingError
from training.evaluation import lfw
from training.evaluation.inputs import embed_crops, face_crops, view_of
from training.evaluation.verification import accuracy_at, best_threshold, k_fold
from training.quantize import Timing, measure_speed, quantize

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Accuracies:
    """Accuracy on pairs, as shares: both sides fp32, both int8, and fp32 against int8."""

    fp32: float
    int8: float
    mixed: float

    @property
    def loss(self) -> float:
        """The larger of what int8 alone and the mixture lose."""
        return self.fp32 - min(self.int8, self.mixed)


def quantize_model(
    folder: Path,
    *,
    store: Path,
    images: Path,
    pairs: Path,
    threshold_pairs: Path | None,
    faces: int,
    percent: int,
    cache: Path | None,
    command: str,
    console: Console,
) -> Quantized:
    """Write model.int8.onnx beside model.onnx, and its record into the manifest and the card.

    store, faces, percent: so many random faces of it, none of held-out identities, calibrate the ranges.
    Raises TrainingError when there are too few of them, ModelError when the folder is no whole model.
    """
    manifest = load_manifest(folder)
    fp32 = read_model(folder, manifest)
    with console.status("quantizing"):
        crops = calibration_crops(store, manifest, faces, percent)
        int8 = quantize(fp32, crops, manifest)
    made = manifest.model_copy(
        update={
            "int8": Quantized(
                sha256=hashlib.sha256(int8).hexdigest(),
                accuracy_loss=0,
                speedup=1,
                protocol="not measured yet",
                command=command,
            )
        }
    )
    with console.status("timing"):
        counts = sorted({1, os.cpu_count() or 1})
        timings = [measure_speed(fp32, int8, manifest, crops, threads=threads) for threads in counts]
    accuracies, protocol = _accuracies(
        (fp32, int8), made, images, pairs, threshold_pairs, cache=cache, console=console
    )
    record = made.int8
    assert record is not None
    record = record.model_copy(
        update={
            "accuracy_loss": accuracies.loss,
            "speedup": timings[0].speedup,
            "protocol": protocol,
        }
    )
    _write(folder, int8, made.model_copy(update={"int8": record}))
    cards.record(folder, _metrics(accuracies, timings, protocol, command))
    _print(console, folder, record, accuracies, timings, (len(fp32), len(int8)))
    return record


def calibration_crops(store_folder: Path, manifest: Manifest, count: int, percent: int) -> NDArray[np.uint8]:
    """(count, H, W, 3) crops of a store's faces, drawn at random among those that training may see."""
    store = open_store(store_folder)
    rows = np.flatnonzero(~held_out(store.identity, percent))
    if len(rows) < min(count, 32):
        raise TrainingError(f"{store_folder} has {len(rows)} faces to calibrate on, 32 are the least")
    picked = np.random.default_rng(0).choice(rows, min(count, len(rows)), replace=False)
    return center_view(np.asarray(store.images[np.sort(picked)]), view_of(manifest))


def _accuracies(
    models: tuple[bytes, bytes],
    manifest: Manifest,
    images: Path,
    pairs: Path,
    threshold_pairs: Path | None,
    *,
    cache: Path | None,
    console: Console,
) -> tuple[Accuracies, str]:
    test = lfw.read_pairs(pairs)
    train = lfw.read_pairs(threshold_pairs) if threshold_pairs is not None else None
    names = set(test.names) | set(train.names if train is not None else ())
    crops = face_crops(images, names, manifest, cache=cache, aligned=False, console=console)
    fp32, int8 = (
        embed_crops(embedder, crops.crops, cache=cache, console=console)
        for embedder in (
            OnnxEmbedder(models[0], manifest, providers="cpu", precision="fp32"),
            OnnxEmbedder(models[1], manifest, providers="cpu", precision="int8"),
        )
    )
    row = {name: index for index, name in enumerate(crops.names)}

    def accuracy(left: FloatArray, right: FloatArray) -> float:
        scored = [
            (lfw.cross_similarities(each, left[rows], right[rows], crops.found[rows]), each)
            for each in (test, train)
            if each is not None
            for rows in [np.array([row[name] for name in each.names])]
        ]
        similarity = scored[0][0]
        if train is None:
            return k_fold(similarity, test.same, test.fold).accuracy
        return accuracy_at(similarity, test.same, best_threshold(scored[1][0], train.same))

    measured = Accuracies(accuracy(fp32, fp32), accuracy(int8, int8), accuracy(fp32, int8))
    way = f"threshold of {threshold_pairs.name}" if threshold_pairs is not None else "ten folds"
    return measured, f"{len(test.same)} pairs of {pairs.name}, {way}"


def _write(folder: Path, model: bytes, manifest: Manifest) -> None:
    assert manifest.int8 is not None
    path = folder / manifest.int8.file
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_bytes(model)
        temporary.replace(path)
        save_manifest(manifest, folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise TrainingError(f"{path} cannot be written: {error.strerror}") from None


def _metrics(accuracies: Accuracies, timings: list[Timing], protocol: str, command: str) -> list[Metric]:
    values: dict[str, Any] = {
        f"int8, accuracy on {protocol}": accuracies.int8,
        "int8 against fp32 embeddings, accuracy on the same": accuracies.mixed,
        "fp32, accuracy on the same": accuracies.fp32,
    }
    for timing in timings:
        values[f"int8, times as fast as fp32 at batch 8, threads: {timing.threads}"] = timing.speedup
    return [Metric(name=name, value=value, command=command) for name, value in values.items()]


def _print(
    console: Console,
    folder: Path,
    record: Quantized,
    accuracies: Accuracies,
    timings: list[Timing],
    sizes: tuple[int, int],
) -> None:
    table = Table(title=f"{folder.name}: {record.protocol}")
    for column in ("", "fp32", "int8", "asked"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row(
        "accuracy",
        f"{100 * accuracies.fp32:.2f} %",
        f"{100 * accuracies.int8:.2f} % (against fp32: {100 * accuracies.mixed:.2f} %)",
        f"loss ≤ {100 * MAX_INT8_LOSS:.1f} points",
    )
    for timing in timings:
        table.add_row(
            f"8 crops, {timing.threads} thread{'s' if timing.threads > 1 else ''}",
            f"{timing.fp32:.1f} ms",
            f"{timing.int8:.1f} ms ({timing.speedup:.2f}×)",
            f"≥ {MIN_INT8_SPEEDUP:g}×",
        )
    table.add_row("file", f"{sizes[0] / 1e6:.1f} MB", f"{sizes[1] / 1e6:.1f} MB", "")
    console.print(table)
    taken = "takes it on the CPU" if record.worthwhile else "stays with fp32"
    console.print(f"{folder / record.file} written; the service {taken} unless told otherwise")
