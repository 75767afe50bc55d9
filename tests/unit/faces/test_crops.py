"""What is kept of a photograph gives the same crops again."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sphereid.faces.align import TEMPLATES, align
from sphereid.faces.crops import SIDE, pack, unpack
from sphereid.faces.errors import ImageError
from sphereid.faces.types import Face

LANDMARKS = np.array([[206, 114], [247, 112], [230, 138], [212, 157], [248, 156]], np.float32)


def face(landmarks: NDArray[np.float32]) -> Face:
    return Face(np.array([0, 0, 1, 1], np.float32), 0.9, landmarks)


@pytest.mark.parametrize("template", sorted(TEMPLATES))
@pytest.mark.parametrize("larger", [1, 3])
def test_crops_for_every_template_come_out_alike(
    portrait: NDArray[np.uint8], template: str, larger: int
) -> None:
    image = np.ascontiguousarray(portrait.repeat(larger, 0).repeat(larger, 1))
    landmarks = LANDMARKS * larger
    picture, kept = unpack(pack(image, face(landmarks)))
    assert max(picture.shape) <= SIDE
    (first,) = align(image, landmarks[None], TEMPLATES[template])
    (again,) = align(picture, kept[None], TEMPLATES[template])
    assert np.abs(first.astype(float) - again).mean() < 2.5


def test_a_face_at_the_edge_and_landmarks_that_coincide(portrait: NDArray[np.uint8]) -> None:
    for landmarks in (LANDMARKS - 200, np.full((5, 2), 40, np.float32), LANDMARKS + 5000):
        picture, _ = unpack(pack(portrait, face(landmarks.astype(np.float32))))
        assert picture.ndim == 3


@pytest.mark.parametrize("broken", [b"", b"\0" * 39, b"\0" * 40, b"\0" * 60])
def test_what_is_no_crop_is_refused(broken: bytes) -> None:
    with pytest.raises(ImageError):
        unpack(broken)
