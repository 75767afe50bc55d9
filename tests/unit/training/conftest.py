"""A small store of synthetic faces: every identity a color pattern, every image a noisy copy of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from sphereid_training.config import Config, from_dict


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 identities of 8 images each, 16 unlabelled images, and descriptors that follow the patterns."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("store")
    patterns = rng.uniform(40, 215, (26, 8, 8, 3))
    names, identity, images = [], [], []
    for person in range(26):
        for number in range(8):
            noisy = np.kron(patterns[person], np.ones((16, 16, 1))) + rng.normal(0, 12, (128, 128, 3))
            images.append(np.clip(noisy, 0, 255).astype(np.uint8))
            unlabelled = person >= 24
            names.append(
                f"toys/{'unlabelled' if unlabelled else f'p{person:05d}'}/{person:02d}{number:03d}.webp"
            )
            identity.append(-1 if unlabelled else person)
    np.save(folder / "images.npy", np.stack(images))
    np.savez(folder / "meta.npz", name=np.array(names), identity=np.array(identity))
    basis = rng.normal(size=(192, 16)).astype(np.float32)
    flat = patterns.reshape(26, -1) @ basis
    np.save(folder / "teacher.npy", np.repeat(flat, 8, axis=0).astype(np.float32))
    return folder


@pytest.fixture
def small_config(store_folder: Path) -> Callable[..., Config]:
    """A run that takes seconds. Sections are merged into it."""

    def make(**sections: dict[str, object] | str) -> Config:
        values: dict[str, object] = {
            "name": "toy",
            "data": {
                "store": str(store_folder),
                "input_pool": 2,
                "min_images_per_class": 2,
                "holdout_percent": 20,
            },
            "backbone": {"name": "sphereface4", "width": 8, "batch_norm": True, "embedding_size": 32},
            "head": {"name": "cosface", "weight": 1.0, "options": {"s": 16, "m": 0.1}},
            "distill": {"weight": 1.0, "relation": 1.0},
            "optimizer": {"batch_size": 16, "samples": 320, "warmup": 4, "lr": 0.05},
            "engine": {"tensorboard": False, "threads": 1, "evaluation_pairs": 20, "evaluate_seconds": 1e9},
        }
        for section, change in sections.items():
            before = values.get(section)
            values[section] = (
                {**before, **change} if isinstance(before, dict) and isinstance(change, dict) else change
            )
        return from_dict(values)

    return make
