"""Store, sampler, augmentation and batches."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from sphereid.faces.align import TEMPLATES
from sphereid.faces.embed import OnnxEmbedder
from sphereid_training.config import AugmentConfig, Config
from sphereid_training.data.augment import CUT, VIEWS, augment, blend, center_view, to_canvas, view_size
from sphereid_training.data.loader import Batches, to_pixels
from sphereid_training.data.sampler import EpochSampler
from sphereid_training.data.store import Centering, class_labels, held_out, open_store
from sphereid_training.data.teacher import cache_targets, load_live_teacher
from sphereid_training.errors import TrainingError

from tests.toy import write_toy_model

NONE = AugmentConfig(False, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("template", list(VIEWS))
def test_without_augmentation_the_view_is_the_center(template: str, pool: int) -> None:
    canvases = np.random.default_rng(0).integers(0, 256, (5, 128, 128, 3), dtype=np.uint8)
    made = augment(canvases, NONE, template, pool, np.random.default_rng(1))
    assert np.abs(made.astype(int) - center_view(canvases, template, pool)).max() <= 1


def test_the_view_is_where_the_data_says() -> None:
    canvas = np.arange(128 * 128 * 3, dtype=np.uint32).reshape(1, 128, 128, 3).astype(np.uint8)
    assert np.array_equal(center_view(canvas, "112x96")[0], canvas[0, 8:120, 16:112])
    assert np.array_equal(center_view(canvas, "112x112")[0], canvas[0, 8:120, 8:120])


def test_a_view_of_another_template_shows_the_landmarks_where_that_template_has_them() -> None:
    points = TEMPLATES["canvas-128x128"].array.astype(np.float64)
    y, x = np.mgrid[:128, :128]
    canvas = np.zeros((1, 128, 128, 3), np.uint8)
    for px, py in points:
        blob = 255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8)
        canvas[0] = np.maximum(canvas[0], blob.astype(np.uint8)[..., None])
    view = center_view(canvas, "150x150")[0, ..., 0].astype(np.float64)
    assert view.shape == view_size("150x150", 1) == (150, 150)
    y, x = np.mgrid[:150, :150]
    for px, py in TEMPLATES["dlib-150x150"].array:
        weight = view * (np.hypot(x - px, y - py) < 9)
        found = (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()
        assert np.hypot(found[0] - px, found[1] - py) < 3  # the two templates have not quite the same shape


def test_the_patches_are_the_crops_they_are_said_to_be() -> None:
    canvas = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), dtype=np.uint8)
    canvas = cv2.GaussianBlur(canvas[0], (0, 0), 2)[None]
    # Brows to upper lip: columns 16 to 80, rows 10 to 84.67 of the 112×96 face, which lies at (16, 8).
    upper = cv2.resize(canvas[0, 18:, 32:96], (96, 165), interpolation=cv2.INTER_LINEAR)[:112]
    assert np.abs(center_view(canvas, "112x96-upper")[0].astype(int) - upper).mean() < 1
    whole = cv2.resize(canvas[0], (112, 112), interpolation=cv2.INTER_LINEAR)
    assert np.abs(center_view(canvas, "112x96-wide")[0].astype(int) - whole[:, 8:104]).mean() < 1
    for view in ("112x96-upper", "112x96-wide"):
        height, width = view_size(view, 1)
        corners = np.array([[x, y, 1] for x in (-0.5, width - 0.5) for y in (-0.5, height - 0.5)])
        reach = corners @ to_canvas(view).T
        assert reach.min() >= -0.5 - 1e-4
        assert reach.max() <= 127.5 + 1e-4


def test_the_targets_lose_as_much_of_their_mean_as_asked() -> None:
    rng = np.random.default_rng(0)
    descriptors = rng.normal(1, 0.3, (500, 8)).astype(np.float32)
    lengths = rng.uniform(0.5, 2, (500, 1)).astype(np.float32)
    unit = [d / np.sqrt((d**2).sum()) for d in descriptors]
    mean = np.mean(unit, axis=0)
    for share in (0.0, 0.65, 1.0):
        centering = Centering.fit(descriptors * lengths, share)  # lengths make no difference
        made = centering.apply(descriptors * lengths)
        assert np.linalg.norm(made, axis=1).mean() == pytest.approx(1, abs=1e-5)
        typical = np.mean([np.linalg.norm(u - share * mean) for u in unit])
        assert made.mean(axis=0) == pytest.approx((1 - share) * mean / typical, abs=1e-5)


def test_flip_mirrors_about_the_center() -> None:
    canvases = np.random.default_rng(0).integers(0, 256, (40, 128, 128, 3), dtype=np.uint8)
    config = AugmentConfig(True, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0)
    made = augment(canvases, config, "112x96", 1, np.random.default_rng(1))
    plain = center_view(canvases, "112x96")
    mirrored = [np.array_equal(m, p[:, ::-1]) for m, p in zip(made, plain, strict=True)]
    same = [np.array_equal(m, p) for m, p in zip(made, plain, strict=True)]
    assert all(a or b for a, b in zip(mirrored, same, strict=True))
    assert 8 < sum(mirrored) < 32


def test_augmentation_depends_on_its_generator_alone_and_leaves_the_source() -> None:
    canvases = np.random.default_rng(0).integers(0, 256, (16, 128, 128, 3), dtype=np.uint8)
    before = canvases.copy()
    config = AugmentConfig(p_erase=0.5, p_blur=0.4, p_grey=0.5)
    first, again, other = (
        augment(canvases, config, "112x96", 2, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(canvases, before)


def test_a_cut_face_is_black_along_one_edge_and_itself_elsewhere() -> None:
    canvases = np.random.default_rng(0).integers(1, 256, (60, 128, 128, 3), dtype=np.uint8)
    config = AugmentConfig(False, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, p_cut=1)
    made = augment(canvases, config, "112x96", 1, np.random.default_rng(2))
    plain = center_view(canvases, "112x96")
    edges = Counter[str]()
    for cut, whole in zip(made, plain, strict=True):
        black = (cut == 0).all(axis=2)
        rows, columns = black.all(axis=1), black.all(axis=0)
        assert np.array_equal(black, rows[:, None] | columns[None, :])
        assert np.array_equal(cut[~black], whole[~black])
        assert rows.sum() <= CUT * 112
        assert columns.sum() <= CUT * 96
        assert not (rows.any() and columns.any())
        sides = {"top": rows[0], "bottom": rows[-1], "left": columns[0], "right": columns[-1]}
        edges.update(side for side, there in sides.items() if there)
    assert all(edges[side] >= 6 for side in ("top", "bottom", "left", "right"))


def test_a_blended_face_is_a_weighted_mean_with_another_one() -> None:
    rng = np.random.default_rng(0)
    canvases = rng.integers(0, 256, (40, 128, 128, 3), dtype=np.uint8)
    before = canvases.copy()
    blended, chosen = blend(canvases, 0.5, np.random.default_rng(1))
    assert np.array_equal(canvases, before)
    assert np.array_equal(blended[~chosen], canvases[~chosen])
    assert 10 < chosen.sum() < 30
    for i in np.flatnonzero(chosen):
        own, made = canvases[i].astype(float).ravel(), blended[i].astype(float).ravel()
        fits = []
        for j in range(40):
            if j != i:
                other = canvases[j].astype(float).ravel()
                weight = np.clip((made - other) @ (own - other) / ((own - other) @ (own - other)), 0, 1)
                fits.append(np.abs(weight * own + (1 - weight) * other - made).max())
        assert min(fits) < 0.6  # rounding alone


def test_blended_faces_have_no_label_and_the_live_teachers_target(
    small_config: Callable[..., Config], store_folder: Path, tmp_path: Path
) -> None:
    folder, model = tmp_path / "store", write_toy_model(tmp_path / "models")
    shutil.copytree(store_folder, folder)
    config = small_config(data={"store": str(folder)}, augment={"p_blend": 0.5}, distill={"live": str(model)})
    with pytest.raises(TrainingError, match=r"targets in .* are from another source"):
        load_live_teacher(config)
    (folder / "teacher.npy").unlink()
    cache_targets(folder, model, Console(quiet=True))
    store = open_store(folder)
    sampler = EpochSampler(np.arange(100), np.ones(100), 16, seed=2)
    batches = Batches(store, store.identity, sampler, config, teacher=load_live_teacher(config))
    batch, rows = batches.make(3, {}), sampler.batch(3)
    assert store.teacher is not None
    assert store.centering is not None
    assert batch.teacher is not None
    kept = np.array(
        [np.array_equal(t, own) for t, own in zip(batch.teacher, store.teacher[rows], strict=True)]
    )
    assert 2 < kept.sum() < 14
    assert np.array_equal(batch.labels.numpy() >= 0, kept)
    canvases, chosen = blend(store.images[rows], 0.5, np.random.default_rng((config.engine.seed, 3, 0)))
    assert np.array_equal(chosen, ~kept)
    described = store.centering.apply(OnnxEmbedder.load(model).embed(center_view(canvases, "112x96")))
    assert batch.teacher.numpy()[chosen] == pytest.approx(described[chosen], abs=1e-5)
    assert np.array_equal(batches.make(3, {}).pixels, batch.pixels)


def test_blending_without_a_teacher_says_what_to_do(small_config: Callable[..., Config]) -> None:
    with pytest.raises(TrainingError, match=r"distill\.live=FOLDER"):
        load_live_teacher(small_config(augment={"p_blend": 0.5}))
    with pytest.raises(TrainingError, match=r"distill\.live: .*nowhere"):
        load_live_teacher(small_config(augment={"p_blend": 0.5}, distill={"live": "nowhere"}))


def test_every_image_comes_as_often_as_its_weight_says() -> None:
    indices = np.arange(100, 150)
    weights = np.where(np.arange(50) < 25, 2.0, 0.4)
    sampler = EpochSampler(indices, weights, 10, seed=5)
    assert sampler.steps_per_epoch == 6
    counts: Counter[int] = Counter()
    for epoch in range(200):
        drawn = sampler.epoch(epoch)
        assert len(drawn) == 60
        counts.update(drawn.tolist())
    assert all(counts[i] == 400 for i in range(100, 125))
    assert all(50 < counts[i] < 110 for i in range(125, 150))
    assert not np.array_equal(sampler.epoch(0), sampler.epoch(1))


def test_batches_are_a_function_of_the_step(small_config: Callable[..., Config]) -> None:
    config = small_config()
    store = open_store(Path(config.data.store))
    sampler = EpochSampler(np.arange(100), np.ones(100), 16, seed=2)
    batches = Batches(store, store.identity, sampler, config)
    stream = batches.stream(0)
    streamed = [next(stream) for _ in range(8)]
    stream.close()  # type: ignore[attr-defined]
    later = batches.make(7, {})
    assert np.array_equal(streamed[7].pixels, later.pixels)
    assert np.array_equal(streamed[7].labels, later.labels)
    halves = [Batches(store, store.identity, sampler, config, rank, 2).make(3, {}) for rank in (0, 1)]
    assert np.concatenate([h.labels for h in halves]).tolist() == streamed[3].labels.tolist()


def test_a_failure_while_reading_reaches_the_loop(small_config: Callable[..., Config]) -> None:
    config = small_config()
    store = open_store(Path(config.data.store))
    sampler = EpochSampler(np.array([10**6]), np.array([16.0]), 16, seed=2)
    stream = Batches(store, store.identity, sampler, config).stream(0)
    with pytest.raises(IndexError):
        next(stream)


def test_pixels_are_scaled_as_the_paper_does() -> None:
    faces = np.array([[[[0, 127, 255]]]], np.uint8)
    assert to_pixels(faces).flatten().tolist() == pytest.approx([-127.5 / 128, -0.5 / 128, 127.5 / 128])


def test_identities_are_held_out_whole_and_steadily() -> None:
    identity = np.repeat(np.arange(-1, 400), 3)
    out = held_out(identity, 10)
    assert not out[identity == -1].any()
    assert 20 < len(np.unique(identity[out])) < 60
    fewer = identity < 200
    assert np.array_equal(held_out(identity[fewer], 10), out[fewer])
    assert all(len(set(out[identity == i])) == 1 for i in range(400))


def test_class_labels_count_usable_images() -> None:
    identity = np.array([7, 7, 7, 9, 9, -1, 30, 30, 30])
    usable = np.array([True] * 6 + [False, True, True])
    labels, classes = class_labels(identity, usable, 2)
    assert classes == 3
    assert labels.tolist() == [0, 0, 0, 1, 1, -1, -1, 2, 2]
    labels, classes = class_labels(identity, usable, 9)
    assert (classes, set(labels.tolist())) == (0, {-1})


def test_an_unfinished_store_is_explained(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="prepare"):
        open_store(tmp_path)
    np.savez(tmp_path / "meta.npz", name=np.array(["a/b/c"]), identity=np.array([1]))
    np.save(tmp_path / "images.npy", np.zeros((2, 128, 128, 3), np.uint8))
    with pytest.raises(TrainingError, match="2 images, 1 names"):
        open_store(tmp_path)


def test_descriptors_are_centred_and_of_mean_length_one(store_folder: Path) -> None:
    teacher = open_store(store_folder).teacher
    assert teacher is not None
    assert np.abs(teacher.mean(axis=0)).max() < 1e-5
    assert np.linalg.norm(teacher, axis=1).mean() == pytest.approx(1, abs=1e-5)
