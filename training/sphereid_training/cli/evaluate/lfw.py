"""`evaluate lfw`: Labeled Faces in the Wild, from photographs, with one model or several side by side."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.manifest import Manifest, load_manifest, read_model

from sphereid_training.errors import TrainingError
from sphereid_training.evaluation import lfw
from sphereid_training.evaluation.inputs import embed_crops, face_crops, find_model
from sphereid_training.evaluation.report import (
    Report,
    Table,
    percent,
    publish,
    record_figures,
    verification_tables,
)
from sphereid_training.evaluation.verification import concatenated
from sphereid_training.export.model import export
from sphereid_training.loop import checkpoint as checkpoints

FARS = (0.1, 0.01, 0.001, 0.0001)
FloatArray = NDArray[np.float32]


def evaluate_lfw(
    images: Path,
    pairs: Path,
    *,
    models: list[Path],
    checkpoint: Path | None,
    threshold_pairs: Path | None,
    out: Path | None,
    folder: Path | None,
    aligned: bool,
    record: bool,
    cache: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Run LFW, print the tables, write JSON and page, return the result.

    Several models are concatenated: the unit embeddings of each, of crops by its own template, side by side.
    """
    if record and (checkpoint is not None or len(models) > 1):
        raise TrainingError("--record needs one model folder; export the checkpoint first")
    lists = {"test": lfw.read_pairs(pairs)}
    if threshold_pairs is not None:
        lists["train"] = lfw.read_pairs(threshold_pairs)
    names = {name for each in lists.values() for name in each.names}
    parts: list[FloatArray] = []
    served: list[FloatArray] = []
    titles: list[str] = []
    found: NDArray[np.bool_] | None = None
    for model in models or (None,):
        manifest, data = _open(model, checkpoint)
        crops = face_crops(images, names, manifest, cache=cache, aligned=aligned, console=console)
        both = _both_sides(data, manifest, crops, cache, console)
        half = both.shape[1] // 2
        one = {"concat": both, "sum": both[:, :half] + both[:, half:], "none": both[:, :half]}[manifest.flip]
        parts.append(both)
        served.append(_unit(one))
        titles.append(manifest.name)
        found = crops.found if found is None else found & crops.found
    assert found is not None
    pair = parts[0] if len(parts) == 1 else concatenated([_unit(part) for part in parts])
    result, report = measure(
        lists, crops.names, found, pair, concatenated(served), " + ".join(titles), pairs, threshold_pairs
    )
    publish(report, out=out, folder=folder, console=console)
    if record:
        _record(find_model(models[0] if models else None), pairs, result)
    return result


def _open(model: Path | None, checkpoint: Path | None) -> tuple[Manifest, bytes]:
    if checkpoint is None:
        folder = find_model(model)
        manifest = load_manifest(folder)
        return manifest, read_model(folder, manifest)
    with tempfile.TemporaryDirectory() as scratch:
        export(
            checkpoints.load(checkpoint),
            Path(scratch),
            name="checkpoint",
            training_data="a run in flight",
            calibration=None,
            command="",
        )
        manifest = load_manifest(Path(scratch))
        return manifest, read_model(Path(scratch), manifest)


def _both_sides(
    data: bytes, manifest: Manifest, crops: lfw.Crops, cache: Path | None, console: Console
) -> FloatArray:
    """Side by side, crop and mirror image give every protocol its features."""
    doubled = manifest.embedding_size * (1 if manifest.flip == "concat" else 2)
    both = manifest.model_copy(update={"flip": "concat", "embedding_size": doubled})
    return embed_crops(OnnxEmbedder(data, both), crops.crops, cache=cache, console=console)


def _unit(features: FloatArray) -> FloatArray:
    lengths: FloatArray = np.linalg.norm(features, axis=1, keepdims=True)
    return np.divide(features, np.maximum(lengths, 1e-12), dtype=np.float32)


