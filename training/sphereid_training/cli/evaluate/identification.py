"""`evaluate blufr`, `megaface` and `trillion`: protocols over folders of photographs, one folder a person."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from sphereid.faces.embed import OnnxEmbedder

from sphereid_training.errors import TrainingError
from sphereid_training.evaluation import plots
from sphereid_training.evaluation.blufr import Trial, blufr, published_splits, random_splits
from sphereid_training.evaluation.inputs import find_model
from sphereid_training.evaluation.megaface import PublishedList, megaface
from sphereid_training.evaluation.photographs import EmbeddingFile, Features, describe, person_of
from sphereid_training.evaluation.report import Report, Table, percent, publish
from sphereid_training.evaluation.streaming import trillion

FloatArray = NDArray[np.float32]
Distractors = Features | EmbeddingFile


@dataclass(frozen=True, slots=True)
class Describer:
    """Turns photographs into a model's features."""

    embedder: OnnxEmbedder
    aligned: bool
    cache: Path
    console: Console

    def photographs(self, source: Path, what: str, listed: PublishedList | None = None) -> Features:
        """Of a folder or tar. what: for the progress bar. listed: take only these."""
        choose = {} if listed is None else {"choose": listed.choose}
        return describe(
            source,
            self.embedder,
            cache=self.cache,
            aligned=self.aligned,
            what=what,
            console=self.console,
            **choose,
        )

    def distractors(self, source: Path, listed: PublishedList | None = None) -> Distractors:
        """Of a folder or tar, or as they stand in an `.npy` file."""
        if source.suffix != ".npy":
            return self.photographs(source, "embed distractors", listed)
        if listed is not None:
            raise TrainingError(f"{listed.path.name} lists photographs, {source.name} holds none")
        return EmbeddingFile.open(source, self.embedder.dim)


def describer(model: Path | None, *, aligned: bool, cache: Path, console: Console) -> tuple[str, Describer]:
    """The model's name, and what turns photographs into its features."""
    embedder = OnnxEmbedder.load(find_model(model), precision="fp32")
    return embedder.name, Describer(embedder, aligned, cache, console)


def people(features: Features) -> tuple[FloatArray, NDArray[np.int64], int]:
    """(N, D) features of the photographs with a face, their identities by folder, and how many had none."""
    rows, found = features.load()
    _, identity = np.unique([person_of(name) for name in features.names], return_inverse=True)
    return rows[found], identity[found], int((~found).sum())


