"""The two demo clips, with ground truth labeled by eye (`demo_clips.toml`)."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from sphereid.video.reader import VideoReader
from sphereid.video.types import Box

from benchmarks.composed import Pixels, Truth

LABELS: Final = Path(__file__).with_name("demo_clips.toml")


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """What a person is enrolled with. box: of the face in the picture (None: the largest one)."""

    person: str
    picture: Pixels
    box: Box | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LabeledClip:
    """A clip, the faces in each of its frames, and the pictures to enroll."""

    name: str
    path: Path
    truths: Sequence[Sequence[Truth]]
    portraits: Sequence[Portrait]


def load(demo: Path) -> list[LabeledClip]:
    """The clips of the shared data's folder `demo`. Beside the people of a clip, the gallery gets those of
    `demo/portraits`, who are in none: whoever is named as one of them is named wrongly."""
    others = [Portrait(path.stem, _read(path)) for path in sorted((demo / "portraits").glob("*.jpg"))]
    labels = tomllib.loads(LABELS.read_text(encoding="utf-8"))
    return [_clip(demo / f"{name}.mp4", label, others) for name, label in labels.items()]


def _clip(path: Path, label: Mapping[str, Any], others: Sequence[Portrait]) -> LabeledClip:
    people: Mapping[str, Mapping[str, Any]] = label["people"]
    wanted: dict[int, list[str]] = {}
    for letter, person in people.items():
        if "enroll" in person:
            wanted.setdefault(person["enroll"], []).append(letter)
    truths: list[list[Truth]] = []
    portraits = list(others)
    with VideoReader(path) as reader:
        for picture in reader.pictures():
            shot = sum(picture.index >= cut for cut in label["cuts"])
            boxes = {letter: box_at(person["boxes"], picture.index) for letter, person in people.items()}
            truths.append(
                [
                    Truth(letter, "enroll" in people[letter], shot, box)
                    for letter, box in boxes.items()
                    if box is not None
                ]
            )
            here = wanted.get(picture.index, ())
            portraits += [Portrait(letter, picture.image(), boxes[letter]) for letter in here]
    return LabeledClip(path.stem, path, truths, portraits)


def box_at(stretches: Sequence[Sequence[Sequence[float]]], frame: int) -> Box | None:
    """Where a face is in a frame, moving evenly between two key frames; None where it is not on screen."""
    for stretch in stretches:
        for before, after in pairwise([*stretch, stretch[-1]]):
            if before[0] <= frame <= after[0]:
                share = (frame - before[0]) / max(after[0] - before[0], 1)
                left, top, right, bottom = (
                    a + share * (b - a) for a, b in zip(before[1:], after[1:], strict=True)
                )
                return left, top, right, bottom
    return None


def _read(path: Path) -> Pixels:
    picture = cv2.imread(str(path))
    if picture is None:
        raise SystemExit(f"{path.name} cannot be read")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)
