"""The shipped models' int8 files beside their fp32 ones: one embedding space, one contract, one gallery."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from sphereid.faces.detect import MtcnnDetector
from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.manifest import load_manifest
from sphereid.faces.types import RGBImage
from sphereid.gallery.service import GalleryService
from sphereid.gallery.types import FpirPolicy, GalleryRules, NewFace
from sphereid.recognition.models import impostor_calibration

MODELS = Path(__file__).parents[3] / "models"
NAMES = sorted(path.parent.name for path in MODELS.glob("*/model.int8.onnx"))


@pytest.fixture(scope="module")
def photographs() -> list[RGBImage]:
    """One person: as she is, darker, coarser, mirrored."""
    image = np.ascontiguousarray(skimage.data.astronaut()[:300, 100:400])
    coarse = np.ascontiguousarray(image[::2, ::2])
    return [image, (image * 0.6).astype(np.uint8), coarse, np.ascontiguousarray(image[:, ::-1])]


def crops_of(photographs: list[RGBImage], embedder: OnnxEmbedder) -> RGBImage:
    detector = MtcnnDetector()
    return np.concatenate([embedder.align(each, detector.detect(each)[:1]) for each in photographs])


@pytest.mark.parametrize("name", NAMES)
def test_both_files_give_a_face_nearly_the_same_embedding(name: str, photographs: list[RGBImage]) -> None:
    fp32, int8 = (OnnxEmbedder.load(MODELS / name, providers="cpu", precision=p) for p in ("fp32", "int8"))
    assert fp32.contract == int8.contract
    assert fp32.file_digest != int8.file_digest
    crops = crops_of(photographs, fp32)
    similarity = np.sum(fp32.embed(crops) * int8.embed(crops), axis=1)
    assert similarity.min() > 0.98
    alone = np.concatenate([int8.embed(crop[None]) for crop in crops])
    assert alone == pytest.approx(int8.embed(crops), abs=1e-6), "the batch does not matter"


def test_a_gallery_made_with_fp32_answers_int8_probes(tmp_path: Path, photographs: list[RGBImage]) -> None:
    """The default may change from one to the other under a gallery that is there."""
    folder = MODELS / "dlib29-asoftmax"
    fp32, int8 = (OnnxEmbedder.load(folder, providers="cpu", precision=p) for p in ("fp32", "int8"))
    crops = crops_of(photographs, fp32)
    calibration = impostor_calibration(load_manifest(folder))
    assert calibration is not None
    service = GalleryService.open(
        f"sqlite:///{tmp_path}/gallery.db",
        tmp_path,
        calibrations={fp32.contract: calibration},
        default_rules=GalleryRules(policy=FpirPolicy(0.01)),
    )
    try:
        first = NewFace(fp32.embed(crops[:1])[0], fp32.contract, quality=0.9, detection_score=0.99)
        service.enroll("default", "eileen", [first], create=True)
        decisions, _ = service.identify("default", int8.embed(crops[1:]), int8.contract, k=1)
        assert [each.outcome for each in decisions] == ["match"] * 3
        again = NewFace(int8.embed(crops[:1])[0], int8.contract, quality=0.9, detection_score=0.99)
        repeated = service.enroll("default", "eileen", [again])
        assert repeated.duplicates, "the same photograph is seen to be the same"
    finally:
        service.close()
