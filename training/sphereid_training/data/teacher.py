"""Targets for distillation from any ONNX model, computed once and kept in the store."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from rich.console import Console
from sphereid.faces.align import TEMPLATES
from sphereid.faces.embed import OnnxEmbedder, open_session
from sphereid.faces.errors import ModelError
from sphereid.faces.manifest import MANIFEST_FILE, Manifest

from sphereid_training.config import Config
from sphereid_training.data.augment import VIEWS, center_view
from sphereid_training.data.store import open_store
from sphereid_training.errors import TrainingError
from sphereid_training.evaluation.inputs import bar, view_of

_CHUNK = 256


def cache_targets(store: Path, teacher: Path, console: Console) -> bool:
    """Write `teacher.npy`, (N, D) float32 unit embeddings of a store's faces; False when it was there.

    teacher: a model folder, or an `.onnx` file (see `load_teacher`). A stopped run goes on where it stood.
    Raises TrainingError when the teacher or the store can't be used, or the disk is full.
    """
    embedder = load_teacher(teacher)
    faces = open_store(store)
    stamp = {"teacher": embedder.contract, "faces": len(faces.name), "names": _digest(faces.name)}
    final, record = store / "teacher.npy", store / "teacher.json"
    temporary, state = store / "teacher.partial.npy", store / "teacher.partial.json"
    if final.exists() and record.exists() and json.loads(record.read_text(encoding="utf-8")) == stamp:
        console.print(f"{final}: {embedder.name}'s targets are there already")
        return False
    view = view_of(embedder.manifest)
    done = 0
    if state.exists() and temporary.exists():
        saved = json.loads(state.read_text(encoding="utf-8"))
        done = saved.pop("done") if {k: v for k, v in saved.items() if k != "done"} == stamp else 0
    shape = (len(faces.name), embedder.dim)
    try:
        targets = np.lib.format.open_memmap(
            temporary, mode="r+" if done else "w+", dtype=np.float32, shape=None if done else shape
        )
        with bar(console) as progress:
            task = progress.add_task("teacher", total=len(targets), completed=done)
            for start in range(done, len(targets), _CHUNK):
                part = np.asarray(faces.images[start : start + _CHUNK])
                targets[start : start + len(part)] = embedder.embed(center_view(part, view))
                targets.flush()
                _write(state, {**stamp, "done": start + len(part)})
                progress.update(task, completed=start + len(part))
        del targets
        temporary.replace(final)
        _write(record, stamp)
        state.unlink(missing_ok=True)
    except OSError as error:
        raise TrainingError(
            f"could not write {temporary}: {error.strerror}; free some space and run again, it goes on there"
        ) from None
    console.print(f"{final}: {shape[0]} targets of length {shape[1]}")
    return True


def load_live_teacher(config: Config) -> OnnxEmbedder:
    """The model `distill.live`, on one thread, in int8 where its manifest says that this is as good.

    Raises TrainingError when none is named, or the store's descriptors are of another one.
    """
    live, record = config.distill.live, Path(config.data.store) / "teacher.json"
    if not live:
        raise TrainingError(
            "augment.p_blend makes faces that are not in the store: name the model that described it with "
            "distill.live=FOLDER (prepare --teacher FOLDER), or set augment.p_blend=0"
        )
    try:
        teacher = OnnxEmbedder.load(live, providers="cpu", threads=1)
    except ModelError as error:
        raise TrainingError(f"distill.live: {error}") from None
    cached = "another source"
    if record.exists():
        cached = json.loads(record.read_text(encoding="utf-8"))["teacher"]
    if cached != teacher.contract:
        raise TrainingError(
            f"the targets in {config.data.store} are from {cached}, distill.live={live} is "
            f"{teacher.contract}: run `python -m training teach {config.data.store} {live}` first"
        )
    return teacher


def load_teacher(path: Path) -> OnnxEmbedder:
    """The embedder of a model folder or of a bare ONNX file.

    A file without a manifest beside it is taken at its metadata (`mean`, `scale`, `color`, `template`,
    `flip`, as our exports have them); what is missing there is (p − 127.5)/128, RGB, no flip, and the
    template of the input's size. Raises TrainingError when that doesn't fit.
    """
    if path.is_dir():
        return OnnxEmbedder.load(path, precision="fp32")
    if path.suffix != ".onnx" or not path.exists():
        raise TrainingError(f"{path} is neither descriptors (.npz), a model folder, nor an ONNX file")
    if (path.parent / MANIFEST_FILE).exists():
        return OnnxEmbedder.load(path.parent, precision="fp32")
    data = path.read_bytes()
    return OnnxEmbedder(data, _guess(path, data, open_session(data, "cpu")))


def _guess(path: Path, data: bytes, session: ort.InferenceSession) -> Manifest:
    shape, out = session.get_inputs()[0].shape, session.get_outputs()[0].shape
    if len(shape) != 4 or shape[1] != 3 or not all(isinstance(side, int) for side in (*shape[2:], out[-1])):
        raise TrainingError(
            f"{path} wants {shape} and gives {out}, not (batch, 3, height, width) to (batch, size); "
            "write a manifest.json beside it"
        )
    meta = session.get_modelmeta().custom_metadata_map
    # Of several templates of one size, the first is the usual one.
    sizes = {(TEMPLATES[name].height, TEMPLATES[name].width): name for name in reversed(VIEWS.values())}
    template = meta.get("template") or sizes.get((shape[2], shape[3]))
    if template not in TEMPLATES:
        raise TrainingError(
            f"{path} wants crops of {shape[2]}×{shape[3]}; there is no alignment of that size, "
            f"only {', '.join(f'{h}×{w}' for h, w in sizes)}"
        )
    flip = meta.get("flip", "none")
    return Manifest.model_validate(
        {
            "name": "teacher",
            "version": "1",
            "sha256": hashlib.sha256(data).hexdigest(),
            "input": (1, 3, shape[2], shape[3]),
            "color": meta.get("color", "rgb"),
            "mean": _numbers(meta.get("mean", "127.5")),
            "scale": _numbers(meta.get("scale", "1/128")),
            "template": template,
            "embedding_size": out[-1] * (2 if flip == "concat" else 1),
            "flip": flip,
            "training_data": "unknown: a teacher's file without a manifest",
            "license": "unknown",
            "date": datetime.now(UTC).date(),
        }
    )


def _numbers(text: str) -> float | list[float]:
    """`127.5`, `1/128` or `[1.0, 2.0, 3.0]`."""
    if text.strip().startswith("["):
        return [float(value) for value in json.loads(text)]
    top, slash, bottom = text.partition("/")
    return float(top) / float(bottom) if slash else float(top)


def _digest(names: NDArray[np.str_]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def _write(path: Path, values: dict[str, object]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(values), encoding="utf-8")
    temporary.replace(path)
