"""Does a gallery keep its promise? The FPIR that strangers really get, at each policy target and gallery
size.

    python -m benchmarks.thresholds --model models/dlib29-asoftmax --store runs/store
    python -m benchmarks.thresholds --data ../shared/data/train

The first embeds up to six prepared faces of each identity by a model; the second takes the descriptors that
come with the data.
Identities are split by a seed: one half calibrates, the other half is gallery, mated probes and strangers.
The calibration compares one face of each identity with every other, because people with many photographs
would otherwise fill the impostor scores with their own few faces. Each repeat draws another gallery.
"""

import argparse
import csv
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from sphereid.gallery.thresholds.calibration import ImpostorCalibration, gallery_threshold
from sphereid.gallery.types import FpirPolicy, Vectors
from sphereid_training.export.calibration import clumping

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of the table, means over the repeats. fixed_fpir: of the threshold that fits 50 faces and 1
    %."""

    identities: int
    faces: float
    target: float
    threshold: float
    extrapolated: bool
    fpir: float
    ratio: float
    spread: float
    fnir: float
    fixed_fpir: float


def embed(folder: Path, store_folder: Path, most: int, kept: Path | None) -> tuple[Vectors, NDArray[np.intp]]:
    """Labeled faces like `load`: up to `most` random faces of each identity of a prepared store
    (`python -m training prepare`), embedded by the model in a folder. kept: an .npz that is read instead
    where it is there, and written where not."""
    if kept is None or not kept.exists():
        from sphereid.faces.embed import OnnxEmbedder
        from sphereid_training.data.store import open_store
        from sphereid_training.evaluation.inputs import embed_faces

        store = open_store(store_folder)
        labeled = np.unique(store.identity[store.identity >= 0])
        rows = np.sort(one_each(store.identity, labeled, np.random.default_rng(0), most))
        embedder = OnnxEmbedder.load(folder, precision="fp32")
        console = Console(stderr=True)
        vectors = embed_faces(
            embedder.embed, embedder.manifest, store, rows, what=f"embed by {embedder.name}", console=console
        )
        owner = store.identity[rows]
        if kept is None:
            return vectors, np.unique(owner, return_inverse=True)[1]
        np.savez(kept, vectors=vectors, owner=owner)
    stored = np.load(kept)
    return stored["vectors"], np.unique(stored["owner"], return_inverse=True)[1]


def load(data: Path, embeddings: Path | None) -> tuple[Vectors, NDArray[np.intp]]:
    """Labeled faces: unit vectors (N, D) and the identity of each as 0..I-1. The mean is subtracted first,
    which the descriptor that comes with the data needs and a trained model's embedding does not."""
    with (data / "index.csv").open(newline="") as file:
        identity = {row["file"]: row["identity"] for row in csv.DictReader(file)}
    stored = np.load(embeddings or data / "teacher_dlib.npz")
    vectors = stored["embedding"].astype(np.float32)
    if embeddings is None:
        vectors -= vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = np.array([identity.get(str(name), "") for name in stored["name"]])
    labeled = names != ""
    return vectors[labeled], np.unique(names[labeled], return_inverse=True)[1]


