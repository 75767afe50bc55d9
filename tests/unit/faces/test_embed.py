"""The embedder over real ONNX files, against NumPy doing the same arithmetic."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from sphereid.faces.embed import OnnxEmbedder, Providers, open_session
from sphereid.faces.errors import ModelError
from sphereid.faces.ports import FaceEmbedder
from sphereid.faces.types import Face

from tests.unit.faces.models import linear_onnx, manifest_for, write_model

HEIGHT, WIDTH, SIZE = 112, 96, 8
RNG = np.random.default_rng(7)
WEIGHT = RNG.standard_normal((3 * HEIGHT * WIDTH, SIZE)).astype(np.float32)
MODEL = linear_onnx(WEIGHT, HEIGHT, WIDTH)
CROPS = RNG.integers(0, 256, (45, HEIGHT, WIDTH, 3), dtype=np.uint8)


def expected(crops: np.ndarray, *, color: str, flip: str) -> np.ndarray:
    """One crop at a time, in float64, straight from the manifest's definitions."""

    def output(crop: np.ndarray) -> np.ndarray:
        channels = crop if color == "rgb" else crop[:, :, ::-1]
        pixels = (channels.astype(np.float64) - 127.5) / 128
        return np.asarray(np.moveaxis(pixels, 2, 0).reshape(-1) @ WEIGHT.astype(np.float64))

    rows = []
    for crop in crops:
        row, mirror = output(crop), output(crop[:, ::-1])
        row = {"none": row, "sum": row + mirror, "concat": np.concatenate([row, mirror])}[flip]
        rows.append(row / np.linalg.norm(row))
    return np.stack(rows)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("flip", ["none", "sum", "concat"])
def test_follows_the_manifest(color: str, flip: str) -> None:
    size = SIZE * 2 if flip == "concat" else SIZE
    embedder = OnnxEmbedder(MODEL, manifest_for(MODEL, color=color, flip=flip, embedding_size=size))
    result = embedder.embed(CROPS[:5])
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected(CROPS[:5], color=color, flip=flip), atol=2e-6)


def test_three_means_and_scales_go_by_channel() -> None:
    mean, scale = np.array([123.675, 116.28, 103.53]), np.array([0.0171, 0.0175, 0.0174])
    embedder = OnnxEmbedder(MODEL, manifest_for(MODEL, mean=tuple(mean), scale=tuple(scale)))
    pixels = (CROPS[:2].astype(np.float64) - mean) * scale
    rows = pixels.transpose(0, 3, 1, 2).reshape(2, -1) @ WEIGHT.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(embedder.embed(CROPS[:2]), rows, atol=2e-6)


@pytest.mark.parametrize("flip", ["none", "sum"])
@pytest.mark.parametrize("max_batch", [1, 7, 32])
def test_any_count_in_any_batch_gives_the_same_rows(flip: str, max_batch: int) -> None:
    embedder = OnnxEmbedder(MODEL, manifest_for(MODEL, flip=flip), max_batch=max_batch)
    whole = expected(CROPS, color="rgb", flip=flip)
    for count in (1, 2, 9, 17, 33, 45):
        rows = embedder.embed(CROPS[:count])
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(rows, whole[:count], atol=2e-6)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_model_with_a_fixed_batch_works_too(batch: int) -> None:
    model = linear_onnx(WEIGHT, HEIGHT, WIDTH, batch)
    embedder = OnnxEmbedder(model, manifest_for(model, flip="sum"))
    np.testing.assert_allclose(
        embedder.embed(CROPS[:7]), expected(CROPS[:7], color="rgb", flip="sum"), atol=2e-6
    )


def test_no_crops_give_no_rows() -> None:
    embedder = OnnxEmbedder(MODEL, manifest_for(MODEL))
    assert embedder.embed(CROPS[:0]).shape == (0, SIZE)


def test_the_runtime_sees_few_batch_sizes() -> None:
    embedder = OnnxEmbedder(MODEL, manifest_for(MODEL), max_batch=64)
    shapes = [embedder._rows(count) for count in range(1, 65)]
    assert all(count <= rows <= 1.25 * count for count, rows in enumerate(shapes, start=1))
    assert len(set(shapes)) <= 20


