"""How the similarity of pooled embeddings should be read against a threshold calibrated on single faces.

    python benchmarks/pooling.py

Teacher descriptors of the identities with 12 images or more: one image is enrolled, K others are the faces of
a track. Compared are a single face; the cosine of the pooled (normalized mean) embedding; the mean of the
single cosines; and what `sphereid.video.decide` uses, their geometric mean. Printed for each: the false match
rate at the threshold where single faces have 1 in 1,000, and the true match rate there.
"""

import csv
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    folder = Path(os.environ.get("SPHEREID_SHARED_DATA", ROOT.parent / "shared" / "data")) / "train"
    archive = np.load(folder / "teacher_dlib.npz")
    vectors = archive["embedding"].astype(np.float32)
    vectors -= vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with (folder / "index.csv").open(newline="") as file:
        identity = {row["file"]: row["identity"] for row in csv.DictReader(file)}
    images: dict[str, list[int]] = {}
    for position, name in enumerate(archive["name"]):
        if who := identity.get(str(name)):
            images.setdefault(who, []).append(position)
    rng = np.random.default_rng(0)
    groups = [rng.permutation(own) for own in images.values() if len(own) >= 12]
    enrolled = np.stack([vectors[own[0]] for own in groups]).T

    def show(name: str, similarities: NDArray[np.float32]) -> None:
        same = np.eye(len(groups), dtype=bool)
        false, true = similarities[~same] >= threshold, similarities[same] >= threshold
        print(f"{name:22}  FMR {false.mean():.5f}  TMR {true.mean():.3f}")

    single = np.stack([vectors[own[1]] for own in groups]) @ enrolled
    threshold = float(np.quantile(single[~np.eye(len(groups), dtype=bool)], 0.999))
    print(f"{len(groups)} identities, threshold {threshold:.4f}")
    show("single", single)
    for count in (3, 10):
        mean = np.stack([vectors[own[1 : 1 + count]].mean(axis=0) for own in groups])
        length = np.linalg.norm(mean, axis=1, keepdims=True)
        show(f"{count} faces, pooled", (mean / length) @ enrolled)
        show(f"{count} faces, mean cosine", mean @ enrolled)
        show(f"{count} faces, as decided", (mean / np.sqrt(length)) @ enrolled)


if __name__ == "__main__":
    main()
