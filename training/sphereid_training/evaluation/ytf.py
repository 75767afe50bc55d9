"""YouTube Faces: pairs of videos, each one feature, the mean of its frames' (Wolf et al., CVPR 2011)."""

import re
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from sphereid.faces.embed import OnnxEmbedder

from sphereid_training.cli.evaluate.lfw import FARS
from sphereid_training.errors import TrainingError
from sphereid_training.evaluation.inputs import find_model
from sphereid_training.evaluation.lfw import Pairs, similarities
from sphereid_training.evaluation.photographs import Features, describe
from sphereid_training.evaluation.report import Report, Table, percent, publish, verification_tables
from sphereid_training.evaluation.verification import k_fold

FloatArray = NDArray[np.float32]


def read_splits(path: Path) -> Pairs:
    """Read the list of video pairs.

    `meta_and_splits.mat`, as it comes with the videos: `video_names`, V names PERSON/VIDEO, and `Splits`,
    (500, 3, 10) of two places in them, counted from 1, and 1 for the same person, by fold. Or text: lines
    `FOLD, PERSON/VIDEO, PERSON/VIDEO, …, 0 or 1`, commas between; a first line of names is skipped.
    Raises TrainingError when the file is neither, naming the line that is none.
    """
    return _read_matlab(path) if path.suffix == ".mat" else _read_text(path)


def _read_matlab(path: Path) -> Pairs:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        stored: dict[str, Any] = loadmat(path, simplify_cells=True)
        names = [str(name).strip().replace("\\", "/") for name in np.atleast_1d(stored["video_names"])]
        splits = np.atleast_3d(stored["Splits"]).astype(np.int64)
    except OSError as error:
        raise TrainingError(f"the list of videos {path} cannot be read: {error.strerror or error}") from None
    except (MatReadError, KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise TrainingError(f"{path} is not YouTube Faces' list of video pairs: {error}") from None
    # (pairs, 3, folds) to pairs fold by fold: two places and whether they are the same person.
    rows = splits.transpose(2, 0, 1).reshape(-1, splits.shape[1])
    places, same = rows[:, :2] - 1, rows[:, -1]
    fits = (
        splits.shape[1] == 3 and np.isin(places, np.arange(len(names))).all() and np.isin(same, (0, 1)).all()
    )
    if not fits or not len(rows):
        raise TrainingError(
            f"{path} is not YouTube Faces' list of video pairs: Splits does not fit its names"
        )
    used, place = np.unique(places, return_inverse=True)
    left, right = place.reshape(-1, 2).T
    fold = np.repeat(np.arange(1, splits.shape[2] + 1), splits.shape[0])
    return Pairs([names[row] for row in used], left, right, same == 1, fold)


def _read_text(path: Path) -> Pairs:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise TrainingError(f"the list of videos {path} cannot be read: {error.strerror}") from None
    first, second, same, fold = [], [], [], []
    for number, line in enumerate(lines, 1):
        fields = [field.strip() for field in line.split(",")]
        if not line.strip() or (number == 1 and not fields[0].isdigit()):
            continue
        videos = [field for field in fields[1:] if "/" in field]
        if not fields[0].isdigit() or len(videos) != 2 or fields[-1] not in ("0", "1"):
            raise TrainingError(f"{path}, line {number}: not `FOLD, PERSON/VIDEO, PERSON/VIDEO, 0 or 1`")
        first.append(videos[0])
        second.append(videos[1])
        same.append(fields[-1] == "1")
        fold.append(int(fields[0]))
    if not same:
        raise TrainingError(f"{path} lists no pairs of videos")
    names = sorted({*first, *second})
    row = {name: index for index, name in enumerate(names)}
    return Pairs(
        names,
        np.array([row[name] for name in first]),
        np.array([row[name] for name in second]),
        np.array(same),
        np.array(fold),
    )


def video_of(name: str) -> str:
    """PERSON/VIDEO of a frame PERSON/VIDEO/FRAME."""
    return "/".join(PurePosixPath(name).parts[-3:-1])


def spread_frames(names: list[str], videos: set[str], most: int) -> list[str]:
    """At most `most` frames of each wanted video, evenly over its length.

    A video's frames are ordered by the numbers in their names: 0.99.jpg comes before 0.100.jpg.
    """
    frames: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if video_of(name) in videos:
            frames[video_of(name)].append(name)
    chosen: set[str] = set()
    for each in frames.values():
        each.sort(key=_by_number)
        places = np.unique(np.linspace(0, len(each) - 1, min(most, len(each))).round().astype(int))
        chosen.update(each[place] for place in places)
    return [name for name in names if name in chosen]


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", name)]


def video_features(features: Features, videos: list[str]) -> tuple[FloatArray, NDArray[np.bool_]]:
    """(V, D) unit means over the frames with a face, and (V,) which videos have any."""
    row = {name: index for index, name in enumerate(videos)}
    sums: NDArray[np.float64] | None = None
    counts = np.zeros(len(videos), np.int64)
    start = 0
    for block, found in features.blocks():
        rows = np.array([row[video_of(name)] for name in features.names[start : start + len(block)]])
        start += len(block)
        sums = np.zeros((len(videos), block.shape[1])) if sums is None else sums
        np.add.at(sums, rows[found], block[found])
        np.add.at(counts, rows[found], 1)
    assert sums is not None
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return (sums / np.maximum(lengths, 1e-12)).astype(np.float32), counts > 0


def evaluate_ytf(
    videos: Path,
    splits: Path,
    *,
    model: Path | None,
    frames: int,
    aligned: bool,
    cache: Path,
    out: Path | None,
    folder: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Ten-fold accuracy over pairs of videos; a pair with a video without a face counts as different."""
    pairs = read_splits(splits)
    embedder = OnnxEmbedder.load(find_model(model), precision="fp32")
    wanted = set(pairs.names)
    features = describe(
        videos,
        embedder,
        cache=cache,
        aligned=aligned,
        what="embed frames",
        console=console,
        choose=lambda names: spread_frames(names, wanted, frames),
    )
    there = {video_of(name) for name in features.names}
    absent = sorted(wanted - there)
    if absent:
        raise TrainingError(
            f"{len(absent)} of {len(wanted)} videos in {splits.name} are not in {videos}, the first is "
            f"{absent[0]}"
        )
    x, found = video_features(features, pairs.names)
    scores = similarities(pairs, x, found)
    made = k_fold(scores, pairs.same, pairs.fold)
    terms, thresholds, drawn, refused = verification_tables(scores, pairs.same, FARS)
    result = {
        "model": embedder.name,
        "protocol": f"ten folds over videos, mean of at most {frames} frames each",
        "pairs": len(pairs.same),
        "videos": len(pairs.names),
        "not_found": float(np.mean(~found)),
        "accuracy": made.accuracy,
        "std": made.std,
        "standard_error": made.standard_error,
        "folds": list(made.accuracies),
        **terms,
    }
    rows = (
        ("accuracy over folds", f"{percent(made.accuracy)} ± {100 * made.std:.2f}"),
        ("videos without a face found", percent(float(np.mean(~found)))),
    )
    facts = (
        ("model", embedder.name),
        ("videos", f"{len(pairs.names):,}, {len(features.names):,} frames"),
        ("protocol", str(result["protocol"])),
    )
    tables = (Table("figures", ("figure", "value"), rows), thresholds)
    name = f"ytf-{embedder.name}"
    report = Report(name, f"YouTube Faces: {embedder.name}", facts, result, tables, drawn, refused)
    publish(report, out=out, folder=folder, console=console)
    return result
