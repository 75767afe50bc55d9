"""The pictures that the benchmarks look at: LFW View 1 and group photographs composed of it.

Without the shared face data they are made of scikit-image's public-domain portrait, so that everything runs
everywhere; such figures say so (`images` in the JSON).
"""

import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
LFW_COUNT = 4992

Image = NDArray[np.uint8]


def lfw_files(data: Path, every: int = 1) -> Iterator[tuple[str, bytes]]:
    """Name and JPEG file of every `every`-th LFW View 1 image."""
    with tarfile.open(data / "lfw_view1" / "images.tar") as archive:
        members = [member for member in archive if member.isfile()]
        for member in members[::every]:
            file = archive.extractfile(member)
            assert file is not None
            yield member.name, file.read()


def decode(content: bytes) -> Image:
    """(H, W, 3) uint8 RGB pixels of an encoded photograph."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def encode(image: Image, quality: int = 92) -> bytes:
    """(H, W, 3) uint8 RGB pixels as a JPEG file."""
    done, content = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert done
    return content.tobytes()


def source(data: Path) -> str:
    """Where `portraits` come from."""
    return "LFW View 1" if (data / "lfw_view1").is_dir() else "made of scikit-image's portrait"


@cache
def portraits(data: Path, count: int) -> tuple[Image, ...]:
    """`count` (250, 250, 3) uint8 RGB pictures of one person each, evenly spread over the collection."""
    if (data / "lfw_view1").is_dir():
        files = list(lfw_files(data, max(1, LFW_COUNT // count)))[:count]
        return tuple(decode(content) for _, content in files)
    return tuple(_synthetic(count))


def _synthetic(count: int) -> Iterator[Image]:
    from skimage import data

    rng = np.random.default_rng(0)
    portrait: Image = data.astronaut()  # type: ignore[no-untyped-call]
    for i in range(count):
        side = int(rng.integers(200, 340))
        x, y = rng.integers(0, 512 - side, 2) if i % 4 == 0 else (rng.integers(60, 120), rng.integers(0, 30))
        yield np.asarray(cv2.resize(portrait[y : y + side, x : x + side], (250, 250)), np.uint8)


def group(data: Path, faces: int, seed: int = 0, *, width: int = 0, height: int = 0) -> Image:
    """A picture in which `faces` people stand in rows, 250 pixels a person.

    width, height: of the picture; the people are laid out in its upper left and the rest is noise. 0: as
    large as the people need.
    """
    people = portraits(data, 200)
    rng = np.random.default_rng(seed)
    columns = int(np.ceil(np.sqrt(faces))) if not width else max(1, width // 250)
    rows = -(-faces // columns)
    shape = (max(rows * 250, height), max(columns * 250, width), 3)
    canvas = cv2.GaussianBlur(rng.integers(60, 200, shape, dtype=np.uint8), (0, 0), 3)
    for i, who in enumerate(rng.choice(len(people), faces, replace=faces > len(people))):
        y, x = i // columns * 250, i % columns * 250
        canvas[y : y + 250, x : x + 250] = people[who]
    return np.asarray(canvas, np.uint8)
