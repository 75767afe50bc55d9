"""InsightFace's verification sets (`lfw.bin`, `cfp_fp.bin`, …): a pickle of (encoded images, same or not)."""

import codecs
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sphereid_training.errors import TrainingError


@dataclass(frozen=True, slots=True, eq=False)
class BinSet:
    """images: 2·P encoded images, pair after pair. same: (P,)."""

    images: list[bytes]
    same: NDArray[np.bool_]


class _PlainUnpickler(pickle.Unpickler):
    """Lists, tuples, bytes, strings, numbers: nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        # Python 3 writes bytes in old protocols as a call of this harmless function.
        if (module, name) == ("_codecs", "encode"):
            return codecs.encode
        raise pickle.UnpicklingError(f"it holds {module}.{name}")


def read_bin(path: Path) -> BinSet:
    """Read a set. Raises TrainingError for anything but plain images and labels in matching numbers."""
    try:
        images, same = _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        encoded = [bytes(image) for image in images]
        flags = np.array([bool(value) for value in same])
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:
        raise TrainingError(f"{path} is not a plain verification set: {error}") from None
    if len(encoded) != 2 * len(flags) or not len(flags):
        raise TrainingError(f"{path} has {len(encoded)} images for {len(flags)} pairs, not two a pair")
    return BinSet(encoded, flags)
