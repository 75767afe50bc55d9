"""Measures what the pipeline makes of scikit-image's portrait, for `test_pipeline.py` to hold it to.

    python -m tests.golden.make_pipeline     # writes tests/golden/pipeline.json anew

The file holds measurements alone. Of the crop it keeps the mean of each row and column, from which no picture
can be made.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sphereid.faces.detect import MtcnnDetector
from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.pipeline import FacePipeline
from sphereid.faces.types import Face, RGBImage

from tests.unit.faces.models import write_model

GOLDEN = Path(__file__).with_name("pipeline.json")


def detect(portrait: NDArray[np.uint8]) -> dict[str, Any]:
    """Where the detector finds the one face in the picture, as plain numbers."""
    (face,) = MtcnnDetector().detect(portrait)
    return {
        "box": face.box_xyxy.tolist(),
        "detection_score": face.score,
        "landmarks": face.landmarks.tolist(),
    }


def measure(portrait: NDArray[np.uint8], found: dict[str, Any]) -> dict[str, Any]:
    """What the pipeline makes of a face that lies there, as plain numbers."""
    face = Face(np.float32(found["box"]), found["detection_score"], np.float32(found["landmarks"]))
    with tempfile.TemporaryDirectory() as folder:
        embedder = OnnxEmbedder.load(write_model(Path(folder), size=16, flip="sum"), providers="cpu")
    (analyzed,) = FacePipeline(Known(face), embedder).analyze(portrait).faces
    assert analyzed.face.quality is not None
    assert analyzed.embedding is not None
    return {
        "quality": analyzed.face.quality.score,
        "reasons": list(analyzed.face.quality.reasons),
        "crop_rows": analyzed.crop.mean(axis=(1, 2)).tolist(),
        "crop_columns": analyzed.crop.mean(axis=(0, 2)).tolist(),
        "embedding": analyzed.embedding.vector.tolist(),
    }


class Known:
    """A detector of one face whose place is known, so that only the steps after it are measured."""

    def __init__(self, face: Face) -> None:
        self.face = face

    def detect(
        self, image: RGBImage, *, min_face: int | None = None, min_score: float | None = None
    ) -> list[Face]:
        """The face, wherever one looks."""
        return [self.face]


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    """The same with four decimals."""
    return dict(json.loads(json.dumps(values), parse_float=lambda text: round(float(text), 4)))


def main() -> None:
    from skimage import data

    portrait = np.ascontiguousarray(data.astronaut())
    found = rounded(detect(portrait))
    GOLDEN.write_text(json.dumps({**found, **rounded(measure(portrait, found))}) + "\n")
    print(f"wrote {GOLDEN}")


if __name__ == "__main__":
    main()
