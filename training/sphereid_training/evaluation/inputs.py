"""What a measurement looks at: a model, the crops of its images, and their embeddings."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sphereid.faces.detect import MtcnnDetector
from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.manifest import Manifest

from sphereid_training.data.augment import VIEWS, center_view
from sphereid_training.data.store import FaceStore, held_out, open_store
from sphereid_training.errors import TrainingError
from sphereid_training.evaluation import lfw

FloatArray = NDArray[np.float32]


def find_model(model: Path | None) -> Path:
    """The given model folder, or the one that the service would take: the first by name in models/."""
    if model is not None:
        return model
    folders = sorted(path.parent for path in Path("models").glob("*/manifest.json"))
    if not folders:
        raise TrainingError("there is no model in models/: export one, or name a folder with --model")
    return folders[0]


def bar(console: Console) -> Progress:
    """A progress bar that counts and tells the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def face_crops(
    images: Path,
    names: Iterable[str],
    manifest: Manifest,
    *,
    cache: Path | None,
    aligned: bool,
    console: Console,
) -> lfw.Crops:
    """Detect and align the named images for a model, with a progress bar; see `lfw.crop_images`."""
    wanted = set(names)
    detector = MtcnnDetector()
    with bar(console) as progress:
        task = progress.add_task("detect and align", total=len(wanted))
        crops = lfw.crop_images(
            images,
            wanted,
            manifest.alignment,
            detector,
            cache=cache,
            cache_key=str(asdict(detector.config)),
            aligned=aligned,
            track=lambda done, total: progress.update(task, completed=done, total=total),
        )
        progress.update(task, completed=len(wanted))
    return crops


def embed_crops(
    embedder: OnnxEmbedder, crops: NDArray[np.uint8], *, cache: Path | None, console: Console
) -> FloatArray:
    """(N, D) embeddings, with a progress bar; kept in `cache` under a name of model file and crops."""
    terms = f"{embedder.contract} {embedder.precision} {embedder.file_digest} {hash_array(crops)}"
    key = hashlib.sha256(terms.encode()).hexdigest()[:16]
    path = cache / f"embeddings-{key}.npy" if cache else None
    if path and path.exists():
        stored: FloatArray = np.load(path)
        return stored
    features = np.empty((len(crops), embedder.dim), np.float32)
    with bar(console) as progress:
        task = progress.add_task(f"embed ({embedder.precision})", total=len(crops))
        for start in range(0, len(crops), 128):
            features[start : start + 128] = embedder.embed(crops[start : start + 128])
            progress.update(task, completed=min(start + 128, len(crops)))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp.npy")
        np.save(temporary, features)
        temporary.replace(path)
    return features


def hash_array(array: NDArray[Any]) -> str:
    """Digest of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def view_of(manifest: Manifest) -> str:
    """Which view of the training canvas a model sees. Raises TrainingError for an alignment without one."""
    for view, template in VIEWS.items():
        if template == manifest.template:
            return view
    raise TrainingError(
        f"model {manifest.name} wants {manifest.template}, which the training canvas has no view of "
        f"(it has: {', '.join(VIEWS.values())})"
    )


def embed_faces(
    embed: Callable[[NDArray[np.uint8]], FloatArray],
    view: str,
    store: FaceStore,
    rows: NDArray[np.int64],
    *,
    what: str,
    console: Console,
) -> FloatArray:
    """(N, D) unit embeddings of a store's faces, N ≥ 1, a block of crops of `view` in memory at a time."""
    features = []
    with bar(console) as progress:
        task = progress.add_task(what, total=len(rows))
        for start in range(0, len(rows), 256):
            part = rows[start : start + 256]
            features.append(embed(center_view(np.asarray(store.images[part]), view)))
            progress.update(task, completed=start + len(part))
    return np.concatenate(features)


def held_out_embeddings(
    folder: Path, store_folder: Path, percent: int, console: Console
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Unit embeddings and identities of a store's held-out faces, by a model."""
    store = open_store(store_folder)
    rows = np.flatnonzero(held_out(store.identity, percent))
    if not len(rows):
        raise TrainingError(f"{store_folder} has no held-out identities at {percent} %")
    embedder = OnnxEmbedder.load(folder, precision="fp32")
    view = view_of(embedder.manifest)
    features = embed_faces(embedder.embed, view, store, rows, what="embed held-out faces", console=console)
    return features, store.identity[rows]
