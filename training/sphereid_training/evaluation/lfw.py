"""Labeled Faces in the Wild: pair lists, images through the service's own pipeline, and the protocols."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from sphereid.faces.align import Template, align
from sphereid.faces.decode import decode
from sphereid.faces.errors import PipelineError
from sphereid.faces.ports import FaceDetector
from sphereid.faces.types import Face, RGBImage

from sphereid_training.errors import TrainingError
from sphereid_training.evaluation.verification import FoldResult, accuracy_at, best_threshold, k_fold

FloatArray = NDArray[np.float32]
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """names: image names such as `Ann_Lee/Ann_Lee_0001`. left, right: (P,) rows of it. same: (P,). fold:
    (P,)."""

    names: list[str]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    same: NDArray[np.bool_]
    fold: NDArray[np.int64]


def read_pairs(path: Path) -> Pairs:
    """Read an LFW pair file: View 2 (`10 300` first), View 1 or `.txt` of either kind (`500` first).

    A file without folds is dealt into ten, each with its share of genuine and impostor pairs.
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise TrainingError(f"the pair list {path} cannot be read: {error.strerror}") from None
    if not lines or not all(field.isdigit() for field in lines[0]):
        raise TrainingError(f"{path} is no LFW pair list: its first line must be `FOLDS PAIRS` or `PAIRS`")
    pairs, same = [], []
    for number, fields in enumerate(lines[1:], 2):
        if len(fields) == 3:
            pairs.append((_name(fields[0], fields[1]), _name(fields[0], fields[2])))
        elif len(fields) == 4:
            pairs.append((_name(fields[0], fields[1]), _name(fields[2], fields[3])))
        else:
            raise TrainingError(f"{path}, line {number}: a pair has 3 or 4 fields, this has {len(fields)}")
        same.append(len(fields) == 3)
    names = sorted({name for pair in pairs for name in pair})
    row = {name: index for index, name in enumerate(names)}
    is_same = np.array(same, dtype=bool)
    folds = int(lines[0][0]) if len(lines[0]) == 2 else 0
    if folds:
        fold = np.arange(len(pairs)) // max(1, len(pairs) // folds)
    else:
        fold = np.empty(len(pairs), np.int64)
        for kind in (True, False):
            count = int((is_same == kind).sum())
            fold[is_same == kind] = np.arange(count) * 10 // max(1, count)
    left = np.array([row[a] for a, _ in pairs], dtype=np.int64)
    right = np.array([row[b] for _, b in pairs], dtype=np.int64)
    return Pairs(names, left, right, is_same, fold)


def _name(person: str, number: str) -> str:
    try:
        return f"{person}/{person}_{int(number):04d}"
    except ValueError:
        raise TrainingError(f"{number!r} is not an image number (of {person})") from None


