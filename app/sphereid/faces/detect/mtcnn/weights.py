"""The MTCNN weights that the package `mtcnn` carries, read without importing it (that wants TensorFlow)."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sphereid.faces.errors import ModelError

Net = Literal["pnet", "rnet", "onet"]
NETS: tuple[Net, ...] = ("pnet", "rnet", "onet")
_CONVS: dict[Net, int] = {"pnet": 3, "rnet": 3, "onet": 4}
_DENSE: dict[Net, int] = {"pnet": 0, "rnet": 1, "onet": 1}
_HEADS: dict[Net, tuple[int, ...]] = {"pnet": (4, 2), "rnet": (4, 2), "onet": (4, 10, 2)}
_PARAMETERS: dict[Net, int] = {"pnet": 6632, "rnet": 100178, "onet": 389040}

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A convolution or dense layer with its PReLU.

    kernel: (out, in, kh, kw) for a convolution, (in, out) for a dense layer. bias, slope: (out,).
    """

    kernel: Array
    bias: Array
    slope: Array


@dataclass(frozen=True, slots=True, eq=False)
class NetWeights:
    """One network of the cascade.

    heads: (kernel (in, out), bias (out,)) in the order box regression (4), landmarks (10, O-net only),
    [no face, face] logits (2). P-net's heads are 1×1 convolutions; the same matrices describe them.
    """

    convs: tuple[Layer, ...]
    dense: tuple[Layer, ...]
    heads: tuple[tuple[Array, Array], ...]


def weight_files() -> dict[Net, Path]:
    """Where the installed `mtcnn` package keeps its weights.

    Raises ModelError when the package or a file is missing.
    """
    spec = find_spec("mtcnn")
    for place in (spec.submodule_search_locations or []) if spec else []:
        files = {net: Path(place) / "assets" / "weights" / f"{net}.lz4" for net in NETS}
        if all(path.is_file() for path in files.values()):
            return files
    raise ModelError(
        "the MTCNN weights are missing: install the package `mtcnn` 1.x (pip install 'mtcnn>=1.0.0'); "
        "TensorFlow is not needed"
    )


def weights_digest() -> str:
    """SHA-256 over the three weight files, in hexadecimal."""
    digest = hashlib.sha256()
    for path in weight_files().values():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def load_weights(net: Net) -> NetWeights:
    """Weights of one network, float32, in ONNX layout (convolution kernels as out, in, kh, kw).

    The file is a joblib dump of the plain list of layer arrays: convolution kernels HWIO, biases, PReLU
    slopes, dense kernels (in, out), then the heads. Raises ModelError when it holds anything else.
    """
    import joblib

    path = weight_files()[net]
    arrays: list[Array] = [np.asarray(a, np.float32) for a in joblib.load(path)]
    if sum(a.size for a in arrays) != _PARAMETERS[net]:
        raise ModelError(
            f"{path.name} of the package `mtcnn` is not the network we know: reinstall mtcnn 1.x"
        )
    rest = iter(arrays)
    convs = tuple(_layer(rest, conv=True) for _ in range(_CONVS[net]))
    dense = tuple(_layer(rest, conv=False) for _ in range(_DENSE[net]))
    heads = tuple((next(rest).reshape(-1, size), next(rest)) for size in _HEADS[net])
    return NetWeights(convs, dense, heads)


def _layer(arrays: Iterator[Array], *, conv: bool) -> Layer:
    kernel, bias, slope = next(arrays), next(arrays), next(arrays)
    if conv:
        kernel = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
    return Layer(kernel, bias, slope.reshape(-1))
