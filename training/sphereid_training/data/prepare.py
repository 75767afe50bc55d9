"""From tars or folders of faces to a store, with an account of what was left out. Stops lose nothing."""

import csv
import hashlib
import json
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sphereid.faces.align import TEMPLATES, align
from sphereid.faces.decode import decode
from sphereid.faces.detect import MtcnnDetector
from sphereid.faces.errors import PipelineError

from sphereid_training.data.overlap import HeldOutSet, compact, same_faces, same_names
from sphereid_training.data.recordio import RecordFile
from sphereid_training.data.store import BORDER, CANVAS
from sphereid_training.data.teacher import cache_targets
from sphereid_training.errors import TrainingError
from sphereid_training.evaluation.lfw import central_face

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
UNLABELLED = "unlabelled"
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Source:
    """One image: its name `GROUP/IDENTITY/FILE`, and the file, tar or .rec that holds it.

    record: number in a .rec file, None elsewhere. member: name in a tar, where it is another.
    """

    name: str
    archive: Path | None
    path: Path
    record: int | None = None
    member: str | None = None

    @property
    def identity(self) -> str:
        """The folder that the image lies in."""
        return PurePosixPath(self.name).parent.name


class DroppedError(Exception):
    """An image can't be used; the message is the reason."""


def prepare(
    faces: Path,
    out: Path,
    *,
    teacher: Path | None = None,
    raw: bool = False,
    exclude: Path | None = None,
    test_set: HeldOutSet | None = None,
    console: Console | None = None,
) -> int:
    """Write a store (see sphereid_training.data.store) and return the number of its faces.

    faces: a folder of tars with members GROUP/IDENTITY/FILE or of WebDataset shards (KEY.jpg with KEY.cls),
    of such folders, or MXNet's train.rec. Images are 128×128 canvases, or with `raw` photographs, of which
    the face nearest the middle is detected and aligned.
    Work is saved every few hundred images; the same call after a stop goes on there. teacher: descriptors
    (.npz), or a model whose embeddings are to be the targets. exclude: a list of identities to leave out;
    test_set: what no identity may be shared with.
    Raises TrainingError when the source is empty, a tar is corrupt, or the disk is full.
    """
    console = console or Console(stderr=True)
    cv2.setNumThreads(1)
    banned = _read_list(exclude) if exclude is not None else set()
    descriptors = _Descriptors(teacher) if teacher is not None and teacher.suffix == ".npz" else None
    sources = sorted(_list(faces), key=lambda source: source.name)
    reasons = dict.fromkeys(banned, "excluded identity")
    if test_set is not None:
        shared = same_names({source.identity for source in sources}, test_set.names)
        reasons |= {identity: f"same name as {name} of the test set" for identity, name in shared.items()}
    listed = [source for source in sources if source.identity not in reasons]
    if not listed:
        raise TrainingError(
            f"no images under {faces}; tars and folders are searched for {', '.join(sorted(SUFFIXES))}"
            if not sources
            else f"all {len(sources)} images under {faces} are of excluded identities"
        )
    out.mkdir(parents=True, exist_ok=True)
    dropped: dict[str, str] = {
        source.name: reasons[source.identity] for source in sources if source.identity in reasons
    }
    try:
        names = _fill(listed, out, _detecting() if raw else _canvas, dropped, console)
        if test_set is not None and test_set.model is not None:
            names = _drop_same_faces(out, names, test_set, dropped, console)
        _write_meta(out, names, descriptors)
        with (out / "dropped.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "reason"), *sorted(dropped.items())])
    except OSError as error:
        raise TrainingError(
            f"could not write the store {out}: {error.strerror}; free some space and run again"
        ) from None
    (out / "partial.json").unlink(missing_ok=True)
    if teacher is not None and descriptors is None:
        cache_targets(out, teacher, console)
    console.print(f"{len(names)} faces in {out}; {len(dropped)} left out (dropped.csv)")
    kinds = Counter(
        re.sub(r"(same name as|looks like) .*", r"\1 a person of the test set", reason)
        for reason in dropped.values()
    )
    for reason, count in kinds.most_common():
        console.print(f"  {count} {reason}")
    return len(names)


def _read_list(path: Path) -> set[str]:
    try:
        return set(path.read_text(encoding="utf-8").split())
    except UnicodeDecodeError:
        raise TrainingError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}") from None