def open_images(source: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """(PERSON/IMAGE without suffix, reader) of every picture in a folder or tar, at any depth."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in _SUFFIXES:
                yield f"{path.parent.name}/{path.stem}", path.read_bytes
        return
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if member.isfile() and name.suffix.lower() in _SUFFIXES:
                    file = archive.extractfile(member)
                    assert file is not None
                    yield f"{name.parent.name}/{name.stem}", file.read
    except (OSError, tarfile.TarError) as error:
        raise TrainingError(
            f"{source} is neither a folder nor a readable tar: {' '.join(str(error).split())}"
        ) from None


def central_face(faces: list[Face], height: int, width: int) -> Face:
    """The face whose box center lies nearest the image's: whom an LFW picture is of."""
    center = np.array([width, height], np.float32) / 2
    return min(faces, key=lambda f: float(np.linalg.norm((f.box_xyxy[:2] + f.box_xyxy[2:]) / 2 - center)))


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """names: (N,) as in Pairs. crops: (N, H, W, 3) uint8 RGB. found: (N,) False where no face was (crop
    black)."""

    names: list[str]
    crops: RGBImage
    found: NDArray[np.bool_]


def crop_images(
    source: Path,
    wanted: Iterable[str],
    template: Template,
    detector: FaceDetector,
    *,
    cache: Path | None = None,
    cache_key: str = "",
    aligned: bool = False,
    track: Callable[[int, int], None] = lambda done, total: None,
) -> Crops:
    """Detect and align the wanted images, or take them as they are when `aligned`.

    cache: folder in which the result is kept, under a name made of source, template, list and `cache_key`.
    track: called with (done, total). Raises TrainingError when wanted images are not in the source.
    """
    names = sorted(set(wanted))
    stat = source.stat() if source.exists() else None
    key = [
        str(source.resolve()),
        stat and (stat.st_mtime_ns, stat.st_size),
        template.points,
        names,
        aligned,
        cache_key,
    ]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    path = cache / f"crops-{digest}.npz" if cache else None
    if path and path.exists():
        with np.load(path, allow_pickle=False) as stored:
            return Crops(names, stored["crops"], stored["found"])
    row = {name: index for index, name in enumerate(names)}
    crops = np.zeros((len(names), template.height, template.width, 3), np.uint8)
    found = np.zeros(len(names), bool)
    seen: set[str] = set()
    for name, read in open_images(source):
        if name not in row or name in seen:
            continue
        seen.add(name)
        crop = crop_of(read(), template, detector, aligned)
        if crop is not None:
            crops[row[name]], found[row[name]] = crop, True
        track(len(seen), len(names))
    missing = [name for name in names if name not in seen]
    if missing:
        raise TrainingError(
            f"{len(missing)} of {len(names)} images in the pair list are not in {source}, "
            f"the first is {missing[0]}"
        )
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez(buffer, crops=crops, found=found)
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(path)
    return Crops(names, crops, found)


def crop_of(data: bytes, template: Template, detector: FaceDetector, aligned: bool) -> RGBImage | None:
    """The aligned crop (H, W, 3) of the face nearest a photograph's middle; None where there is none or the
    data are no image. aligned: the data are such a crop. Raises TrainingError when it has another size."""
    try:
        image = decode(data).pixels
    except PipelineError:
        return None
    if aligned:
        if image.shape[:2] != (template.height, template.width):
            raise TrainingError(
                f"--aligned images must be {template.height}×{template.width} for this model, one is "
                f"{image.shape[0]}×{image.shape[1]}"
            )
        return image
    faces = detector.detect(image)
    if not faces:
        return None
    face = central_face(faces, *image.shape[:2])
    crop: RGBImage = align(image, [face.landmarks], template)[0]
    return crop


def similarities(
    pairs: Pairs, features: FloatArray, found: NDArray[np.bool_], mean: FloatArray | None = None
) -> NDArray[np.float64]:
    """(P,) cosines of (N, D) features less `mean`; −1 where a face is missing: the system would not match
    it."""
    x = features - mean if mean is not None else features
    return cross_similarities(pairs, x, x, found)


def cross_similarities(
    pairs: Pairs, left: FloatArray, right: FloatArray, found: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The same for pairs whose two sides come from two models of one embedding space, (N, D) each."""
    x, y = (side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12) for side in (left, right))
    cosine = np.einsum("pd,pd->p", x[pairs.left], y[pairs.right]).astype(np.float64)
    return np.where(found[pairs.left] & found[pairs.right], cosine, -1.0)


def reference_protocol(pairs: Pairs, features: FloatArray, found: NDArray[np.bool_]) -> FoldResult:
    """The SphereFace authors' evaluation: per fold, center on the other folds' features, then take the mean
    of their best thresholds. features: crop and mirror image side by side, (N, 2D)."""
    accuracies, thresholds = [], []
    for number in np.unique(pairs.fold):
        test = pairs.fold == number
        rows = np.concatenate([pairs.left[~test], pairs.right[~test]])
        mean = features[rows[found[rows]]].mean(axis=0)
        similarity = similarities(pairs, features, found, mean)
        threshold = best_threshold(similarity[~test], pairs.same[~test])
        thresholds.append(threshold)
        accuracies.append(accuracy_at(similarity[test], pairs.same[test], threshold))
    return FoldResult(tuple(accuracies), tuple(thresholds))


def service_protocol(pairs: Pairs, features: FloatArray, found: NDArray[np.bool_]) -> FoldResult:
    """Ten folds on the cosine exactly as the service computes it: flip rule of the manifest, nothing
    subtracted."""
    return k_fold(similarities(pairs, features, found), pairs.same, pairs.fold)


def insightface_protocol(pairs: Pairs, features: FloatArray, found: NDArray[np.bool_]) -> FoldResult:
    """Squared distance of unit flip sums, thresholds 0…4 by 0.01, the first best one of the other folds."""
    distance = 2 - 2 * similarities(pairs, features, found)
    grid = np.arange(0, 4, 0.01)
    right = np.stack([(distance < t) == pairs.same for t in grid])
    accuracies, thresholds = [], []
    for number in np.unique(pairs.fold):
        test = pairs.fold == number
        best = int(right[:, ~test].mean(axis=1).argmax())
        accuracies.append(float(right[best, test].mean()))
        thresholds.append(1 - float(grid[best]) / 2)
    return FoldResult(tuple(accuracies), tuple(thresholds))


def transferred(
    train: Pairs,
    train_features: FloatArray,
    train_found: NDArray[np.bool_],
    test: Pairs,
    test_features: FloatArray,
    test_found: NDArray[np.bool_],
) -> tuple[float, float]:
    """Accuracy on `test` at the threshold that is best on `train`, and that threshold (LFW View 1)."""
    threshold = best_threshold(similarities(train, train_features, train_found), train.same)
    return accuracy_at(similarities(test, test_features, test_found), test.same, threshold), threshold
