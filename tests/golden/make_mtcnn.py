"""Make `mtcnn.npz`: what MTCNN's networks answer by the plain NumPy forward pass of `mtcnn_reference`.

    python -m tests.golden.make_mtcnn

Holds network outputs only; the inputs are scikit-image's portrait and seeded noise, made anew by the test.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.golden import mtcnn_reference as reference

GOLDEN = Path(__file__).with_name("mtcnn.npz")
PNET_SIZES = ((12, 12), (13, 15), (37, 52))
"""Even and odd sides: the pooling's last window is full or half empty."""
SCENE_MIN_FACE = 30
FACE = (175, 55, 277, 183)
"""Left, top, right, bottom around the face of the portrait, in pixels."""


def pnet_input(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float64]:
    """(1, height, width, 3): the portrait's upper middle at a small size."""
    return reference.area_resize(image[:320, 64:400], height, width)[None]


def crop_inputs(image: NDArray[np.uint8], side: int) -> NDArray[np.float64]:
    """(7, side, side, 3): the face, shifted and scaled cuts of the portrait, a plain one and noise."""
    left, top, right, bottom = FACE
    cuts = [
        image[top:bottom, left:right],
        image[top - 20 : bottom + 10, left - 30 : right + 5],
        image[top + 20 : bottom, left + 25 : right],
        image[300:420, 100:260],
        image[:40, :40],
    ]
    crops = [reference.area_resize(cut, side, side) for cut in cuts]
    noise = np.random.default_rng(7).integers(0, 256, (side, side, 3)).astype(np.float64)
    return np.stack([*crops, np.full((side, side, 3), 200.0), noise])


def scene(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(180, 280, 3): the portrait's face, and its mirror image beside it."""
    face = image[20:200, 140:280]
    return np.ascontiguousarray(np.concatenate([face, face[:, ::-1]], axis=1))


def main() -> None:
    from skimage import data

    image = data.astronaut()
    golden: dict[str, NDArray[np.float32]] = {}
    for height, width in PNET_SIZES:
        offsets, scores = reference.forward("pnet", pnet_input(image, height, width))
        golden[f"pnet_{height}x{width}_offsets"] = offsets.astype(np.float32)
        golden[f"pnet_{height}x{width}_scores"] = scores.astype(np.float32)
    for net, side in (("rnet", 24), ("onet", 48)):
        offsets, *landmarks, scores = reference.forward(net, crop_inputs(image, side))
        golden[f"{net}_offsets"] = offsets.astype(np.float32)
        golden[f"{net}_scores"] = scores.astype(np.float32)
        if landmarks:
            golden[f"{net}_landmarks"] = landmarks[0].astype(np.float32)
    picture = scene(image)
    proposals = reference.propose(picture, SCENE_MIN_FACE)
    refined = reference.refine(picture, proposals)
    boxes, scores, points = reference.output(picture, refined)
    golden |= {"proposals": proposals, "refined": refined, "boxes": boxes, "scores": scores, "points": points}
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    main()