def measure(
    lists: dict[str, lfw.Pairs],
    names: list[str],
    found_of: NDArray[np.bool_],
    pair: FloatArray,
    served: FloatArray,
    title: str,
    pairs_file: Path,
    threshold_file: Path | None = None,
) -> tuple[dict[str, Any], Report]:
    """JSON result and report. names: (N,) images. pair: (N, 2D) crop and mirror image side by side; served:
    (N, D) as the service has them. lists: pairs by `test` and, for View 1's protocol, `train`."""
    row = {name: index for index, name in enumerate(names)}

    def pick(pairs: lfw.Pairs) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        rows = np.array([row[name] for name in pairs.names])
        return rows, found_of[rows]

    test = lists["test"]
    rows, found = pick(test)
    main = lfw.reference_protocol(test, pair[rows], found)
    terms, thresholds, drawn, refused = verification_tables(
        lfw.similarities(test, served[rows], found), test.same, FARS
    )
    result: dict[str, Any] = {
        "model": title,
        "protocol": "reference: mirror concat, centred on the other folds, mean of best thresholds",
        "pairs": len(test.same),
        "images": len(test.names),
        "not_found": float(np.mean(~found)),
        "accuracy": main.accuracy,
        "std": main.std,
        "standard_error": main.standard_error,
        "folds": list(main.accuracies),
        "thresholds": list(main.thresholds),
        **terms,
    }
    for name, protocol in (("service", lfw.service_protocol), ("insightface", lfw.insightface_protocol)):
        other = protocol(test, served[rows], found)
        result[name] = {"accuracy": other.accuracy, "std": other.std, "folds": list(other.accuracies)}
    if "train" in lists:
        train = lists["train"]
        train_rows, train_found = pick(train)
        accuracy, threshold = lfw.transferred(
            train, served[train_rows], train_found, test, served[rows], found
        )
        result["transferred"] = {"accuracy": accuracy, "threshold": threshold, "train_pairs": len(train.same)}
    slug = f"lfw-{title.replace(' + ', '+')}-{pairs_file.stem}"
    facts = (
        ("model", title),
        ("pairs", f"{pairs_file.name}: {result['pairs']} pairs, {result['images']} images"),
        ("threshold pairs", threshold_file.name if threshold_file is not None else "none"),
        ("protocol", result["protocol"]),
    )
    tables = (_figures(result), thresholds)
    return result, Report(slug, f"LFW: {title}", facts, result, tables, drawn, refused)


def _figures(result: dict[str, Any]) -> Table:
    rows = [
        (
            "accuracy, 10 folds, reference protocol",
            f"{percent(result['accuracy'])} ± {100 * result['std']:.2f} "
            f"(standard error {100 * result['standard_error']:.2f})",
        ),
        ("folds", " ".join(f"{100 * value:.1f}" for value in result["folds"])),
    ]
    rows += [
        (f"accuracy, 10 folds, {key} protocol", percent(result[key]["accuracy"]))
        for key in ("service", "insightface")
    ]
    if "transferred" in result:
        moved = result["transferred"]
        name = f"accuracy at the threshold {moved['threshold']:.4f} of {moved['train_pairs']} training pairs"
        rows.append((name, percent(moved["accuracy"])))
    rows.append(("images without a face found", percent(result["not_found"])))
    return Table("figures", ("figure", "value"), tuple(rows))


def _record(folder: Path, pairs: Path, result: dict[str, Any]) -> None:
    label = f"LFW {pairs.stem}"
    values = {
        f"{label}, accuracy over 10 folds": result["accuracy"],
        f"{label}, standard deviation over folds": result["std"],
        f"{label}, share of images without a face": result["not_found"],
    }
    if "transferred" in result:
        values[f"{label}, accuracy at the training pairs' threshold"] = result["transferred"]["accuracy"]
    values |= {f"{label}, TAR at FAR {far}": tar for far, tar in result["tar_at_far"].items()}
    record_figures(folder, values)
