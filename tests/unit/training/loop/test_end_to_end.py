"""From shards to a measured model: SphereFace-4 learns identities that it then tells apart in people it never
saw."""

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from sphereid.faces.embed import OnnxEmbedder
from sphereid_training.config import Config, from_dict
from sphereid_training.data.augment import center_view
from sphereid_training.data.prepare import prepare
from sphereid_training.data.store import held_out, open_store
from sphereid_training.evaluation.verification import k_fold
from sphereid_training.export.model import export
from sphereid_training.loop import checkpoint
from sphereid_training.loop.engine import train

QUIET = Console(quiet=True)
FACTORS = 8


def hypersphere_shard(path: Path, *, people: int, images: int, seed: int) -> None:
    """A tar of pictures that show a point of a hypersphere, its identity, under stronger nuisance.

    A picture is a mixture of sixteen fixed patterns: eight weights are a direction near its identity's, eight
    are drawn anew for every picture and are three times as large.
    """
    patterns = np.random.default_rng(0).normal(size=(2 * FACTORS, 8, 8, 3))
    rng = np.random.default_rng(seed)
    with tarfile.open(path, "w") as tar:
        for person in range(people):
            center = rng.normal(size=FACTORS)
            center /= np.linalg.norm(center)
            for number in range(images):
                near = center + 0.25 * rng.normal(size=FACTORS) / np.sqrt(FACTORS)
                nuisance = 3 * rng.normal(size=FACTORS) / np.sqrt(FACTORS)
                weights = np.concatenate([near / np.linalg.norm(near), nuisance])
                small = np.clip(128 + 18 * np.tensordot(weights, patterns, 1), 0, 255).astype(np.uint8)
                canvas = cv2.resize(small, (128, 128), interpolation=cv2.INTER_CUBIC)
                data = cv2.imencode(".png", canvas)[1].tobytes()
                info = tarfile.TarInfo(f"sphere/p{person:05d}/{number:05d}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def recipe(store: Path, **changes: dict[str, object]) -> Config:
    """The shipped smoke recipe in small, without the augmentations of photographs."""
    values: dict[str, dict[str, object]] = {
        "data": {"store": str(store), "input_pool": 2, "min_images_per_class": 5, "holdout_percent": 25},
        "augment": {
            "flip": False, "shift": 0, "scale": 0, "rotation_degrees": 0, "p_downscale": 0, "p_blur": 0,
            "p_grey": 0, "brightness": 0, "contrast": 0, "p_erase": 0,
        },
        "backbone": {"name": "sphereface4", "width": 16, "batch_norm": True, "embedding_size": 32},
        "head": {"name": "a_softmax", "grad_mode": "normalized", "options": {"m": 4, "gamma": 1.0}},
        "optimizer": {"lr": 0.05, "warmup": 20, "samples": 12000, "batch_size": 64, "clip": 5},
        "engine": {"tensorboard": False, "threads": 1, "evaluate_seconds": 1e9, "evaluation_pairs": 100},
    }  # fmt: skip
    for section, change in changes.items():
        values[section] = {**values[section], **change}
    return from_dict({"name": "e2e", **values})


def accuracy_on_strangers(embed: object, crops: NDArray[np.uint8], identity: NDArray[np.int64]) -> float:
    """Ten-fold accuracy on 1,000 genuine and 1,000 impostor pairs."""
    assert callable(embed)
    features = embed(crops)
    rng = np.random.default_rng(0)
    pairs = []
    for kind in (True, False):
        while len(pairs) < (1000 if kind else 2000):
            a, b = rng.integers(0, len(identity), 2)
            if a != b and (identity[a] == identity[b]) == kind:
                pairs.append((a, b))
    left, right = np.array(pairs).T
    similarity = np.sum(features[left] * features[right], axis=1).astype(np.float64)
    return k_fold(similarity, np.arange(2000) < 1000, np.arange(2000) % 10).accuracy


def trained(config: Config, folder: Path) -> tuple[OnnxEmbedder, NDArray[np.uint8], NDArray[np.int64]]:
    """Train, export, and load what the service would; with the crops of held-out identities."""
    state = checkpoint.load(train(config, runs=folder))
    export(state, folder / "model", name="e2e", training_data="made up", calibration=None, command="x")
    store = open_store(Path(config.data.store))
    rows = np.flatnonzero(held_out(store.identity, config.data.holdout_percent))
    return OnnxEmbedder.load(folder / "model"), np.asarray(store.images[rows]), store.identity[rows]


def pixels(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What no learning gives: the centered picture itself."""
    flat = crops.reshape(len(crops), -1).astype(np.float32)
    flat -= flat.mean(axis=0)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def test_sphereface4_learns_a_hypersphere(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    hypersphere_shard(tmp_path / "shards" / "one.tar", people=80, images=16, seed=1)
    prepare(tmp_path / "shards", tmp_path / "store", console=QUIET)
    embedder, canvases, identity = trained(recipe(tmp_path / "store"), tmp_path / "run")
    crops = center_view(canvases, "112x96")
    assert accuracy_on_strangers(pixels, crops, identity) < 0.65
    # 80 to 84 % were measured.
    assert accuracy_on_strangers(embedder.embed, crops, identity) > 0.72


def small_shard(source: Path, target: Path, *, people: int, images: int) -> None:
    """The first images of the first people of a tar of GROUP/IDENTITY/IMAGE."""
    seen: dict[str, int] = {}
    target.parent.mkdir(parents=True)
    with tarfile.open(source) as whole, tarfile.open(target, "w") as part:
        for member in whole:
            person = Path(member.name).parent.name
            if not member.isfile() or person == "unlabelled":
                continue
            if seen.setdefault(person, 0) < images and len(seen) <= people:
                seen[person] += 1
                part.addfile(member, whole.extractfile(member))


@pytest.mark.slow
@pytest.mark.data
def test_sphereface4_learns_from_a_small_real_shard(tmp_path: Path, shared_data: Path) -> None:
    shard = tmp_path / "shards" / "some.tar"
    small_shard(shared_data / "train" / "celebrities.tar", shard, people=70, images=40)
    prepare(shard.parent, tmp_path / "store", console=QUIET)
    config = recipe(tmp_path / "store", augment={"flip": True, "shift": 3}, optimizer={"samples": 16000})
    embedder, canvases, identity = trained(config, tmp_path / "run")
    crops = center_view(canvases, "112x96")
    before = accuracy_on_strangers(pixels, crops, identity)
    after = accuracy_on_strangers(embedder.embed, crops, identity)
    # 61.5 and 76.2 % were measured.
    assert after > max(0.68, before)
