"""The teacher: its warp against OpenCV's, its descriptors against those stored for the training faces."""

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sphereid.faces.align import TEMPLATES
from sphereid.faces.published.dlib.weights import DlibWeights
from sphereid_training.importers.dlib.chips import chip_transform
from sphereid_training.importers.dlib.network import DlibNet
from sphereid_training.importers.dlib.teacher import DlibTeacher

CANVAS = TEMPLATES["canvas-128x128"].array


@pytest.fixture(scope="module")
def teacher(weights: DlibWeights) -> DlibTeacher:
    return DlibTeacher(CANVAS, weights)


def planes(images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def test_points_of_the_template_land_on_the_chip_template() -> None:
    matrix = chip_transform(CANVAS)
    landed = CANVAS @ matrix[:, :2].T + matrix[:, 2]
    # The two templates are not similar figures: the best similarity leaves up to three pixels of 150.
    assert np.linalg.norm(landed - TEMPLATES["dlib-150x150"].array, axis=1).max() < 3


def test_chips_are_those_of_opencv(teacher: DlibTeacher, portrait: NDArray[np.uint8]) -> None:
    canvas = cv2.resize(portrait[:256, 100:356], (128, 128), interpolation=cv2.INTER_AREA)
    expected = cv2.warpAffine(canvas, chip_transform(CANVAS), (150, 150))
    found = teacher.chips(planes(canvas[None]).float())[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).mean() < 0.6  # OpenCV rounds positions to 1/32 pixel
    assert np.abs(found - expected)[5:-5, 5:-5].max() < 10


def test_chips_of_its_own_template_go_straight_through(
    weights: DlibWeights, chips: NDArray[np.uint8], golden: NDArray[np.float32]
) -> None:
    straight = DlibTeacher(TEMPLATES["dlib-150x150"].array, weights)
    found = straight(planes(chips[5:])).numpy()
    np.testing.assert_allclose(found[0], golden[5], rtol=0, atol=2e-4)


def test_teacher_is_frozen_whatever_the_loop_does(teacher: DlibTeacher, chips: NDArray[np.uint8]) -> None:
    teacher.train()
    assert not teacher.training
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher(planes(chips[:1, :128, :128])).requires_grad
    assert isinstance(teacher.network, DlibNet)


@pytest.mark.data
def test_descriptors_agree_with_the_stored_ones(teacher: DlibTeacher, shared_data: Path) -> None:
    """The stored descriptors saw chips by dlib's own landmarks, ours see MTCNN's: near, not equal."""
    stored = np.load(shared_data / "train" / "teacher_dlib.npz")
    row = {name: i for i, name in enumerate(stored["name"])}
    canvases, rows = [], []
    with tarfile.open(shared_data / "train" / "celebrities.tar") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                canvases.append(np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")))
                rows.append(row[member.name])
            if len(rows) == 24:
                break
    found = teacher(planes(np.stack(canvases))).numpy()
    wanted = stored["embedding"][rows].astype(np.float32)
    distance = np.linalg.norm(found[:, None] - wanted[None], axis=2)
    same = np.diag(distance)
    assert same.mean() < 0.26
    assert (distance.argmin(axis=1) == np.arange(len(rows))).mean() > 0.9
