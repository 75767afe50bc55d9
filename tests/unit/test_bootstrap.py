"""What settings become."""

from pathlib import Path

import pytest
from sphereid.bootstrap import open_gallery
from sphereid.faces.manifest import load_manifest
from sphereid.gallery.thresholds.calibration import DEFAULT_COSINE, gallery_threshold
from sphereid.gallery.types import FpirPolicy
from sphereid.inference.loading import batch_size, build_engine
from sphereid.recognition.models import impostor_calibration
from sphereid.settings import Settings

from tests.server import settings_for
from tests.toy import write_toy_model


def test_the_settings_of_detection_reach_the_detector(tmp_path: Path) -> None:
    """Also as defaults: whoever names no score gets the one that was set."""
    write_toy_model(tmp_path / "models")
    chosen = {"min_face": 44, "min_face_ratio": 0.07, "min_score": 0.83, "threads": 2}
    detector = build_engine(settings_for(tmp_path, detection=chosen)).detector
    config = detector.config  # type: ignore[attr-defined]
    assert (config.min_face, config.min_face_ratio, config.threads) == (44, 0.07, 2)
    assert config.thresholds[2] == 0.83


@pytest.mark.parametrize("model", [None, "dlib29-asoftmax", "sphereface20-w32"])
def test_a_gallery_that_holds_nothing_yet_has_the_served_models_threshold(
    tmp_path: Path, model: str | None
) -> None:
    shipped = Path(__file__).parents[2] / "models"
    gallery = open_gallery(settings_for(tmp_path, models_dir=shipped, model=model))
    try:
        manifest = load_manifest(shipped / (model or "dlib29-asoftmax"))
        one_face = gallery_threshold(FpirPolicy(0.01), impostor_calibration(manifest), 0)
        assert gallery.threshold("default") == one_face
        assert one_face.value != DEFAULT_COSINE
    finally:
        gallery.close()


@pytest.mark.parametrize(
    ("provider", "there", "faces"),
    [
        ("auto", ["CPUExecutionProvider"], 4),
        ("auto", ["CUDAExecutionProvider", "CPUExecutionProvider"], 32),
        ("cpu", ["CUDAExecutionProvider", "CPUExecutionProvider"], 4),
        ("tensorrt", ["TensorrtExecutionProvider"], 32),
    ],
)
def test_the_size_of_a_batch_suits_what_runs_it(
    provider: str, there: list[str], faces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: there)
    assert batch_size(Settings(provider=provider)) == faces
    assert batch_size(Settings(provider=provider, queues={"max_batch": 9})) == 9