def test_is_the_port_and_aligns_to_its_template(portrait: np.ndarray) -> None:
    embedder: FaceEmbedder = OnnxEmbedder(MODEL, manifest_for(MODEL))
    landmarks = np.array([[205, 102], [247, 104], [225, 129], [202, 139], [245, 142]], np.float32)
    face = Face(np.array([181, 62, 268, 172], np.float32), 0.99, landmarks)
    crops = embedder.align(portrait, [face, face])
    assert crops.shape == (2, HEIGHT, WIDTH, 3)
    assert embedder.align(portrait, []).shape == (0, HEIGHT, WIDTH, 3)
    assert (embedder.name, embedder.dim) == ("linear", SIZE)
    assert embedder.embed(crops).shape == (2, SIZE)


def test_threads_do_not_disturb_one_another() -> None:
    embedder = OnnxEmbedder(MODEL, manifest_for(MODEL, flip="sum"))
    whole = expected(CROPS, color="rgb", flip="sum")
    starts = [0, 3, 8, 20, 30] * 8
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda start: embedder.embed(CROPS[start : start + 9]), starts))
    for start, rows in zip(starts, parts, strict=True):
        np.testing.assert_allclose(rows, whole[start : start + 9], atol=2e-6)


@pytest.mark.parametrize(
    "crops",
    [CROPS[:, :, :90], CROPS.astype(np.float32), CROPS[0], CROPS[..., :1]],
    ids=["size", "type", "rank", "channels"],
)
def test_refuses_crops_of_another_kind(crops: np.ndarray) -> None:
    with pytest.raises(ValueError, match="crops must be"):
        OnnxEmbedder(MODEL, manifest_for(MODEL)).embed(crops)


def test_loads_a_folder(tmp_path: Path) -> None:
    embedder = OnnxEmbedder.load(write_model(tmp_path / "m", size=16, flip="concat"), providers="cpu")
    assert embedder.dim == 32
    assert embedder.provider == "CPUExecutionProvider"
    assert embedder.embed(CROPS[:3]).shape == (3, 32)


def test_refuses_a_file_that_is_not_the_manifests(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "model.onnx").write_bytes(MODEL)
    with pytest.raises(ModelError, match="sha256"):
        OnnxEmbedder.load(folder)


def test_refuses_what_is_no_onnx_file() -> None:
    with pytest.raises(ModelError, match="cannot load"):
        OnnxEmbedder(b"not a model", manifest_for(b"not a model"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"embedding_size": 9}, "output"),
        ({"embedding_size": 8, "flip": "concat"}, "output"),
        ({"template": "arcface-112x112", "input": (1, 3, 112, 112)}, "input"),
    ],
)
def test_refuses_a_model_of_other_shapes(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ModelError, match=f"the file's {says}"):
        OnnxEmbedder(MODEL, manifest_for(MODEL, **changes))


def test_refuses_a_model_with_two_outputs() -> None:
    node = helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2)
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "xab"]
    graph = helper.make_graph([node], "two", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    data = bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="one output"):
        OnnxEmbedder(data, manifest_for(data))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_refuses_embeddings_without_direction(value: float) -> None:
    model = linear_onnx(np.full_like(WEIGHT, value), HEIGHT, WIDTH)
    with pytest.raises(ModelError, match="zero or not finite"):
        OnnxEmbedder(model, manifest_for(model))


@pytest.mark.parametrize("providers", ["cuda", "tensorrt"])
def test_a_gpu_that_was_asked_for_must_be_there(providers: Providers) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this machine's onnxruntime has CUDA")
    with pytest.raises(ModelError, match=f"{providers} was asked for"):
        open_session(MODEL, providers)


@pytest.fixture
def cuda_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime claims CUDA, as its GPU build does without a driver, and falls back silently."""
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this machine's onnxruntime has CUDA")
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )


@pytest.mark.usefixtures("cuda_that_does_not_start")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_silent_fall_back_to_the_cpu_is_an_error_unless_auto_was_asked() -> None:
    with pytest.raises(ModelError, match="did not start and the runtime fell back to CPUExecutionProvider"):
        open_session(MODEL, "cuda")
    assert open_session(MODEL, "auto").get_providers() == ["CPUExecutionProvider"]


def test_auto_takes_what_is_there() -> None:
    assert open_session(MODEL, "auto").get_providers()
