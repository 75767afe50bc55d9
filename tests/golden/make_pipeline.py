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

from app.pipeline.detect import MtcnnDetector
from app.pipeline.embed import OnnxEmbedder
from app.pipeline.pipeline import FacePipeline
from tests.unit.pipeline.models import write_model

GOLDEN = Path(__file__).with_name("pipeline.json")


def measure(portrait: NDArray[np.uint8]) -> dict[str, Any]:
    """Everything that the pipeline says of the one face in the picture, as plain numbers."""
    with tempfile.TemporaryDirectory() as folder:
        embedder = OnnxEmbedder.load(write_model(Path(folder), size=16, flip="sum"), providers="cpu")
    (found,) = FacePipeline(MtcnnDetector(), embedder).analyze(portrait).faces
    assert found.face.quality is not None
    assert found.embedding is not None
    return {
        "box": found.face.box_xyxy.tolist(),
        "detection_score": found.face.score,
        "landmarks": found.face.landmarks.tolist(),
        "quality": found.face.quality.score,
        "reasons": list(found.face.quality.reasons),
        "crop_rows": found.crop.mean(axis=(1, 2)).tolist(),
        "crop_columns": found.crop.mean(axis=(0, 2)).tolist(),
        "embedding": found.embedding.vector.tolist(),
    }


def main() -> None:
    from skimage import data

    values = measure(np.ascontiguousarray(data.astronaut()))
    rounded = json.loads(json.dumps(values), parse_float=lambda text: round(float(text), 4))
    GOLDEN.write_text(json.dumps(rounded) + "\n")
    print(f"wrote {GOLDEN}")


if __name__ == "__main__":
    main()
