"""The weights, read once; their package is an extra, without which these tests are skipped."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sphereid.faces.errors import ModelError
from sphereid.faces.published.dlib.weights import DlibWeights, load_weights, model_path

from tests.unit.training.importers.dlib.inputs import golden_chips


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Waiting threads are what makes small batches slow on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def weights_file() -> Path:
    try:
        return model_path()
    except ModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def weights(weights_file: Path) -> DlibWeights:
    return load_weights(weights_file)


@pytest.fixture(scope="session")
def chips() -> NDArray[np.uint8]:
    return golden_chips()


@pytest.fixture(scope="session")
def pixels(chips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(6, 3, 150, 150) normalized as dlib does it, in float64 and then rounded."""
    mean = np.array([122.782, 117.001, 104.298])
    return ((chips - mean) / 256).transpose(0, 3, 1, 2).astype(np.float32)


@pytest.fixture(scope="session")
def golden() -> NDArray[np.float32]:
    """(6, 128) descriptors by dlib."""
    descriptors: NDArray[np.float32] = np.load(Path(__file__).parent / "golden.npz")["descriptors"]
    return descriptors
