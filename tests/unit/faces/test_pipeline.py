"""The whole pipeline on a real portrait, with the real detector and a small real ONNX model."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sphereid.faces.decode import DecodedImage, DecodeLimits, decode
from sphereid.faces.detect import MtcnnDetector
from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.pipeline import Analysis, FacePipeline
from sphereid.faces.quality import QualityThresholds, Scale
from sphereid.faces.types import Face, RGBImage

from tests.unit.faces.models import write_model


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> FacePipeline:
    folder: Path = write_model(tmp_path_factory.mktemp("models") / "linear", size=32)
    return FacePipeline(MtcnnDetector(), OnnxEmbedder.load(folder))


@pytest.fixture(scope="module")
def crowd(portrait: np.ndarray) -> np.ndarray:
    """The portrait three times, at different sizes."""
    canvas = np.full((700, 1200, 3), 128, np.uint8)
    for x, side in ((0, 512), (520, 380), (910, 250)):
        canvas[:side, x : x + side] = np.asarray(Image.fromarray(portrait).resize((side, side)))
    return canvas


def test_a_portrait_gives_one_face_with_everything(pipeline: FacePipeline, portrait: np.ndarray) -> None:
    analysis = pipeline.analyze(portrait)
    (found,) = analysis.faces
    assert found.crop.shape == (112, 96, 3)
    assert found.face.quality is not None
    assert found.face.quality.reasons == ()
    assert found.embedding is not None
    assert found.embedding.contract == pipeline.embedder.contract
    assert found.embedding.vector.shape == (32,)
    assert np.linalg.norm(found.embedding.vector) == pytest.approx(1, abs=1e-6)
    left, top, right, bottom = found.face.box_xyxy
    assert 170 < left < 195
    assert 50 < top < 75
    assert 255 < right < 280
    assert 160 < bottom < 185


def test_each_step_is_timed(pipeline: FacePipeline, portrait: np.ndarray) -> None:
    timings = pipeline.analyze(portrait).timings_ms
    assert timings.detect > timings.align > 0
    assert timings.quality > 0
    assert timings.embed > 0


def test_faces_come_largest_first_and_max_faces_keeps_the_largest(
    pipeline: FacePipeline, crowd: np.ndarray
) -> None:
    faces = pipeline.analyze(crowd).faces
    widths = [found.face.box_xyxy[2] - found.face.box_xyxy[0] for found in faces]
    assert len(faces) == 3
    assert widths == sorted(widths, reverse=True)
    (largest,) = pipeline.analyze(crowd, max_faces=1).faces
    np.testing.assert_array_equal(largest.face.box_xyxy, faces[0].face.box_xyxy)
    assert len(pipeline.analyze(crowd, min_face=120).faces) < 3


def test_without_embedding(pipeline: FacePipeline, portrait: np.ndarray) -> None:
    (found,) = pipeline.analyze(portrait, embed=False).faces
    assert found.embedding is None
    assert found.face.quality is not None


def test_no_face_is_an_empty_analysis(pipeline: FacePipeline) -> None:
    for shape in ((240, 320, 3), (1, 1, 3), (11, 500, 3)):
        assert pipeline.analyze(np.full(shape, 90, np.uint8)).faces == ()


def test_coordinates_are_of_the_original_when_it_was_reduced(
    pipeline: FacePipeline, portrait: np.ndarray
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(portrait).resize((2048, 2048)).save(buffer, "JPEG", quality=90)
    full = decode(buffer.getvalue())
    reduced = decode(buffer.getvalue(), DecodeLimits(max_decoded_pixels=600_000))
    assert (full.scale, reduced.scale) == (1, 0.25)
    (a,), (b,) = pipeline.analyze(full).faces, pipeline.analyze(reduced).faces
    np.testing.assert_allclose(b.face.box_xyxy, a.face.box_xyxy, atol=25)
    np.testing.assert_allclose(b.face.landmarks, a.face.landmarks, atol=12)


def test_min_face_counts_in_pixels_of_the_original(pipeline: FacePipeline, portrait: np.ndarray) -> None:
    asked: list[int | None] = []

    class Listening:
        """The real detector, writing down what it was asked for."""

        def detect(
            self, image: RGBImage, *, min_face: int | None = None, min_score: float | None = None
        ) -> list[Face]:
            asked.append(min_face)
            return pipeline.detector.detect(image, min_face=min_face, min_score=min_score)

    listening = FacePipeline(Listening(), pipeline.embedder)
    reduced = DecodedImage(portrait, 2048, 2048, 0.25, "JPEG")
    assert len(listening.analyze(reduced, min_face=200).faces) == 1
    listening.analyze(reduced)
    listening.analyze(portrait, min_face=200)
    assert asked == [50, None, 200]


def test_quality_thresholds_are_the_pipelines(pipeline: FacePipeline, portrait: np.ndarray) -> None:
    strict = QualityThresholds(too_small=Scale(worst=100, limit=500, ideal=900))
    (found,) = FacePipeline(pipeline.detector, pipeline.embedder, quality=strict).analyze(portrait).faces
    assert found.face.quality is not None
    assert found.face.quality.reasons == ("too_small",)


def test_threads_get_the_same_answers(
    pipeline: FacePipeline, portrait: np.ndarray, crowd: np.ndarray
) -> None:
    pictures = [portrait, crowd] * 4

    def vectors(analysis: Analysis) -> np.ndarray:
        return np.stack([found.embedding.vector for found in analysis.faces if found.embedding])

    expected = [vectors(pipeline.analyze(picture)) for picture in pictures[:2]] * 4
    with ThreadPoolExecutor(4) as pool:
        for got, wanted in zip(pool.map(pipeline.analyze, pictures), expected, strict=True):
            np.testing.assert_allclose(vectors(got), wanted, atol=1e-5)
