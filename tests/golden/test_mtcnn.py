"""The ONNX cascade against the plain NumPy one, network by network and stage by stage."""

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from sphereid.faces.detect import DetectorConfig, MtcnnDetector
from sphereid.faces.detect.mtcnn.boxes import square
from sphereid.faces.detect.mtcnn.cascade import Cascade, sigmoid
from sphereid.faces.detect.mtcnn.graphs import load_graphs
from sphereid.faces.detect.mtcnn.pyramid import AreaSampler
from sphereid.faces.detect.mtcnn.weights import Net

from tests.golden import mtcnn_reference as reference
from tests.golden.make_mtcnn import GOLDEN, PNET_SIZES, SCENE_MIN_FACE, crop_inputs, pnet_input, scene

Arrays = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def golden() -> Arrays:
    with np.load(GOLDEN) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def graphs() -> dict[Net, bytes]:
    return load_graphs(None)


@pytest.fixture(scope="module")
def cascade(graphs: dict[Net, bytes]) -> Cascade:
    return Cascade(graphs, thresholds=(0.6, 0.7), factor=0.709, max_candidates=2000, threads=1)


def infer(model: bytes, pixels: NDArray[np.float64]) -> NDArray[np.float32]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
    return session.run(None, {"pixels": planes})[0]


@pytest.mark.parametrize(("height", "width"), PNET_SIZES)
def test_pnet(
    graphs: dict[Net, bytes], golden: Arrays, portrait: NDArray[np.uint8], height: int, width: int
) -> None:
    heads = infer(graphs["pnet"], pnet_input(portrait, height, width))
    np.testing.assert_allclose(
        heads[:, :4].transpose(0, 2, 3, 1), golden[f"pnet_{height}x{width}_offsets"], atol=2e-5
    )
    np.testing.assert_allclose(sigmoid(heads[:, 4]), golden[f"pnet_{height}x{width}_scores"], atol=2e-5)


@pytest.mark.parametrize(("net", "side"), [("rnet", 24), ("onet", 48)])
def test_crop_networks(
    graphs: dict[Net, bytes], golden: Arrays, portrait: NDArray[np.uint8], net: Net, side: int
) -> None:
    heads = infer(graphs[net], crop_inputs(portrait, side))
    np.testing.assert_allclose(heads[:, :4], golden[f"{net}_offsets"], atol=2e-5)
    np.testing.assert_allclose(sigmoid(heads[:, -1]), golden[f"{net}_scores"], atol=2e-5)
    if net == "onet":
        np.testing.assert_allclose(heads[:, 4:14], golden["onet_landmarks"], atol=2e-5)


def test_goldens_tell_faces_from_the_rest(golden: Arrays) -> None:
    """A guard against goldens that hold for any network: they span faces and no faces."""
    assert golden["pnet_37x52_scores"].max() > 0.9
    for net in ("rnet", "onet"):
        assert golden[f"{net}_scores"][0] > 0.99
        assert (golden[f"{net}_scores"][3:] < 0.1).all()


def test_proposals(cascade: Cascade, golden: Arrays, portrait: NDArray[np.uint8]) -> None:
    boxes = cascade.propose(AreaSampler(scene(portrait)), SCENE_MIN_FACE)
    np.testing.assert_allclose(boxes, golden["proposals"], atol=0.01)


def test_refinement(cascade: Cascade, golden: Arrays, portrait: NDArray[np.uint8]) -> None:
    boxes = cascade.refine(AreaSampler(scene(portrait)), golden["proposals"].astype(np.float32))
    np.testing.assert_allclose(boxes, golden["refined"], atol=0.01)


def test_output(cascade: Cascade, golden: Arrays, portrait: NDArray[np.uint8]) -> None:
    found = cascade.output(AreaSampler(scene(portrait)), golden["refined"].astype(np.float32), 0.7)
    np.testing.assert_allclose(found.boxes, golden["boxes"], atol=0.01)
    np.testing.assert_allclose(found.scores, golden["scores"], atol=1e-4)
    np.testing.assert_allclose(found.landmarks, golden["points"], atol=0.01)


def test_the_whole_cascade(golden: Arrays, portrait: NDArray[np.uint8]) -> None:
    faces = MtcnnDetector().detect(scene(portrait), min_face=SCENE_MIN_FACE)
    assert len(faces) == len(golden["boxes"]) == 2
    for face in faces:
        nearest = np.abs(golden["boxes"] - face.box_xyxy).sum(axis=1).argmin()
        np.testing.assert_allclose(face.box_xyxy, golden["boxes"][nearest], atol=0.01)
        np.testing.assert_allclose(face.landmarks, golden["points"][nearest], atol=0.01)


def test_tiles_change_nothing(cascade: Cascade, portrait: NDArray[np.uint8]) -> None:
    """A level of 240×240 is cut into four; P-net must answer as for the whole."""
    image = portrait[:200, :200]
    scale = 1.2
    size = int(200 * scale + 1)
    regression, probability = reference.forward("pnet", reference.area_resize(image, size, size)[None])
    cells, heads, _ = cascade._scan(AreaSampler(image), [scale])
    expected = np.argwhere(probability[0] >= 0.6)
    order = np.lexsort((cells[:, 0], cells[:, 1]))
    np.testing.assert_array_equal(cells[order], expected[:, ::-1])
    np.testing.assert_allclose(heads[order, :4], regression[0][tuple(expected.T)], atol=1e-4)


def test_square_keeps_the_center() -> None:
    boxes = np.array([[10, 20, 30, 80], [0, 0, 50, 10]], np.float32)
    np.testing.assert_allclose(square(boxes), [reference.square(box) for box in boxes.astype(np.float64)])


def test_close_ups_off_is_the_plain_cascade(golden: Arrays, portrait: NDArray[np.uint8]) -> None:
    faces = MtcnnDetector(DetectorConfig(close_ups=False)).detect(scene(portrait), min_face=SCENE_MIN_FACE)
    assert len(faces) == len(golden["boxes"])
