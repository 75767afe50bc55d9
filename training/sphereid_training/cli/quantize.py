"""What `quantize` does: quantize, measure what it costs and gains, and put both beside the model."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.manifest import (
    MAX_INT8_LOSS,
    MIN_INT8_SPEEDUP,
    Manifest,
    Metric,
    Quantized,
    load_manifest,
    read_model,
    save_manifest,
)
from sphereid.faces.quantization.qdq import prepare, quantize

from sphereid_training.data.augment import center_view
from sphereid_training.data.store import held_out, open_store
from sphereid_training.errors import TrainingError
from sphereid_training.evaluation.inputs import bar, view_of
from sphereid_training.export import card as cards
from sphereid_training.quantize.measure import ENROLLED, OPEN_SET_FPIR, Compared, Cost, measure_cost
from sphereid_training.quantize.static import Timing, measure_ranges, measure_speed
from sphereid_training.quantize.tune import Tuning, fine_tune


def quantize_model(
    folder: Path,
    *,
    store: Path,
    images: Path,
    pairs: Path,
    threshold_pairs: Path | None,
    faces: int,
    tuning: Tuning | None,
    tune_faces: int,
    ranges_file: Path | None,
    remeasure: bool,
    percent: int,
    cache: Path | None,
    command: str,
    console: Console,
) -> Quantized:
    """Write model.int8.onnx beside model.onnx, and its record into the manifest and the card.

    remeasure: keep the int8 file that is there, and measure it alone. store, faces, percent: so many random
    faces of it, none of held-out identities, calibrate the ranges. tuning, tune_faces: fine-tune the int8
    weights on so many of them; None leaves them as they are rounded. ranges_file: JSON to write the
    activations' ranges to, from which the same int8 file can be made without faces.
    Raises TrainingError when there are too few of them, ModelError when the folder is no whole model.
    """
    manifest = load_manifest(folder)
    fp32 = read_model(folder, manifest)
    crops = calibration_crops(store, manifest, faces, percent)
    if remeasure:
        int8 = read_model(folder, manifest, "int8")
    else:
        with console.status("quantizing"):
            plain = prepare(fp32, manifest)
            ranges = measure_ranges(plain, crops, manifest)
            int8 = quantize(plain, ranges, manifest)
        if ranges_file is not None:
            ranges_file.write_text(json.dumps(ranges, indent=1) + "\n", encoding="utf-8")
        if tuning is not None:
            taught = calibration_crops(store, manifest, tune_faces, percent)
            int8 = _fine_tuned(int8, plain, taught, manifest, tuning, console)
    record = Quantized(
        sha256=hashlib.sha256(int8).hexdigest(),
        accuracy_loss=0,
        speedup=1,
        protocol="not measured yet",
        command=manifest.int8.command if remeasure and manifest.int8 is not None else command,
    )
    made = manifest.model_copy(update={"int8": record})
    with console.status("timing"):
        counts = sorted({1, os.cpu_count() or 1})
        timings = [measure_speed(fp32, int8, manifest, crops, threads=threads) for threads in counts]
    cost = measure_cost(
        OnnxEmbedder(fp32, made, providers="cpu", precision="fp32"),
        OnnxEmbedder(int8, made, providers="cpu", precision="int8"),
        images=images,
        pairs=pairs,
        threshold_pairs=threshold_pairs,
        store=store,
        percent=percent,
        cache=cache,
        console=console,
    )
    record = record.model_copy(
        update={"accuracy_loss": cost.loss, "speedup": timings[0].speedup, "protocol": cost.protocol}
    )
    _write(folder, int8, made.model_copy(update={"int8": record}))
    cards.record(folder, _metrics(cost, timings, threshold_pairs, command))
    _print(console, folder, record, cost, timings, (len(fp32), len(int8)))
    return record


def _fine_tuned(
    int8: bytes,
    plain: onnx.ModelProto,
    crops: NDArray[np.uint8],
    manifest: Manifest,
    tuning: Tuning,
    console: Console,
) -> bytes:
    with bar(console) as progress:
        task = progress.add_task("fine-tuning", total=tuning.steps)

        def show(done: int, loss: float) -> None:
            progress.update(task, completed=done, description=f"fine-tuning (loss {loss:.4f})")

        return fine_tune(int8, plain, crops, manifest, tuning, show)


def calibration_crops(store_folder: Path, manifest: Manifest, count: int, percent: int) -> NDArray[np.uint8]:
    """(count, H, W, 3) crops of a store's faces, drawn at random among those that training may see."""
    store = open_store(store_folder)
    rows = np.flatnonzero(~held_out(store.identity, percent))
    if len(rows) < min(count, 32):
        raise TrainingError(f"{store_folder} has {len(rows)} faces to calibrate on, 32 are the least")
    picked = np.random.default_rng(0).choice(rows, min(count, len(rows)), replace=False)
    return center_view(np.asarray(store.images[np.sort(picked)]), view_of(manifest))


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


