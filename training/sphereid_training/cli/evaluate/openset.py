"""`evaluate openset`: identification of held-out identities, with strangers among the probes."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sphereid_training.errors import TrainingError
from sphereid_training.evaluation import plots, sphere
from sphereid_training.evaluation.inputs import find_model, held_out_embeddings
from sphereid_training.evaluation.openset import FPIRS, open_set_searches, summarize
from sphereid_training.evaluation.report import Report, Table, percent, publish, record_figures


def evaluate_openset(
    store: Path,
    *,
    model: Path | None,
    enrolled: int,
    trials: int,
    holdout: int,
    record: bool,
    out: Path | None,
    folder: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Open-set identification on held-out identities; prints, writes and returns the result."""
    chosen = find_model(model)
    embeddings, identity = held_out_embeddings(chosen, store, holdout, console)
    people = len(np.unique(identity))
    try:
        searches = open_set_searches(embeddings, identity, enrolled=enrolled, trials=trials)
    except ValueError as error:
        raise TrainingError(f"{store}: {error}") from None
    result, refused = summarize(searches, FPIRS)
    spread = {
        "angular_fisher_score": sphere.angular_fisher_score(embeddings.astype(np.float64), identity),
        "alignment": sphere.alignment(embeddings.astype(np.float64), identity),
        "uniformity": sphere.uniformity(embeddings.astype(np.float64)),
    }
    result = {
        "model": chosen.name,
        "enrolled": enrolled,
        "identities": people,
        "trials": trials,
        **result,
        **spread,
    }
    rows = [
        (f"FNIR at FPIR {fpir}", f"{percent(values['mean'])} ± {100 * values['std']:.2f}",
         f"{values['threshold']:.4f}")
        for fpir, values in result["fnir_at_fpir"].items()
    ]  # fmt: skip
    rows.append(("rank-1 identification of mated probes", percent(result["rank1"]["mean"]), ""))
    rows += [
        (f"{name.replace('_', ' ')} of all held-out faces", f"{v:.4f}", "") for name, v in spread.items()
    ]
    mated = np.concatenate([search.mated for search in searches])
    others = np.concatenate([search.non_mated for search in searches])
    fewest = min(len(search.non_mated) for search in searches)
    levels = np.geomspace(max(1 / fewest, 1e-4), 1, 80)
    lines = [(levels, np.array([1 - search.fnir_at(level)[0] for level in levels])) for search in searches]
    thresholds = {f"FPIR {k}": v["threshold"] for k, v in result["fnir_at_fpir"].items()}
    drawn = (
        plots.curves("Open set", "FPIR (log)", "TPIR, mate at rank 1", lines),
        plots.histograms({"mates at rank 1": mated, "best score of strangers": others}, thresholds),
    )
    facts = (
        ("model", chosen.name),
        ("galleries", f"{trials} random ones of {enrolled} of {people} held-out identities, one image each"),
        (
            "probes",
            f"{len(searches[0].mated):,} mated, {len(searches[0].non_mated):,} non-mated in the first",
        ),
    )
    table = Table("figures", ("figure", "value", "threshold (mean)"), tuple(rows))
    report = Report(
        f"openset-{chosen.name}-{enrolled}",
        f"Open set: {chosen.name}",
        facts,
        result,
        (table,),
        drawn,
        refused,
    )
    publish(report, out=out, folder=folder, console=console)
    if record:
        label = f"open set, {enrolled} enrolled, FNIR at FPIR"
        record_figures(chosen, {f"{label} {k}": v["mean"] for k, v in result["fnir_at_fpir"].items()})
    return result
