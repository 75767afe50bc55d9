"""The detector's parts: box arithmetic, area resizing, weights and their cache."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from sphereid.faces.detect import DetectorConfig, MtcnnDetector
from sphereid.faces.detect.mtcnn import graphs, suppression, weights
from sphereid.faces.detect.mtcnn.boxes import cells_to_boxes, regress
from sphereid.faces.detect.mtcnn.pyramid import AreaSampler, Bins, level_tiles, pyramid_scales
from sphereid.faces.detect.mtcnn.suppression import nms
from sphereid.faces.errors import ModelError

from tests.golden import mtcnn_reference as reference


def random_boxes(seed: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (count, 2))], axis=1)
    return boxes.astype(np.float32), rng.permutation(count).astype(np.float32) - count / 2


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 40),
    threshold=st.sampled_from([0.3, 0.5, 0.7]),
    overlap=st.sampled_from(["union", "min"]),
)
def test_nms_is_the_greedy_one(seed: int, count: int, threshold: float, overlap: str) -> None:
    boxes, scores = random_boxes(seed, count)
    kept = nms(boxes, scores, threshold, overlap=overlap)  # type: ignore[arg-type]
    assert kept.tolist() == reference.suppress(boxes.astype(np.float64), scores, threshold, overlap)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 150),
    stretch=st.sampled_from([1, 8]),
    threshold=st.sampled_from([0.3, 0.5, 0.7]),
)
def test_nms_of_many_boxes_is_the_greedy_one(seed: int, count: int, stretch: int, threshold: float) -> None:
    """Boxes of many sizes and shapes, some of them the same."""
    boxes, scores = random_boxes(seed, count)
    rng = np.random.default_rng(seed)
    boxes[:, 2:] += rng.uniform(0, 40 * (stretch - 1), (count, 1)).astype(np.float32)
    boxes -= 20
    boxes[rng.random(count) < 0.1] = boxes[0]
    groups = rng.integers(0, 3, count)
    few, many = (
        rule(boxes, scores, threshold, groups) for rule in (suppression._nms_few, suppression._nms_many)
    )
    assert many.tolist() == few.tolist()
    alone = suppression._nms_many(boxes, scores, threshold, np.zeros(count, np.int64))
    assert alone.tolist() == reference.suppress(boxes.astype(np.float64), scores, threshold, "union")


def test_nms_by_group_is_nms_of_each_group() -> None:
    boxes, scores = random_boxes(3, 60)
    boxes -= 20  # some coordinates below zero
    groups = np.arange(60) % 3
    kept = set(nms(boxes, scores, 0.4, groups=groups).tolist())
    expected: set[int] = set()
    for group in range(3):
        members = np.flatnonzero(groups == group)
        expected |= set(members[nms(boxes[members], scores[members], 0.4)].tolist())
    assert kept == expected


def test_nms_keeps_the_worst_box_too() -> None:
    boxes = np.array([[0, 0, 10, 10], [100, 100, 110, 110]], np.float32)
    assert nms(boxes, np.array([-3.0, -7.0], np.float32), 0.5).tolist() == [0, 1]


def test_cells_to_boxes() -> None:
    boxes = cells_to_boxes(np.array([[0, 0], [3, 5]]), np.array([0.6, 0.5]))
    np.testing.assert_array_equal(boxes, [[1, 1, 20, 20], [14, 22, 36, 44]])


def test_regression_moves_sides_by_parts_of_the_size() -> None:
    box = np.array([[10, 10, 29, 49]], np.float32)
    moved = regress(box, np.array([[0.1, 0.0, -0.1, 0.5]], np.float32), plus=1)
    np.testing.assert_allclose(moved, [[12, 10, 27, 69]], atol=1e-5)


@pytest.mark.parametrize(
    ("height", "width", "min_face", "count"),
    [(250, 250, 20, 8), (20, 300, 20, 1), (19, 300, 20, 0), (480, 640, 60, 7), (12, 12, 12, 1)],
)
def test_the_pyramid_ends_at_twelve_pixels(height: int, width: int, min_face: int, count: int) -> None:
    scales = pyramid_scales(height, width, min_face, 0.709)
    assert len(scales) == count
    if scales:
        assert scales[0] == 12 / min_face
        assert min(height, width) * scales[-1] >= 12 > min(height, width) * scales[-1] * 0.709


@settings(max_examples=30, deadline=None)
@given(
    image=arrays.arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30), st.just(3))),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_windows_are_plain_means(image: NDArray[np.uint8], height: int, width: int) -> None:
    rows, columns = Bins.of(image.shape[0], height), Bins.of(image.shape[1], width)
    planes = AreaSampler(image).window(rows, columns)
    expected = reference.area_resize(image, height, width).transpose(2, 0, 1)
    np.testing.assert_allclose(planes, expected, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(12, 90),
    width=st.integers(12, 90),
    scale=st.floats(1.0, 1.5),
    cells=st.integers(3, 20),
)
def test_tiles_cover_each_window_of_a_level_once(height: int, width: int, scale: float, cells: int) -> None:
    """And all windows of a tile lie in it, so its pixels are those of the whole level."""
    level_rows, level_columns = int(height * scale + 1), int(width * scale + 1)
    seen = np.zeros(((level_rows - 1) // 2 - 4, (level_columns - 1) // 2 - 4), int)
    for tile in level_tiles(height, width, scale, cells):
        x, y = tile.corner
        down = (len(tile.rows) - 1) // 2 - 4
        assert tile.across == (len(tile.columns) - 1) // 2 - 4
        assert max(down, tile.across) <= cells
        seen[y : y + down, x : x + tile.across] += 1
        whole = Bins.of(width, level_columns)[2 * x : 2 * x + len(tile.columns)]
        np.testing.assert_array_equal(tile.columns.edges, whole.edges)
    assert (seen == 1).all()


BOXES = np.array(
    [
        [1, 1, 20, 20],
        [-8.5, -3, 11.9, 30.2],
        [30, 30, 41, 52],
        [5, 5, 5, 9],
        [60, 2, 90, 30],
        [12.7, 3.3, 13.9, 4.2],
    ],
    np.float32,
)


def test_crops_are_cut_and_resized_as_the_reference_does() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    sampler = AreaSampler(image)
    windows, inside = sampler.windows(BOXES)
    planes = sampler.crops(windows, 24)
    assert inside.tolist() == [0, 1, 2, 3, 5]  # the fourth starts at its own end, counted from 1: one column
    for plane, i in zip(planes, inside, strict=True):
        expected = reference.cut(image, BOXES[i], 24).transpose(2, 0, 1)
        np.testing.assert_allclose(plane, expected, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    side=st.sampled_from([1, 5, 24]),
)
def test_crops_of_any_boxes_are_plain_means(seed: int, height: int, width: int, side: int) -> None:
    """Boxes beside, over and beyond every edge: what covers a pixel is cut as the reference does it."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    corner = rng.uniform(-30, 80, (12, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 70, (12, 2))], axis=1).astype(np.float32)
    sampler = AreaSampler(image)
    windows, inside = sampler.windows(boxes)
    for plane, window, i in zip(sampler.crops(windows, side), windows, inside, strict=True):
        left, top, right, bottom = window
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        expected = reference.cut(image, boxes[i], side).transpose(2, 0, 1)
        np.testing.assert_allclose(plane, expected, atol=1e-3)
    for i in set(range(12)) - set(inside.tolist()):
        x1, y1, x2, y2 = (int(v) for v in boxes[i])
        assert min(x2, width) < max(x1, 1) or min(y2, height) < max(y1, 1)


