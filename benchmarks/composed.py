"""A clip composed of stills, with exact ground truth."""

import csv
import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sphereid.video.types import Box
from sphereid_training.data.store import held_out

Pixels = NDArray[np.uint8]
WIDTH, HEIGHT, RATE = 640, 360, 25
ENROLLED, STRANGERS, STILLS = 6, 4, 9


@dataclass(frozen=True, slots=True)
class Truth:
    """A face on screen. person: its number; enrolled: whether the gallery knows it. shot: which cut."""

    person: str
    enrolled: bool
    shot: int
    box: Box


def load_people(data: Path, rng: np.random.Generator) -> dict[str, list[Pixels]]:
    """STILLS stills, (128, 128, 3) RGB, of ENROLLED + STRANGERS identities that training never saw."""
    members: dict[int, list[str]] = {}
    with (data / "train" / "index.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["identity"] and row["file"].startswith(("celeba/", "celebrities/")):
                members.setdefault(int(row["identity"].lstrip("p")), []).append(row["file"])
    numbers = np.array(sorted(number for number, files in members.items() if len(files) >= STILLS))
    numbers = numbers[held_out(numbers, 8)]
    wanted = ENROLLED + STRANGERS
    if len(numbers) < wanted:
        raise SystemExit(f"only {len(numbers)} held-out identities have {STILLS} stills; {wanted} are needed")
    chosen = rng.choice(numbers, wanted, replace=False)
    files = {str(n): [str(f) for f in rng.permutation(members[n])[:STILLS]] for n in chosen}
    stills: dict[str, Pixels] = {}
    for group in sorted({name.split("/")[0] for names in files.values() for name in names}):
        with tarfile.open(data / "train" / f"{group}.tar") as tar:
            for name in (n for names in files.values() for n in names if n.startswith(group + "/")):
                content = tar.extractfile(name)
                assert content is not None
                stills[name] = np.asarray(
                    Image.open(io.BytesIO(content.read())).convert("RGB"), dtype=np.uint8
                )
    return {person: [stills[name] for name in names] for person, names in files.items()}


def on_canvas(still: Pixels, side: int = 320) -> Pixels:
    """A tight crop in the middle of a soft background, so that a detector meets a face and not a texture."""
    canvas = cv2.resize(cv2.GaussianBlur(still, (0, 0), 20), (side, side))
    _blend(canvas, still, (side - 128) / 2, (side - 128) / 2, 128)
    return np.asarray(canvas, dtype=np.uint8)


def compose(
    people: Mapping[str, Sequence[Pixels]], enrolled: set[str], frames: int, rng: np.random.Generator
) -> Iterator[tuple[Pixels, list[Truth]]]:
    """Frames, (HEIGHT, WIDTH, 3) RGB, with the faces in each."""
    names = sorted(people)
    shot, done = 0, 0
    while done < frames:
        length = int(rng.integers(2 * RATE, 4 * RATE))
        if frames - done - length < 2 * RATE:
            length = frames - done
        cast = [str(name) for name in rng.choice(names, int(rng.integers(2, 5)), replace=False)]
        if not enrolled & set(cast):
            cast[0] = str(rng.choice(sorted(enrolled)))
        yield from _shot(people, enrolled, cast, shot, length, rng)
        shot, done = shot + 1, done + length


def _shot(
    people: Mapping[str, Sequence[Pixels]],
    enrolled: set[str],
    cast: Sequence[str],
    shot: int,
    length: int,
    rng: np.random.Generator,
) -> Iterator[tuple[Pixels, list[Truth]]]:
    coarse = rng.integers(20, 160, (4, 6, 3), dtype=np.uint8)
    background = cv2.resize(coarse, (WIDTH + 80, HEIGHT + 40), interpolation=cv2.INTER_CUBIC)
    slots = np.linspace(0, WIDTH, len(cast) + 1)
    starts = np.array([(a + b) / 2 for a, b in pairwise(slots)])
    ends = starts + rng.uniform(-30, 30, len(cast))
    if len(cast) == 2 and rng.random() < 0.5:
        ends = ends[::-1]  # the two cross
    room = 0.95 * WIDTH / len(cast)
    sizes = np.minimum(rng.uniform(100, 190, len(cast)), room)
    zoom = rng.uniform(0.8, 1.2, len(cast))
    level = HEIGHT / 2 + rng.uniform(-60, 60, len(cast))
    swap = rng.uniform(0.7, 1.3, len(cast)) * RATE
    first = rng.integers(0, STILLS, len(cast))
    for frame in range(length):
        share = frame / max(length - 1, 1)
        shift = int(60 * share)
        image = np.ascontiguousarray(background[10 : 10 + HEIGHT, shift : shift + WIDTH])
        truths: list[Truth] = []
        for i, person in enumerate(cast):
            size = sizes[i] * (1 + share * (zoom[i] - 1))
            x = starts[i] + share * (ends[i] - starts[i]) + 2 * np.sin(frame / 7 + i) - size / 2
            y = level[i] + 3 * np.cos(frame / 9 + i) - size / 2
            # The first still is the enrolled one: it is never shown.
            still = people[person][1 + (first[i] + int(frame / swap[i])) % (STILLS - 1)]
            _blend(image, still, float(x), float(y), float(size))
            face = _face(float(x), float(y), float(size))
            truths = [t for t in truths if iou(t.box, face) < 0.35]  # covered by the one in front
            truths.append(Truth(person, person in enrolled, shot, face))
        yield image, truths


def _face(x: float, y: float, size: float) -> Box:
    """Where the face of a still lies: the part from brow to chin, about what detectors box."""
    return (x + 0.22 * size, y + 0.16 * size, x + 0.78 * size, y + 0.88 * size)


def _blend(image: Pixels, still: Pixels, x: float, y: float, size: float) -> None:
    """Paste a still at (x, y), `size` pixels wide, with a feathered round border, at sub-pixel places."""
    scale = size / 128
    matrix = np.array([[scale, 0, x], [0, scale, y]])
    corner = max(0, int(x) - 1), max(0, int(y) - 1)
    end = min(image.shape[1], int(x + size) + 2), min(image.shape[0], int(y + size) + 2)
    if end[0] <= corner[0] or end[1] <= corner[1]:
        return
    matrix[:, 2] -= corner
    shape = (end[0] - corner[0], end[1] - corner[1])
    patch = cv2.warpAffine(still, matrix, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(_MASK, matrix, shape, flags=cv2.INTER_LINEAR)[..., None]
    region = image[corner[1] : end[1], corner[0] : end[0]]
    region[:] = (alpha * patch + (1 - alpha) * region).astype(np.uint8)


def _mask() -> NDArray[np.float32]:
    y, x = np.mgrid[0:128, 0:128].astype(np.float32)
    radius = (np.abs(x - 63.5) / 64) ** 4 + (np.abs(y - 63.5) / 64) ** 4
    return np.asarray(np.clip((1 - radius) / 0.35, 0, 1), dtype=np.float32)


_MASK = _mask()


def write_clip(path: Path, frames: Iterator[tuple[Pixels, list[Truth]]]) -> list[list[Truth]]:
    """Encode the frames as H.264 and return their truths."""
    truths = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index, (image, faces) in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(frame))
            truths.append(faces)
        container.mux(stream.encode(None))
    return truths


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, in [0, 1]."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return float(width * height / union)
