"""Chips whose descriptors dlib itself computed: `golden.npz` holds what its
`face_recognition_model_v1.compute_face_descriptor` (dlib 20.0.1) gave for `golden_chips()`, in this order."""

import numpy as np
from numpy.typing import NDArray
from skimage import data


def golden_chips() -> NDArray[np.uint8]:
    """(6, 150, 150, 3) uint8 RGB: two of noise, a gradient, black, white, a part of a portrait."""
    noise = np.random.RandomState(0).randint(0, 256, (2, 150, 150, 3)).astype(np.uint8)
    y, x = np.mgrid[:150, :150]
    gradient = np.stack([x * 255 // 149, y * 255 // 149, (x + y) * 255 // 298], axis=-1).astype(np.uint8)
    flat = np.stack([np.zeros_like(gradient), np.full_like(gradient, 255)])
    portrait = data.astronaut()[50:200, 150:300]
    return np.concatenate([noise, gradient[None], flat, portrait[None]])