def test_large_images_get_tables_of_their_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    whole = AreaSampler(image)
    monkeypatch.setattr("sphereid.faces.detect.mtcnn.pyramid._TABLE_LIMIT", 100)
    parts = AreaSampler(image)
    rows, columns = Bins.of(50, 31), Bins.of(40, 17)
    np.testing.assert_allclose(
        parts.window(rows[4:20], columns[2:]), whole.window(rows[4:20], columns[2:]), atol=1e-3
    )
    windows, _ = whole.windows(BOXES)
    np.testing.assert_allclose(parts.crops(windows, 24), whole.crops(windows, 24), atol=1e-3)


def test_no_boxes_no_crops() -> None:
    sampler = AreaSampler(np.zeros((20, 20, 3), np.uint8))
    windows, inside = sampler.windows(np.empty((0, 4), np.float32))
    planes = sampler.crops(windows, 24)
    assert planes.shape == (0, 3, 24, 24)
    assert len(inside) == 0


@pytest.mark.parametrize(("net", "count"), [("pnet", 6632), ("rnet", 100178), ("onet", 389040)])
def test_weights_are_the_published_ones(net: weights.Net, count: int) -> None:
    loaded = weights.load_weights(net)
    layers = [*loaded.convs, *loaded.dense]
    total = sum(layer.kernel.size + layer.bias.size + layer.slope.size for layer in layers)
    assert total + sum(kernel.size + bias.size for kernel, bias in loaded.heads) == count
    assert len(weights.weights_digest()) == 64


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install"):
        MtcnnDetector()


def test_the_cache_is_written_once_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = graphs.load_graphs(tmp_path)
    (folder,) = tmp_path.iterdir()
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["onet.onnx", "pnet.onnx", "rnet.onnx", "sha256.json"]
    monkeypatch.setattr(graphs, "build_graph", lambda *_: pytest.fail("built although it is in the cache"))
    assert graphs.load_graphs(tmp_path) == built


@pytest.mark.parametrize("damage", ["truncate", "swap", "digests", "missing"])
def test_a_damaged_cache_is_built_again(tmp_path: Path, damage: str) -> None:
    built = graphs.load_graphs(tmp_path)
    (folder,) = tmp_path.iterdir()
    if damage == "truncate":
        (folder / "pnet.onnx").write_bytes(built["pnet"][:100])
    elif damage == "swap":
        (folder / "pnet.onnx").write_bytes(built["rnet"])
    elif damage == "digests":
        (folder / "sha256.json").write_text("[]")
    else:
        (folder / "onet.onnx").unlink()
    assert graphs.load_graphs(tmp_path) == built
    assert json.loads((folder / "sha256.json").read_text()).keys() == {"pnet", "rnet", "onet"}
    assert (folder / "pnet.onnx").read_bytes() == built["pnet"]


def test_a_read_only_root_is_no_trouble(tmp_path: Path, portrait: NDArray[np.uint8]) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where the cache folder should be")
    detector = MtcnnDetector(DetectorConfig(cache_dir=blocked / "cache"))
    assert len(detector.detect(portrait)) == 1
