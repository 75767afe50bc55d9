"""Many small photographs with a face, made from one portrait: near-copies are one person to the toy model,
other light makes another."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.server import jpeg


def photograph(portrait: NDArray[np.uint8], person: int, number: int = 0) -> bytes:
    """A face of about 100 pixels. Another number is another file of the person."""
    face = portrait[40:240, 120:320].astype(np.float32)
    across, down = np.meshgrid(np.linspace(-1, 1, 200), np.linspace(-1, 1, 200))
    turn = person * 2.4
    light = 1 + 0.35 * np.clip(across * np.cos(turn) + down * np.sin(turn), -1, 1)
    bright = face * light[:, :, None] * (1 - 0.004 * number)
    return jpeg(bright.clip(0, 255).astype(np.uint8))


def people(portrait: NDArray[np.uint8], persons: int, each: int) -> dict[str, bytes]:
    """Files by path, `p0/0.jpg` and on."""
    return {f"p{p}/{n}.jpg": photograph(portrait, p, n) for p in range(persons) for n in range(each)}


def write_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path
