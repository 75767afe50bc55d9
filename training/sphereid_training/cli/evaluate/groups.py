"""`evaluate groups`: what a model's calibrated thresholds mean within each collection of faces."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from sphereid.faces.embed import OnnxEmbedder

from sphereid_training.data.store import open_store
from sphereid_training.errors import TrainingError
from sphereid_training.evaluation import plots
from sphereid_training.evaluation.groups import LEAST_FACES, Strangers, embed_people
from sphereid_training.evaluation.inputs import find_model, view_of
from sphereid_training.evaluation.report import Report, Table, publish, record_figures

FMRS: Final = (0.01, 0.001, 0.0001)


def evaluate_groups(
    store_folder: Path,
    *,
    model: Path | None,
    faces: int,
    record: bool,
    out: Path | None,
    folder: Path | None,
    console: Console,
) -> dict[str, Any]:
    """False match rates within each collection; prints, writes and returns the result."""
    chosen = find_model(model)
    embedder = OnnxEmbedder.load(chosen, precision="fp32")
    calibration = embedder.manifest.calibration
    if calibration is None:
        raise TrainingError(f"{chosen} has no calibration: `export` measures one on held-out identities")
    levels = {q.fmr: q.similarity for q in calibration.quantiles}
    thresholds = {f"{fmr:g}": _nearest(levels, fmr) for fmr in FMRS if min(levels) <= fmr * 1.5}
    store = open_store(store_folder)
    rows, view = np.arange(len(store.identity)), view_of(embedder.manifest)
    people = embed_people(embedder.embed, view, store, rows, faces, what="embed strangers", console=console)
    if not people:
        raise TrainingError(f"{store_folder} has no collection with {LEAST_FACES} people")
    found = [Strangers.of(group, embeddings) for group, embeddings in people.items()]
    result = {
        "model": chosen.name,
        "thresholds": thresholds,
        "groups": {
            each.group: {
                "faces": each.faces,
                "pairs": len(each.similarities),
                "mean_similarity": float(each.similarities.mean()),
                "fmr": {fmr: float(each.fmr(threshold)) for fmr, threshold in thresholds.items()},
                "threshold_at_fmr": {fmr: each.threshold(float(fmr)) for fmr in thresholds},
            }
            for each in found
        },
    }
    header = (
        "collection",
        "people",
        "mean",
        *(f"FMR at {t:.3f} (calibrated {k})" for k, t in thresholds.items()),
    )
    table = tuple(
        (each.group, f"{each.faces:,}", f"{each.similarities.mean():.3f}",
         *(f"{each.fmr(threshold):.2g}" for threshold in thresholds.values()))
        for each in found
    )  # fmt: skip
    grid = np.linspace(min(float(each.similarities.min()) for each in found), 1, 200)
    report = Report(
        f"groups-{chosen.name}",
        f"Strangers by collection: {chosen.name}",
        (
            ("model", chosen.name),
            ("pairs", "all pairs within a collection: one face of each identity, and faces without a label, "
             "each taken for a person of its own; trained on or not"),
        ),
        result,
        (Table("false match rates", header, table),),
        (plots.false_match_rates(grid, {each.group: each.fmr(grid) for each in found}, thresholds),),
    )  # fmt: skip
    publish(report, out=out, folder=folder, console=console)
    if record:
        figures = {
            f"strangers of {each.group}, FMR where it is calibrated to {fmr}": float(each.fmr(threshold))
            for fmr, threshold in thresholds.items()
            for each in found
        }
        record_figures(chosen, figures)
    return result


def _nearest(levels: dict[float, float], fmr: float) -> float:
    return levels[min(levels, key=lambda level: abs(np.log(level / fmr)))]