def one_each(owner: NDArray[np.intp], wanted: Rows, rng: np.random.Generator, most: int = 1) -> Rows:
    """Up to `most` random rows of each of the wanted identities."""
    order = rng.permutation(np.flatnonzero(np.isin(owner, wanted)))
    order = order[np.argsort(owner[order], kind="stable")]
    _, start, counts = np.unique(owner[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(start, counts)
    return order[place < most]


def calibrate(
    vectors: Vectors, owner: NDArray[np.intp], people: Rows, seed: int, all_faces: bool
) -> ImpostorCalibration:
    """All pairs of one face each; with `all_faces`, of 3,000 random faces of different people."""
    rng = np.random.default_rng(seed)
    if all_faces:
        chosen = rng.choice(np.flatnonzero(np.isin(owner, people)), 3000, replace=False)
    else:
        chosen = one_each(owner, people, rng)
    faces = vectors[chosen]
    upper = np.triu(owner[chosen][:, None] != owner[chosen][None], 1)
    calibration = ImpostorCalibration.from_scores((faces @ faces.T)[upper])
    return replace(calibration, clumping=clumping(faces, owner[chosen]))


def measure(
    vectors: Vectors,
    owner: NDArray[np.intp],
    sizes: list[int],
    targets: list[float],
    each: int,
    repeats: int,
    seed: int,
    all_faces: bool = False,
) -> list[Cell]:
    """The table. each: faces enrolled of an identity, at most."""
    people = np.random.default_rng(seed).permutation(int(owner.max()) + 1)
    half = len(people) // 2
    calibration = calibrate(vectors, owner, people[:half], seed, all_faces)
    fixed = gallery_threshold(FpirPolicy(0.01), calibration, 50).value
    several = np.flatnonzero(np.bincount(owner) >= 2)
    cells = []
    for size in sizes:
        results = []
        for repeat in range(repeats):
            rng = np.random.default_rng([seed, size, repeat])
            rest = rng.permutation(people[half:])
            # Identities with a second photograph first, so that there are mated probes.
            rest = np.concatenate([rest[np.isin(rest, several)], rest[~np.isin(rest, several)]])
            inside, outside = rest[:size], rest[size:]
            mated = one_each(owner, np.intersect1d(inside, several), rng)
            enrolled_pool = owner.copy()
            enrolled_pool[mated] = -1  # a probe is never its own mate
            gallery = one_each(enrolled_pool, inside, rng, each)
            strangers = one_each(owner, outside, rng)
            against = vectors[gallery].T
            best = (vectors[strangers] @ against).max(axis=1)
            scores = vectors[mated] @ against
            hit = owner[gallery][scores.argmax(axis=1)] == owner[mated]
            for target in targets:
                limit = gallery_threshold(FpirPolicy(target), calibration, len(gallery))
                missed = 1 - np.mean(hit & (scores.max(axis=1) >= limit.value))
                results.append(
                    (
                        *(target, len(gallery), limit.value, limit.extrapolated),
                        *(np.mean(best >= limit.value), missed, np.mean(best >= fixed)),
                    )
                )
        table = np.array(results, dtype=np.float64)
        for target in targets:
            mine = table[table[:, 0] == target]
            mean = mine.mean(axis=0)
            cells.append(
                Cell(
                    identities=size,
                    faces=float(mean[1]),
                    target=target,
                    threshold=float(mean[2]),
                    extrapolated=bool(mean[3] > 0.5),
                    fpir=float(mean[4]),
                    ratio=float(mean[4] / target),
                    spread=float(mine[:, 4].std()),
                    fnir=float(mean[5]),
                    fixed_fpir=float(mean[6]),
                )
            )
    return cells


def show(cells: list[Cell]) -> str:
    """A Markdown table."""
    lines = [
        "| identities | faces | target | threshold | measured FPIR | to target | FNIR | fixed: FPIR |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for c in cells:
        mark = "*" if c.extrapolated else ""
        lines.append(
            f"| {c.identities:,} | {c.faces:,.0f} | {c.target:.0%} | {c.threshold:.3f}{mark} "
            f"| {c.fpir:.2%} ± {c.spread:.2%} | {c.ratio:.2f} | {c.fnir:.1%} | {c.fixed_fpir:.2%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/train"), help="folder with index.csv"
    )
    parser.add_argument(
        "--embeddings", type=Path, help="an .npz with `name` and `embedding` in place of the data's"
    )
    parser.add_argument("--model", type=Path, help="embed faces of --store by the model in this folder")
    parser.add_argument("--store", type=Path, default=Path("runs/store"), help="faces that were prepared")
    parser.add_argument("--faces", type=int, default=6, help="faces of an identity to embed, at most")
    parser.add_argument("--kept", type=Path, help="an .npz to keep the embeddings of --model in")
    parser.add_argument("--size", type=int, action="append", help="identities in the gallery")
    parser.add_argument("--target", type=float, action="append", help="promised FPIR")
    parser.add_argument("--each", type=int, default=1, help="faces enrolled of an identity, at most")
    parser.add_argument("--all-faces", action="store_true", help="calibrate on faces, not one of each person")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.model:
        vectors, owner = embed(given.model, given.store, given.faces, given.kept)
    else:
        vectors, owner = load(given.data, given.embeddings)
    sizes, targets = given.size or [50, 200, 1000], given.target or [0.1, 0.03, 0.01]
    cells = measure(vectors, owner, sizes, targets, given.each, given.repeats, given.seed, given.all_faces)
    print(show(cells))
    if given.json:
        given.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n")


if __name__ == "__main__":
    main()