class _Descriptors:
    """A teacher's descriptors by the name of the image. Raises TrainingError for a file that holds none."""

    def __init__(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as stored:
                names, self._rows = stored["name"], stored["embedding"].astype(np.float32)
        except KeyError:
            raise TrainingError(f"{path} must hold `name` and `embedding`") from None
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise TrainingError(f"{path} cannot be read: {error}") from None
        if len(names) != len(self._rows):
            raise TrainingError(f"{path} has {len(names)} names for {len(self._rows)} descriptors")
        self._path, self._row = path, {str(name): index for index, name in enumerate(names)}

    def of(self, names: list[str]) -> NDArray[np.float32]:
        """(N, D) rows, in this order."""
        missing = [name for name in names if name not in self._row]
        if missing:
            raise TrainingError(
                f"{self._path} has no descriptor of {len(missing)} images, the first is {missing[0]}"
            )
        return np.ascontiguousarray(self._rows[[self._row[name] for name in names]])


def _drop_same_faces(
    out: Path, names: list[str], test_set: HeldOutSet, dropped: dict[str, str], console: Console
) -> list[str]:
    """Take the faces of the test set's people out of `images.npy`; returns the names that stay."""
    images = np.load(out / "images.npy", mmap_mode="r+")
    reasons = same_faces(images, names, UNLABELLED, test_set, console)
    dropped.update({names[row]: reason for row, reason in reasons.items()})
    # Whatever is moved from here on: without it the store is unfinished, and says so.
    (out / "meta.npz").unlink(missing_ok=True)
    kept = compact(images, lambda row: row not in reasons)
    images.flush()
    del images
    _trim(out / "images.npy", out / "images.npy", len(kept))
    return [names[row] for row in kept]


def _list(faces: Path) -> Iterator[Source]:
    records = sorted(faces.glob("*.rec")) if faces.is_dir() else [faces] if faces.suffix == ".rec" else []
    for path in records:
        for record in RecordFile(path):
            name = f"{path.stem}/p{int(record.labels[0]):07d}/{record.key:08d}.jpg"
            yield Source(name, path, path, record.key)
    if records:
        return
    tars = sorted(faces.glob("*.tar")) if faces.is_dir() else [faces]
    for path in tars:
        try:
            with tarfile.open(path) as archive:
                yield from _members(archive, path)
        except (OSError, tarfile.TarError) as error:
            raise TrainingError(
                f"{path} is not a readable tar: {' '.join(str(error).split())}; "
                "fetch it again or move it away"
            ) from None
    if tars:
        return
    for path in sorted(faces.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            yield Source(path.relative_to(faces).as_posix(), None, path)


def _members(archive: tarfile.TarFile, path: Path) -> Iterator[Source]:
    """Images of a tar. Where it holds KEY.cls files, as WebDataset shards do, those have the identities, and
    images without one are unlabeled."""
    images: list[str] = []
    labels: dict[str, str] = {}
    for member in archive:
        name = PurePosixPath(member.name)
        if member.isfile() and name.suffix.lower() in SUFFIXES:
            images.append(member.name)
        elif member.isfile() and name.suffix == ".cls":
            file = archive.extractfile(member)
            assert file is not None
            text = file.read(32).decode("ascii", "replace").strip()
            if not text.isdigit():
                raise TrainingError(f"{path}: {member.name} holds {text!r}, not the number of an identity")
            labels[_key(name)] = f"p{int(text):07d}"
    for image in images:
        key = _key(PurePosixPath(image))
        identity = labels.get(key, UNLABELLED)
        full = f"{path.stem}/{identity}/{image.replace('/', '_')}" if labels else image
        yield Source(full, path, path, member=image)


def _key(name: PurePosixPath) -> str:
    """What the files of one WebDataset sample share: everything before the first dot of the file's name."""
    return str(name.with_name(name.name.partition(".")[0]))


def _canvas(data: bytes) -> NDArray[np.uint8]:
    """(128, 128, 3) RGB of an aligned face."""
    encoded = np.frombuffer(data, np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB) if len(encoded) else None
    if image is None:
        raise DroppedError("not a readable image")
    if image.shape[:2] == (CANVAS - 2 * BORDER,) * 2:
        # A 112×112 ArcFace crop: its edge is repeated into the border that augmentation may reach.
        image = cv2.copyMakeBorder(image, *(BORDER,) * 4, cv2.BORDER_REPLICATE)
    if image.shape[:2] != (CANVAS, CANVAS):
        raise DroppedError(f"neither {CANVAS}×{CANVAS} nor 112×112 (photographs need --raw)")
    return image.astype(np.uint8, copy=False)


def _detecting() -> Callable[[bytes], NDArray[np.uint8]]:
    detector = MtcnnDetector()

    def cut(data: bytes) -> NDArray[np.uint8]:
        try:
            image = decode(data).pixels
        except PipelineError:
            raise DroppedError("not a readable image") from None
        found = detector.detect(image)
        if not found:
            raise DroppedError("no face found")
        face = central_face(found, *image.shape[:2])
        canvas: NDArray[np.uint8] = align(image, [face.landmarks], TEMPLATES["canvas-128x128"])[0]
        return canvas

    return cut


def _fill(
    sources: list[Source],
    out: Path,
    cut: Callable[[bytes], NDArray[np.uint8]],
    dropped: dict[str, str],
    console: Console,
) -> list[str]:
    """Write the images array, chunk by chunk; returns the names kept, in its order."""
    state = out / "partial.json"
    shape = (len(sources), CANVAS, CANVAS, 3)
    listed = hashlib.sha256("\n".join(source.name for source in sources).encode()).hexdigest()
    temporary = out / "images.partial.npy"
    kept: list[str] = []
    done = 0
    if state.exists() and temporary.exists():
        saved = json.loads(state.read_text(encoding="utf-8"))
        if saved["sources"] == listed:
            done, kept = saved["done"], saved["kept"]
            dropped.update(saved["dropped"])
            console.print(f"going on after {done} of {len(sources)} images")
    mode = "r+" if done else "w+"
    images = np.lib.format.open_memmap(temporary, mode=mode, dtype=np.uint8, shape=None if done else shape)
    with (
        ThreadPoolExecutor(2) as pool,
        Progress(
            TextColumn("prepare"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        ) as bar,
    ):
        task = bar.add_task("prepare", total=len(sources), completed=done)
        reader = _Reader()
        for start in range(done, len(sources), _CHUNK):
            chunk = sources[start : start + _CHUNK]
            results = pool.map(lambda data: _try(cut, data), [reader.read(source) for source in chunk])
            for source, result in zip(chunk, results, strict=True):
                if isinstance(result, str):
                    dropped[source.name] = result
                else:
                    images[len(kept)] = result
                    kept.append(source.name)
            images.flush()
            progress = {"sources": listed, "done": start + len(chunk), "kept": kept, "dropped": dropped}
            state.with_suffix(".tmp").write_text(json.dumps(progress), encoding="utf-8")
            state.with_suffix(".tmp").replace(state)
            bar.update(task, completed=start + len(chunk))
    del images
    _trim(temporary, out / "images.npy", len(kept))
    return kept


def _try(cut: Callable[[bytes], NDArray[np.uint8]], data: bytes | None) -> NDArray[np.uint8] | str:
    if data is None:
        return "truncated in its tar"
    try:
        return cut(data)
    except DroppedError as reason:
        return str(reason)


class _Reader:
    """Reads sources, keeping one tar or .rec open: sources come sorted, so files are read in turn."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._open: tarfile.TarFile | RecordFile | None = None

    def read(self, source: Source) -> bytes | None:
        if source.archive is None:
            return source.path.read_bytes()
        if source.archive != self._path:
            if self._open is not None:
                self._open.close()
            self._path = source.archive
            if source.record is not None:
                self._open = RecordFile(source.archive)
            else:
                self._open = tarfile.open(source.archive)  # noqa: SIM115
        if isinstance(self._open, RecordFile):
            assert source.record is not None
            return self._open.read(source.record).data
        assert self._open is not None
        try:
            file = self._open.extractfile(source.member or source.name)
            return file.read() if file is not None else None
        except (tarfile.TarError, EOFError):
            return None


def _trim(temporary: Path, final: Path, count: int) -> None:
    """Shorten the array file to `count` images in place and give it its name."""
    images = np.load(temporary, mmap_mode="r")
    total, offset, row = len(images), images.offset, images[0].nbytes if len(images) else 0
    del images
    if count < total:
        with temporary.open("r+b") as file:
            header = file.read(offset)
            old, new = f"({total},".encode(), f"({count},".encode()
            # The header is padded with spaces; the shorter number leaves room for more of them.
            changed = header.replace(old, new, 1).rstrip(b" \n")
            file.seek(0)
            file.write(changed + b" " * (offset - len(changed) - 1) + b"\n")
            file.truncate(offset + count * row)
    temporary.replace(final)


def _write_meta(out: Path, names: list[str], descriptors: "_Descriptors | None") -> None:
    folders = [PurePosixPath(name).parent.name for name in names]
    known = sorted({folder for folder in folders if folder != UNLABELLED})
    number = {folder: _number(folder, index, known) for index, folder in enumerate(known)}
    identity = np.array([number.get(folder, -1) for folder in folders], dtype=np.int64)
    if descriptors is not None:
        np.save(out / "teacher.npy", descriptors.of(names))
    np.savez(out / "meta.npz", name=np.array(names), identity=identity)


def _number(folder: str, index: int, known: list[str]) -> int:
    """`p00042` keeps its number, so that splits agree between stores; other names are numbered in order."""
    numbered = all(name[:1] == "p" and name[1:].isdigit() for name in known)
    return int(folder[1:]) if numbered else index
