"""Features of many photographs: computed a chunk at a time, kept on disk, read back a chunk at a time.

A protocol over a million photographs takes hours: what was computed stays when a run stops, and no step holds
more than a chunk in memory.
"""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from sphereid.faces.detect import MtcnnDetector
from sphereid.faces.embed import OnnxEmbedder

from sphereid_training.errors import TrainingError
from sphereid_training.evaluation.inputs import bar
from sphereid_training.evaluation.lfw import crop_of

FloatArray = NDArray[np.float32]
SUFFIXES: Final = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
CHUNK: Final = 2048


def photographs(source: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """(path inside, reader) of every picture in a folder (sorted) or tar (in its order), at any depth."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in SUFFIXES:
                yield path.relative_to(source).as_posix(), path.read_bytes
        return
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                if member.isfile() and PurePosixPath(member.name).suffix.lower() in SUFFIXES:
                    file = archive.extractfile(member)
                    assert file is not None
                    yield str(PurePosixPath(member.name)), file.read
    except (OSError, tarfile.TarError) as error:
        raise TrainingError(
            f"{source} is neither a folder nor a readable tar: {' '.join(str(error).split())}"
        ) from None


def person_of(name: str) -> str:
    """The folder that a photograph lies in."""
    return PurePosixPath(name).parent.name


@dataclass(frozen=True, slots=True)
class Features:
    """names: of the photographs, in order. chunks: files of `features` (n, D) unit rows, zero where no face
    was found, and `found` (n,)."""

    names: tuple[str, ...]
    chunks: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.names)

    def blocks(self) -> Iterator[tuple[FloatArray, NDArray[np.bool_]]]:
        """Features and found flags, a chunk at a time."""
        for path in self.chunks:
            with np.load(path, allow_pickle=False) as stored:
                yield stored["features"], stored["found"]

    def found_blocks(self) -> Iterator[FloatArray]:
        """(n, D) unit rows of the photographs with a face, a chunk at a time."""
        for features, found in self.blocks():
            yield features[found]

    def load(self) -> tuple[FloatArray, NDArray[np.bool_]]:
        """All at once."""
        parts = list(self.blocks())
        return np.concatenate([x for x, _ in parts]), np.concatenate([f for _, f in parts])

    def count_found(self) -> int:
        """How many photographs have a face."""
        return sum(int(found.sum()) for _, found in self.blocks())


@dataclass(frozen=True, slots=True)
class EmbeddingFile:
    """Embeddings computed elsewhere: rows of length `dim` in an `.npy` file, from byte `start` on, read a
    chunk at a time. A row of zeros stands for a photograph without a face."""

    path: Path
    rows: int
    dim: int
    start: int

    @classmethod
    def open(cls, path: Path, dim: int) -> "EmbeddingFile":
        """Raises TrainingError when the file does not hold (N, `dim`) float32, or has been cut short."""
        try:
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise TrainingError(f"{path} is no readable .npy file: {error}") from None
        if stored.dtype != np.float32 or stored.shape[1:] != (dim,) or not stored.flags.c_contiguous:
            raise TrainingError(
                f"{path} holds {stored.dtype} {stored.shape}; the model's embeddings are float32 (N, {dim})"
            )
        return cls(path, len(stored), dim, stored.offset)

    def __len__(self) -> int:
        return self.rows

    def found_blocks(self) -> Iterator[FloatArray]:
        """(n, dim) unit rows, a chunk at a time, without those of zeros."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            for first in range(0, self.rows, CHUNK):
                count = min(CHUNK, self.rows - first) * self.dim
                block = np.fromfile(file, np.float32, count).reshape(-1, self.dim)
                lengths = np.linalg.norm(block, axis=1, keepdims=True)
                if not np.isfinite(lengths).all():
                    raise TrainingError(f"{self.path}: rows {first} ff. are not all numbers")
                found = lengths[:, 0] > 0
                yield block[found] / lengths[found]

    def count_found(self) -> int:
        """How many rows are not zeros."""
        return sum(len(block) for block in self.found_blocks())


def describe(
    source: Path,
    embedder: OnnxEmbedder,
    *,
    cache: Path,
    aligned: bool,
    what: str,
    console: Console,
    choose: Callable[[list[str]], list[str]] = lambda names: names,
) -> Features:
    """Detect (or take as they are, when `aligned`), embed and keep the photographs of a folder or tar.

    choose: which of the names to take. A second call with the same source, model and choice computes only
    what is missing. Raises TrainingError when there are none.
    """
    names = choose([name for name, _ in photographs(source)])
    if not names:
        raise TrainingError(f"no photographs under {source}; {', '.join(sorted(SUFFIXES))} are read")
    detector = MtcnnDetector()
    stat = source.stat()
    terms = [
        str(source.resolve()), stat.st_mtime_ns, stat.st_size, embedder.contract, embedder.precision, aligned,
        asdict(detector.config), names,
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(terms, default=str).encode()).hexdigest()[:16]
    folder = cache / f"features-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    chunks = tuple(folder / f"{start // CHUNK:05d}.npz" for start in range(0, len(names), CHUNK))
    number = {name: index for index, name in enumerate(names)}
    missing = {index for index, path in enumerate(chunks) if not path.exists()}
    template = embedder.manifest.alignment
    with bar(console) as progress:
        done = sum(min(CHUNK, len(names) - i * CHUNK) for i in range(len(chunks)) if i not in missing)
        task = progress.add_task(what, total=len(names), completed=done)
        crops: dict[int, dict[int, NDArray[np.uint8]]] = {}
        waiting = {index: min(CHUNK, len(names) - index * CHUNK) for index in missing}
        for name, read in photographs(source) if missing else ():
            row = number.get(name, -1)
            chunk, place = divmod(row, CHUNK)
            if row < 0 or chunk not in waiting:
                continue
            crop = crop_of(read(), template, detector, aligned)
            held = crops.setdefault(chunk, {})
            if crop is not None:
                held[place] = crop
            waiting[chunk] -= 1
            progress.advance(task)
            if waiting[chunk] == 0:
                _save(chunks[chunk], crops.pop(chunk), min(CHUNK, len(names) - chunk * CHUNK), embedder)
                del waiting[chunk]
    return Features(tuple(names), chunks)


def _save(path: Path, crops: dict[int, NDArray[np.uint8]], count: int, embedder: OnnxEmbedder) -> None:
    features, found = np.zeros((count, embedder.dim), np.float32), np.zeros(count, bool)
    places = np.array(sorted(crops), dtype=np.int64)
    for start in range(0, len(places), 128):
        part = places[start : start + 128]
        features[part] = embedder.embed(np.stack([crops[int(place)] for place in part]))
    found[places] = True
    temporary = path.with_suffix(".tmp.npz")
    try:
        np.savez(temporary, features=features, found=found)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise TrainingError(
            f"{path} cannot be written: {error.strerror}; free some space and go on"
        ) from None