def _metrics(cost: Cost, timings: list[Timing], threshold_pairs: Path | None, command: str) -> list[Metric]:
    values = {
        f"int8, accuracy on {cost.protocol}": cost.pairs.int8,
        "int8 against fp32 embeddings, accuracy on the same": cost.pairs.mixed,
        "fp32, accuracy on the same": cost.pairs.fp32,
        "int8, mean cosine to the fp32 embedding of the same face": cost.similarity,
    }
    if cost.threshold_pairs is not None and threshold_pairs is not None:
        for kind, value in _kinds(cost.threshold_pairs):
            values[f"{kind}, accuracy on {threshold_pairs.name} at the test pairs' threshold"] = value
        for kind, value in _kinds(cost.pooled):
            values[f"{kind}, accuracy on both pair lists"] = value
    if cost.open_set is not None:
        for kind, value in _kinds(cost.open_set):
            values[f"{kind}, open set, {ENROLLED} enrolled, FNIR at FPIR {OPEN_SET_FPIR:g}"] = value
    for timing in timings:
        values[f"int8, times as fast as fp32 at batch 8, threads: {timing.threads}"] = timing.speedup
    return [Metric(name=name, value=value, command=command) for name, value in values.items()]


def _kinds(figure: Compared) -> list[tuple[str, float]]:
    return [("int8", figure.int8), ("int8 against fp32", figure.mixed), ("fp32", figure.fp32)]


def _print(
    console: Console,
    folder: Path,
    record: Quantized,
    cost: Cost,
    timings: list[Timing],
    sizes: tuple[int, int],
) -> None:
    table = Table(title=f"{folder.name}: {record.protocol}")
    for column in ("", "fp32", "int8", "int8 against fp32", "asked"):
        table.add_column(column, justify="left" if not column else "right")
    asked = f"loss ≤ {100 * MAX_INT8_LOSS:.1f} points"
    for name, figure, limit in (
        ("accuracy", cost.pairs, "" if cost.threshold_pairs else asked),
        ("accuracy, roles of the pair lists exchanged", cost.threshold_pairs, ""),
        ("accuracy on both lists", cost.pooled if cost.threshold_pairs else None, asked),
        (f"FNIR at FPIR {100 * OPEN_SET_FPIR:g} %, held-out identities", cost.open_set, ""),
    ):
        if figure is not None:
            values = (f"{100 * each:.2f} %" for each in (figure.fp32, figure.int8, figure.mixed))
            table.add_row(name, *values, limit)
    table.add_row("mean cosine of a face's embeddings", "", "", f"{cost.similarity:.5f}", "")
    for timing in timings:
        table.add_row(
            f"8 crops, {timing.threads} thread{'s' if timing.threads > 1 else ''}",
            f"{timing.fp32:.1f} ms",
            f"{timing.int8:.1f} ms ({timing.speedup:.2f}×)",
            "",
            f"≥ {MIN_INT8_SPEEDUP:g}×",
        )
    table.add_row("file", f"{sizes[0] / 1e6:.1f} MB", f"{sizes[1] / 1e6:.1f} MB", "", "")
    console.print(table)
    taken = "takes it on the CPU" if record.worthwhile else "stays with fp32"
    console.print(f"{folder / record.file} written; the service {taken} unless told otherwise")
