"""MTCNN's networks a second time, as plain NumPy from the published layer lists. Slow, and only for tests.

Shares nothing with `sphereid.faces.detect` but the files: it reads them itself, keeps the published layouts
(HWC, kernels HWIO, two class logits with softmax) and normalizes the pixels before the first layer.
"""

from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def layers(net: str) -> list[Array]:
    """The published arrays of `pnet`, `rnet` or `onet` in layer order."""
    spec = find_spec("mtcnn")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / "assets" / "weights" / f"{net}.lz4"
    return [np.asarray(array, np.float64) for array in joblib.load(path)]


def convolve(x: Array, kernel: Array, bias: Array) -> Array:
    """(N, H, W, C) by (kh, kw, C, D), no padding, stride 1."""
    kh, kw = kernel.shape[:2]
    height, width = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    out = np.zeros((len(x), height, width, kernel.shape[3])) + bias
    for i in range(kh):
        for j in range(kw):
            out += x[:, i : i + height, j : j + width] @ kernel[i, j]
    return out


def prelu(x: Array, slope: Array) -> Array:
    return np.where(x > 0, x, x * slope.reshape(-1))


def max_pool(x: Array, size: int) -> Array:
    """Stride 2; windows that stick out at the right and bottom take what there is."""
    height, width = (-(-(side - size) // 2) + 1 for side in x.shape[1:3])
    pad_y, pad_x = (height - 1) * 2 + size - x.shape[1], (width - 1) * 2 + size - x.shape[2]
    padded = np.pad(x, ((0, 0), (0, pad_y), (0, pad_x), (0, 0)), constant_values=-np.inf)
    windows = [
        padded[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2]
        for i in range(size)
        for j in range(size)
    ]
    return np.max(windows, axis=0)


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def forward(net: str, pixels: Array) -> tuple[Array, ...]:
    """Outputs for (N, H, W, 3) RGB pixels, 0 to 255.

    P-net: box offsets (N, h, w, 4), face probability (N, h, w). R-net: (N, 4), (N,). O-net: (N, 4),
    landmarks (N, 10) as x1..x5 y1..y5, (N,).
    """
    pools = {"pnet": (2, 0, 0), "rnet": (3, 3, 0), "onet": (3, 3, 2, 0)}[net]
    rest = layers(net)
    x = (np.asarray(pixels, np.float64) - 127.5) / 128
    for pool in pools:
        kernel, bias, slope, *rest = rest
        x = prelu(convolve(x, kernel, bias), slope)
        if pool:
            x = max_pool(x, pool)
    if net != "pnet":
        kernel, bias, slope, *rest = rest
        flat = x.transpose(0, 2, 1, 3).reshape(len(x), -1)  # width before height, as published
        x = prelu(flat @ kernel + bias, slope)
    heads = [x @ rest[i].reshape(-1, rest[i].shape[-1]) + rest[i + 1] for i in range(0, len(rest), 2)]
    return *heads[:-1], softmax(heads[-1])[..., 1]


def area_resize(image: NDArray[np.uint8], height: int, width: int) -> Array:
    """(height, width, 3): each output pixel the mean of rows ⌊i·H/h⌋ to ⌈(i+1)·H/h⌉−1, columns alike."""
    rows = [(i * image.shape[0] // height, -(-(i + 1) * image.shape[0] // height)) for i in range(height)]
    columns = [(j * image.shape[1] // width, -(-(j + 1) * image.shape[1] // width)) for j in range(width)]
    values = image.astype(np.float64)
    return np.array([[values[a:b, c:d].mean(axis=(0, 1)) for c, d in columns] for a, b in rows])


def overlap(a: Array, b: Array, kind: str) -> float:
    """Of two boxes; `min` counts whole pixels, as facenet-pytorch does there and only there."""
    plus = 1 if kind == "min" else 0
    width = min(a[2], b[2]) - max(a[0], b[0]) + plus
    height = min(a[3], b[3]) - max(a[1], b[1]) + plus
    inter = max(width, 0) * max(height, 0)
    areas = [(c[2] - c[0] + plus) * (c[3] - c[1] + plus) for c in (a, b)]
    return float(inter / (min(areas) if kind == "min" else sum(areas) - inter))


def suppress(boxes: Array, scores: Array, threshold: float, kind: str = "union") -> list[int]:
    """Greedy non-maximum suppression in two loops."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(overlap(boxes[i], boxes[j], kind) <= threshold for j in kept):
            kept.append(i)
    return kept


def regress(box: Array, offsets: Array, plus: float) -> Array:
    width, height = box[2] - box[0] + plus, box[3] - box[1] + plus
    return box + offsets * (width, height, width, height)


def square(box: Array) -> Array:
    width, height = box[2] - box[0], box[3] - box[1]
    side = max(width, height)
    left, top = box[0] + width / 2 - side / 2, box[1] + height / 2 - side / 2
    return np.array([left, top, left + side, top + side])


def cut(image: NDArray[np.uint8], box: Array, side: int) -> Array:
    left, top, right, bottom = (int(v) for v in box)
    left, top = max(left, 1), max(top, 1)
    right, bottom = min(right, image.shape[1]), min(bottom, image.shape[0])
    return area_resize(image[top - 1 : bottom, left - 1 : right], side, side)


def propose(image: NDArray[np.uint8], min_face: float) -> Array:
    """(N, 4): P-net's candidates, best first."""
    boxes, scores, offsets = [], [], []
    scale = 12 / min_face
    while min(image.shape[:2]) * scale >= 12:
        size = [int(side * scale + 1) for side in image.shape[:2]]
        regression, probability = forward("pnet", area_resize(image, *size)[None])
        cells = np.argwhere(probability[0] >= 0.6)
        found = np.array(
            [np.floor([(2 * x + 1) / scale, (2 * y + 1) / scale, (2 * x + 12) / scale, (2 * y + 12) / scale])
             for y, x in cells]
        ).reshape(-1, 4)  # fmt: skip
        score = np.array([probability[0, y, x] for y, x in cells])
        for i in suppress(found, score, 0.5):
            boxes.append(found[i])
            scores.append(score[i])
            offsets.append(regression[0, cells[i][0], cells[i][1]])
        scale *= 0.709
    kept = suppress(np.array(boxes), np.array(scores), 0.7)
    return np.array([square(regress(boxes[i], offsets[i], 0)) for i in kept])


def refine(image: NDArray[np.uint8], boxes: Array) -> Array:
    """(M, 4): the boxes that R-net leaves, best first."""
    offsets, scores = forward("rnet", np.stack([cut(image, box, 24) for box in boxes]))
    good = np.flatnonzero(scores > 0.7)
    kept = good[suppress(boxes[good], scores[good], 0.7)]
    return np.array([square(regress(boxes[i], offsets[i], 1)) for i in kept])


def output(image: NDArray[np.uint8], boxes: Array) -> tuple[Array, Array, Array]:
    """O-net's boxes (K, 4), scores (K,) and landmarks (K, 5, 2), best first."""
    offsets, points, scores = forward("onet", np.stack([cut(image, box, 48) for box in boxes]))
    good = np.flatnonzero(scores > 0.7)
    final = np.array([regress(boxes[i], offsets[i], 1) for i in good])
    kept = suppress(final, scores[good], 0.7, "min")
    landmarks = [
        [(points[i][j] * (boxes[i][2] - boxes[i][0] + 1) + boxes[i][0] - 1,
          points[i][5 + j] * (boxes[i][3] - boxes[i][1] + 1) + boxes[i][1] - 1) for j in range(5)]
        for i in good[kept]
    ]  # fmt: skip
    return final[kept], scores[good][kept], np.array(landmarks)