def evaluate_blufr(
    images: Path,
    *,
    model: Path | None,
    lists: Path | None,
    gallery: int,
    trials: int,
    aligned: bool,
    cache: Path,
    out: Path | None,
    folder: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Mean less one standard deviation over the splits, as BLUFR reports."""
    name, run = describer(model, aligned=aligned, cache=cache, console=console)
    described = run.photographs(images, "embed photographs")
    features, identity, lost = people(described)
    there = [title for title, found in zip(described.names, described.load()[1], strict=True) if found]
    try:
        with console.status("comparing all pairs"):
            if lists is not None:
                splits = published_splits(lists, there)
            else:
                splits = list(random_splits(identity, gallery=gallery, trials=trials))
            made = blufr(features, identity, splits)
    except ValueError as error:
        raise TrainingError(f"{images}: {error}; choose another --gallery") from None
    enrolled = max(len(split.gallery) for split in splits)
    drawn = (
        "random splits by identity, 74 % of them tested" if lists is None else f"the splits of {lists.name}"
    )
    result: dict[str, Any] = {
        "model": name,
        "protocol": f"BLUFR's measures on {drawn}",
        "trials": len(splits),
        "gallery": enrolled,
        "images": len(features),
        "not_found": lost,
        "vr_at_far": _spread([trial.vr for trial in made]),
        "dir_at_far": _spread([trial.dir for trial in made]),
    }
    rows = [
        (f"{kind} at FAR {far}", percent(v["mean_minus_std"]), f"{percent(v['mean'])} ± {100 * v['std']:.2f}")
        for kind, key in (("verification rate", "vr_at_far"), ("rank-1 DIR, open set", "dir_at_far"))
        for far, v in result[key].items()
    ]
    report = Report(
        f"blufr-{name}-{images.stem}",
        f"BLUFR: {name}",
        (
            ("model", name),
            (
                "photographs",
                f"{len(features):,} of {len(np.unique(identity)):,} people; {lost} without a face",
            ),
            ("protocol", f"{result['protocol']}; {enrolled} enrolled"),
        ),
        result,
        (Table("figures", ("figure", "mean − std", "mean ± std"), tuple(rows)),),
        _blufr_plots(made),
    )
    publish(report, out=out, folder=folder, console=console)
    return result


def _spread(trials: list[dict[float, float]]) -> dict[str, dict[str, float]]:
    """By FAR, over the trials; a FAR that one of them can't show is left out."""
    made = {}
    for far in sorted(set.intersection(*(set(trial) for trial in trials))):
        values = [trial[far] for trial in trials]
        mean, std = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        made[f"{far:g}"] = {"mean": mean, "std": std, "mean_minus_std": mean - std}
    return made


def _blufr_plots(trials: list[Trial]) -> tuple[str, ...]:
    levels = np.geomspace(max(1 / min(len(t.search.non_mated) for t in trials), 1e-4), 1, 60)
    lines = [(levels, np.array([1 - t.search.fnir_at(level)[0] for level in levels])) for t in trials]
    mated = np.concatenate([trial.search.mated for trial in trials])
    others = np.concatenate([trial.search.non_mated for trial in trials])
    return (
        plots.curves("Open set", "FAR (log)", "DIR, rank 1", lines),
        plots.histograms({"mates at rank 1": mated, "best score of strangers": others}, {}),
    )


def evaluate_megaface(
    probes: Path,
    distractors: Path,
    *,
    probe_list: Path | None,
    distractor_list: Path | None,
    model: Path | None,
    far: float,
    aligned: bool,
    cache: Path,
    out: Path | None,
    folder: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Rank-1 among growing numbers of distractors, and TAR at a tiny FAR among all."""
    name, run = describer(model, aligned=aligned, cache=cache, console=console)
    lists = [None if path is None else PublishedList.read(path) for path in (probe_list, distractor_list)]
    described = run.photographs(probes, "embed probes", lists[0])
    x, identity, lost = people(described)
    others = run.distractors(distractors, lists[1])
    absent = {
        each.path.name: len(each.wanted) - len(there)
        for each, there in zip(lists, (described, others), strict=True)
        if each is not None
    }
    total = others.count_found()
    sizes = [10**k for k in range(1, 7) if 10**k < total] + [total]
    ranks: dict[int, float] = {}
    try:
        with console.status("comparing"):
            for size in sizes:
                # The smallest FAR that so few pairs can show: only rank 1 is read here.
                shown = max(far, 1 / (size * len(x)))
                made = megaface(x, identity, _first(others, size), total=size, far=shown)
                ranks[size] = made.rank1
            refused: tuple[str, ...] = ()
            if far * total * len(x) < 1 - 1e-9:
                refused = (
                    f"FAR {far:g} needs at least {int(np.ceil(1 / far))} impostor pairs, there are "
                    f"{total * len(x)}",
                )
    except ValueError as error:
        raise TrainingError(f"{probes}: {error}") from None
    result: dict[str, Any] = {
        "model": name,
        "protocol": "MegaFace challenge 1: every ordered same-identity pair, mate and distractors",
        "probes": len(x),
        "pairs": made.pairs,
        "distractors": total,
        "distractors_from": distractors.name,
        "lists": [each.path.name for each in lists if each is not None],
        "listed_but_absent": absent,
        "not_found": {"probes": lost, "distractors": len(others) - total},
        "rank1": {str(size): value for size, value in ranks.items()},
        "tar_at_far": {} if refused else {f"{far:g}": made.tar},
        "threshold": None if refused else made.threshold,
        "refused": list(refused),
    }
    rows = [(f"rank 1 among {size:,} distractors", percent(value)) for size, value in ranks.items()]
    if not refused:
        rows.append((f"TAR at FAR {far:g} (threshold {made.threshold:.4f})", percent(made.tar)))
    line = (np.array(list(ranks)), np.array(list(ranks.values())))
    drawn = (
        plots.curves("Identification", "distractors (log)", "rank-1 rate", [line]),
        plots.histograms(_scores(x, identity, others), {} if refused else {f"FAR {far:g}": made.threshold}),
    )
    facts = (
        ("model", name),
        (
            "probes",
            f"{len(x):,} of {len(np.unique(identity))} people, {made.pairs:,} pairs; {lost} without a face",
        ),
        ("distractors", f"{total:,} with a face of {len(others):,} in {distractors.name}"),
        ("lists", ", ".join(f"{title} ({n:,} absent)" for title, n in absent.items()) or "none"),
        ("protocol", str(result["protocol"])),
    )
    table = Table("figures", ("figure", "value"), tuple(rows))
    report = Report(f"megaface-{name}", f"MegaFace: {name}", facts, result, (table,), drawn, refused)
    publish(report, out=out, folder=folder, console=console)
    return result


def _first(features: Distractors, count: int) -> Any:
    """Blocks of the first `count` found rows."""
    for block in features.found_blocks():
        if count <= 0:
            return
        yield block[:count]
        count -= len(block)


def _scores(x: FloatArray, identity: NDArray[np.int64], others: Distractors) -> dict[str, NDArray[Any]]:
    """Scores for a histogram: all mates of a sample of probes, and the first block of distractors."""
    sample = np.arange(min(len(x), 1000))
    scores = x[sample] @ x.T
    own = (identity[sample, None] == identity[None, :]) & (sample[:, None] != np.arange(len(x))[None, :])
    strangers = x[sample] @ next(others.found_blocks()).T
    return {"mates": scores[own], "distractors (sample)": strangers.ravel()[:2_000_000]}


def evaluate_trillion(
    faces: Path,
    distractors: Path | None,
    *,
    model: Path | None,
    fars: list[float],
    aligned: bool,
    cache: Path,
    out: Path | None,
    folder: Path | None,
    console: Console,
) -> dict[str, Any]:
    """TPR@FAR over all pairs."""
    name, run = describer(model, aligned=aligned, cache=cache, console=console)
    x, identity, lost = people(run.photographs(faces, "embed faces"))
    others = run.distractors(distractors) if distractors is not None else None
    total = others.count_found() if others is not None else 0
    try:
        with console.status("comparing all pairs"):
            blocks = others.found_blocks() if others is not None else ()
            made = trillion(x, identity, blocks, total=total, fars=sorted(fars, reverse=True))
    except ValueError as error:
        raise TrainingError(f"{faces}: {error}") from None
    result: dict[str, Any] = {
        "model": name,
        "protocol": "all pairs of faces, and faces with distractors",
        "genuine": made.genuine,
        "impostors": made.impostors,
        "not_found": lost,
        "tpr_at_far": {f"{row.far:g}": row.tpr for row in made.rows},
        "tpr_intervals": {f"{row.far:g}": list(row.interval) for row in made.rows},
        "thresholds_at_far": {f"{row.far:g}": row.threshold for row in made.rows},
        "refused": list(made.refused),
    }
    rows = tuple(
        (f"{row.far:g}", f"{row.threshold:.4f}", percent(row.tpr),
         f"{percent(row.interval[0])} to {percent(row.interval[1])}")
        for row in made.rows
    )  # fmt: skip
    facts = (
        ("model", name),
        ("faces", f"{len(x):,} of {len(np.unique(identity)):,} people; {lost} without a face"),
        ("distractors", f"{total:,}" + (f" in {distractors.name}" if distractors is not None else "")),
        ("pairs", f"{made.genuine:,} genuine, {made.impostors:,} impostor"),
    )
    drawn: tuple[str, ...] = ()
    if made.rows:
        line = (np.array([row.far for row in made.rows]), np.array([row.tpr for row in made.rows]))
        lines = {f"FAR {row.far:g}": row.threshold for row in made.rows}
        strangers = _strangers(x, identity)
        drawn = (
            plots.curves("TPR", "FAR (log)", "TPR", [line]),
            plots.histograms(strangers if others is None else _scores(x, identity, others), lines),
        )
    table = Table("thresholds", ("FAR", "threshold", "TPR", "95 % interval"), rows)
    report = Report(f"trillion-{name}", f"TPR@FAR: {name}", facts, result, (table,), drawn, made.refused)
    publish(report, out=out, folder=folder, console=console)
    return result


def _strangers(x: FloatArray, identity: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Scores of a sample of faces with all others."""
    sample = np.arange(min(len(x), 1000))
    scores = x[sample] @ x.T
    same = identity[sample, None] == identity[None, :]
    other = sample[:, None] != np.arange(len(x))[None, :]
    return {"genuine": scores[same & other], "impostor": scores[~same]}
