"""What `evaluate` and `export` do: load, measure, print, write."""

import hashlib
import json
import shlex
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.pipeline.detect import MtcnnDetector
from app.pipeline.embed import OnnxEmbedder
from app.pipeline.manifest import Metric, load_manifest, read_model
from training import calibrate
from training import card as cards
from training import checkpoint as checkpoints
from training.data.augment import VIEWS, center_view
from training.data.store import held_out, open_store
from training.errors import TrainingError
from training.evaluation import lfw
from training.evaluation.openset import open_set_trials
from training.evaluation.verification import tar_at_far
from training.export import Exported, export, release_checkpoint

FARS = (0.1, 0.01, 0.001)
CALIBRATION_PROTOCOL = (
    "all pairs of different identities among the {images} images of {people} identities kept out of "
    "training, each two identities weighted the same"
)


def find_model(model: Path | None) -> Path:
    """The given model folder, or the one that the service would take: the first by name in models/."""
    if model is not None:
        return model
    folders = sorted(path.parent for path in Path("models").glob("*/manifest.json"))
    if not folders:
        raise TrainingError("there is no model in models/: export one, or name a folder with --model")
    return folders[0]


def evaluate_lfw(
    images: Path,
    pairs: Path,
    *,
    model: Path | None,
    checkpoint: Path | None,
    threshold_pairs: Path | None,
    out: Path | None,
    aligned: bool,
    record: bool,
    cache: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Run LFW, print a table, return and optionally write the result."""
    lists = {"test": lfw.read_pairs(pairs)}
    if threshold_pairs is not None:
        lists["train"] = lfw.read_pairs(threshold_pairs)
    with tempfile.TemporaryDirectory() as scratch:
        if checkpoint is not None:
            export(
                checkpoints.load(checkpoint),
                Path(scratch),
                name="checkpoint",
                training_data="a run in flight",
                calibration=None,
                command="",
            )
        folder = Path(scratch) if checkpoint is not None else find_model(model)
        manifest = load_manifest(folder)
        data = read_model(folder, manifest)
    wanted = {name for each in lists.values() for name in each.names}
    detector = MtcnnDetector()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("detect and align", total=len(wanted))
        crops = lfw.crop_images(
            images,
            wanted,
            manifest.alignment,
            detector,
            cache=cache,
            cache_key=str(asdict(detector.config)),
            aligned=aligned,
            track=lambda done, total: bar.update(task, completed=done, total=total),
        )
        bar.update(task, completed=len(wanted))
        task = bar.add_task("embed", total=len(wanted))
        # Side by side, crop and mirror image give every protocol its features.
        both = manifest.model_copy(
            update={
                "flip": "concat",
                "embedding_size": manifest.embedding_size * (1 if manifest.flip == "concat" else 2),
            }
        )
        pair = _embed(OnnxEmbedder(data, both), crops, cache, lambda done: bar.update(task, completed=done))
    half = pair.shape[1] // 2
    served = {"concat": pair, "sum": pair[:, :half] + pair[:, half:], "none": pair[:, :half]}[manifest.flip]
    result = _measure(lists, crops, pair, served)
    _print_lfw(console, manifest.name, pairs, result)
    if out is not None:
        _write_json(out, result)
    if record:
        if checkpoint is not None:
            raise TrainingError("--record needs a model folder; export the checkpoint first")
        _record_lfw(folder, pairs, result)
    return result


def _embed(embedder: OnnxEmbedder, crops: lfw.Crops, cache: Path | None, track: Any) -> lfw.FloatArray:
    key = hashlib.sha256((embedder.contract + str(hash_array(crops.crops))).encode()).hexdigest()[:16]
    path = cache / f"embeddings-{key}.npy" if cache else None
    if path and path.exists():
        stored: lfw.FloatArray = np.load(path)
        track(len(stored))
        return stored
    parts = []
    for start in range(0, len(crops.crops), 128):
        parts.append(embedder.embed(crops.crops[start : start + 128]))
        track(start + len(parts[-1]))
    features = np.concatenate(parts)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, features)
    return features


def hash_array(array: NDArray[Any]) -> str:
    """Digest of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _measure(
    lists: dict[str, lfw.Pairs], crops: lfw.Crops, pair: lfw.FloatArray, served: lfw.FloatArray
) -> dict[str, Any]:
    row = {name: index for index, name in enumerate(crops.names)}

    def pick(pairs: lfw.Pairs) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        rows = np.array([row[name] for name in pairs.names])
        return rows, crops.found[rows]

    test = lists["test"]
    rows, found = pick(test)
    main = lfw.reference_protocol(test, pair[rows], found)
    similarity = lfw.similarities(test, served[rows], found)
    impostors = int((~test.same).sum())
    result: dict[str, Any] = {
        "protocol": "reference: mirror concat, centred on the other folds, mean of best thresholds",
        "pairs": len(test.same),
        "images": len(test.names),
        "not_found": float(np.mean(~found)),
        "accuracy": main.accuracy,
        "std": main.std,
        "standard_error": main.standard_error,
        "folds": list(main.accuracies),
        "thresholds": list(main.thresholds),
        "tar_at_far": {
            f"{far:g}": tar_at_far(similarity, test.same, far)[0] for far in FARS if far >= 1 / impostors
        },
        "service": {},
        "insightface": {},
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
    return result


def _print_lfw(console: Console, name: str, pairs: Path, result: dict[str, Any]) -> None:
    table = Table(title=f"{name} on {pairs.name}: {result['pairs']} pairs, {result['images']} images")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_row(
        "accuracy, 10 folds, reference protocol",
        f"{100 * result['accuracy']:.2f} % ± {100 * result['std']:.2f} "
        f"(standard error {100 * result['standard_error']:.2f})",
    )
    table.add_row("folds", " ".join(f"{100 * value:.1f}" for value in result["folds"]))
    for key in ("service", "insightface"):
        table.add_row(f"accuracy, 10 folds, {key} protocol", f"{100 * result[key]['accuracy']:.2f} %")
    if "transferred" in result:
        moved = result["transferred"]
        table.add_row(
            f"accuracy at the threshold {moved['threshold']:.4f} of {moved['train_pairs']} training pairs",
            f"{100 * moved['accuracy']:.2f} %",
        )
    for far, tar in result["tar_at_far"].items():
        table.add_row(f"TAR at FAR {far}", f"{100 * tar:.2f} %")
    table.add_row("images without a face found", f"{100 * result['not_found']:.2f} %")
    console.print(table)


def _command() -> str:
    arguments = [a for a in sys.argv[1:] if a != "--record"]
    return shlex.join(["python", "-m", "training", *arguments])


def _record_lfw(folder: Path, pairs: Path, result: dict[str, Any]) -> None:
    label = f"LFW {pairs.stem}"
    command = _command()
    metrics = [
        Metric(name=f"{label}, accuracy over 10 folds", value=result["accuracy"], command=command),
        Metric(name=f"{label}, standard deviation over folds", value=result["std"], command=command),
        Metric(name=f"{label}, share of images without a face", value=result["not_found"], command=command),
    ]
    if "transferred" in result:
        metrics.append(
            Metric(
                name=f"{label}, accuracy at the training pairs' threshold",
                value=result["transferred"]["accuracy"],
                command=command,
            )
        )
    metrics += [
        Metric(name=f"{label}, TAR at FAR {far}", value=tar, command=command)
        for far, tar in result["tar_at_far"].items()
    ]
    cards.record(folder, metrics)


def _held_out_embeddings(
    folder: Path, store_folder: Path, percent: int, console: Console
) -> tuple[lfw.FloatArray, NDArray[np.int64]]:
    """Unit embeddings and identities of a store's held-out faces, by the exported model."""
    store = open_store(store_folder)
    rows = np.flatnonzero(held_out(store.identity, percent))
    if not len(rows):
        raise TrainingError(f"{store_folder} has no held-out identities at {percent} %")
    embedder = OnnxEmbedder.load(folder)
    view = next(view for view, template in VIEWS.items() if template == embedder.manifest.template)
    with console.status(f"embedding {len(rows)} held-out faces"):
        parts = [
            embedder.embed(center_view(np.asarray(store.images[rows[start : start + 256]]), view))
            for start in range(0, len(rows), 256)
        ]
    return np.concatenate(parts), store.identity[rows]


def evaluate_openset(
    store: Path,
    *,
    model: Path | None,
    enrolled: int,
    trials: int,
    percent: int,
    record: bool,
    out: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Open-set identification on held-out identities; prints, returns and optionally writes the result."""
    folder = find_model(model)
    embeddings, identity = _held_out_embeddings(folder, store, percent, console)
    result = open_set_trials(embeddings, identity, enrolled=enrolled, trials=trials)
    table = Table(
        title=f"{folder.name}: open set, {enrolled} of {len(np.unique(identity))} held-out identities "
        f"enrolled, {trials} galleries"
    )
    table.add_column("figure")
    table.add_column("value", justify="right")
    for fpir, values in result["fnir_at_fpir"].items():
        table.add_row(f"FNIR at FPIR {fpir}", f"{100 * values['mean']:.2f} % ± {100 * values['std']:.2f}")
    table.add_row("rank-1 identification of mated probes", f"{100 * result['rank1']['mean']:.2f} %")
    console.print(table)
    if out is not None:
        _write_json(out, result)
    if record:
        command = _command()
        cards.record(
            folder,
            [
                Metric(
                    name=f"open set, {enrolled} enrolled, FNIR at FPIR {fpir}",
                    value=values["mean"],
                    command=command,
                )
                for fpir, values in result["fnir_at_fpir"].items()
            ],
        )
    return result


def export_model(
    checkpoint: Path,
    out: Path,
    *,
    store: Path | None,
    name: str | None,
    data: str,
    with_checkpoint: bool,
    console: Console,
) -> Exported:
    """Export, calibrate on the run's held-out identities, write the card."""
    state = checkpoints.load(checkpoint)
    config = state.config
    faces = store or Path(config.data.store)
    statement = (
        data
        or f"{state.samples:,} augmented faces seen, drawn from the store {faces.name}; research use only."
    )
    with console.status("exporting"):
        made = export(
            state, out, name=name or out.name, training_data=statement, calibration=None, command=_command()
        )
    embeddings, identity = _held_out_embeddings(out, faces, config.data.holdout_percent, console)
    protocol = CALIBRATION_PROTOCOL.format(images=len(identity), people=len(np.unique(identity)))
    calibration = calibrate.calibrate(*calibrate.impostor_similarities(embeddings, identity), protocol)
    manifest = made.manifest.model_copy(update={"calibration": calibration})
    from app.pipeline.manifest import save_manifest

    save_manifest(manifest, out)
    cards.write_card(out, _summary(state))
    for batch, value in made.parity.items():
        console.print(f"ONNX against torch, batch {batch}: largest difference {value:.1e}")
    console.print(
        f"{out}/model.onnx: {made.megabytes:.1f} MB; calibrated on {calibration.pairs:,} impostor pairs"
    )
    if with_checkpoint:
        size = release_checkpoint(state, out / "checkpoint.pt")
        console.print(f"{out}/checkpoint.pt: {size:.1f} MB; go on with init_from={out}/checkpoint.pt")
    return made


def _summary(state: checkpoints.State) -> str:
    config = state.config
    backbone = config.backbone
    norm = "with batch norm" if backbone.batch_norm else "without batch norm"
    pool = (
        f" The crop is averaged {config.data.input_pool}×{config.data.input_pool} before the network."
        if config.data.input_pool > 1
        else ""
    )
    return (
        f"{backbone.name} of width {backbone.width} {norm}, {backbone.embedding_size} outputs.{pool} "
        f"Trained in {state.seconds / 3600:.1f} hours on two CPU cores shared with other work, "
        f"{state.samples:,} faces seen in this phase (recipe `{config.name}`): {config.head.name} "
        f"with weight {config.head.weight:g} on labelled faces, regression to the teacher's descriptor "
        f"with weight {config.distill.weight:g}."
    )


def _write_json(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
