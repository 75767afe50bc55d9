"""Protocols against brute force: folds, TAR@FAR, open set, calibration, pair lists, whole pipeline."""

import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console
from sphereid.faces.align import TEMPLATES
from sphereid.faces.types import Face
from sphereid_training.errors import TrainingError
from sphereid_training.evaluation import lfw
from sphereid_training.evaluation.openset import open_set_searches, search, summarize
from sphereid_training.evaluation.plots import roc_points
from sphereid_training.evaluation.verification import (
    accuracy_at,
    best_threshold,
    concatenated,
    k_fold,
    tar_at_far,
)
from sphereid_training.export.calibration import calibrate, impostor_similarities

scores = st.lists(st.integers(-6, 6).map(lambda n: n / 6), min_size=4, max_size=40)


def both_kinds(values: list[float], seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    same = np.random.default_rng(seed).permutation(len(values)) % 2 == 0
    return np.array(values), same


@given(values=scores, seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_best_threshold_is_the_mean_of_all_maximizers(values: list[float], seed: int) -> None:
    similarity, same = both_kinds(values, seed)
    grid = np.arange(-100, 101) / 100
    accuracy = [
        np.mean([(s > t) if y else (s < t) for s, y in zip(similarity, same, strict=True)]) for t in grid
    ]
    winners = [t for t, a in zip(grid, accuracy, strict=True) if a >= max(accuracy) - 1e-12]
    assert best_threshold(similarity, same, grid) == pytest.approx(np.mean(winners))
    t = float(grid[70])
    assert accuracy_at(similarity, same, t) == pytest.approx(accuracy[70])


@given(values=scores, seed=st.integers(0, 99), allowed=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_tar_at_far_against_every_threshold(values: list[float], seed: int, allowed: int) -> None:
    similarity, same = both_kinds(values, seed)
    impostors = similarity[~same]
    far = min(allowed / len(impostors), 1.0)
    best = 0.0
    for threshold in [*similarity, similarity.max() + 1]:
        if np.mean(impostors >= threshold) <= far + 1e-12:
            best = max(best, float(np.mean(similarity[same] >= threshold)))
    tar, threshold = tar_at_far(similarity, same, far)
    assert tar == pytest.approx(best)
    assert np.mean(similarity[same] >= threshold) == pytest.approx(best)
    assert np.mean(impostors >= threshold) <= far + 1e-12


def test_tar_refuses_a_far_that_it_cannot_see() -> None:
    with pytest.raises(ValueError, match="at least 1000 impostor pairs, there are 500"):
        tar_at_far(np.linspace(0, 1, 1000), np.arange(1000) < 500, 0.001)


def test_folds_perfect_random_and_independent() -> None:
    rng = np.random.default_rng(0)
    same = np.arange(600) % 2 == 0
    fold = np.arange(600) // 60
    assert k_fold(np.where(same, 0.8, 0.1), same, fold).accuracy == 1
    assert k_fold(rng.random(600), same, fold).accuracy == pytest.approx(0.5, abs=0.06)
    similarity = np.clip(rng.normal(np.where(same, 0.5, 0.2), 0.15), -1, 1)
    before = k_fold(similarity, same, fold)
    changed = same.copy()
    changed[fold == 3] ^= True
    after = k_fold(similarity, changed, fold)
    assert after.thresholds[3] == before.thresholds[3]
    assert after.accuracies[3] == pytest.approx(1 - before.accuracies[3])
    assert after.thresholds != before.thresholds
    assert before.standard_error == pytest.approx(np.std(before.accuracies, ddof=1) / 10**0.5)


def test_open_set_against_loops_with_ties() -> None:
    rng = np.random.default_rng(4)
    gallery = rng.integers(-2, 3, (6, 3)) / 2
    probes = rng.integers(-2, 3, (40, 3)) / 2
    owner, who = np.array([0, 1, 2, 3, 3, 4]), rng.integers(0, 8, 40)
    result = search(gallery, owner, probes, who)
    for threshold in (-1.0, 0.0, 0.25, 0.5, 1.0):
        false_names = right_names = mated = 0
        for probe, person in zip(probes, who, strict=True):
            row = [float(probe @ g) for g in gallery]
            if person in owner:
                mated += 1
                own = max(s for s, o in zip(row, owner, strict=True) if o == person)
                other = max(s for s, o in zip(row, owner, strict=True) if o != person)
                right_names += own > other and own >= threshold
            else:
                false_names += max(row) >= threshold
        assert result.fpir(threshold) == pytest.approx(false_names / (40 - mated))
        assert result.tpir(threshold) == pytest.approx(right_names / mated)
    fnir, threshold = result.fnir_at(0.25)
    assert result.fpir(threshold) <= 0.25
    candidates = [t for t in [*result.mated, *result.non_mated, np.inf] if result.fpir(t) <= 0.25]
    assert fnir == pytest.approx(min(1 - result.tpir(t) for t in candidates))
    with pytest.raises(ValueError, match="non-mated probes"):
        result.fnir_at(1e-4)


def test_open_set_trials_on_perfect_and_on_random_embeddings() -> None:
    identity = np.repeat(np.arange(40), 5)
    perfect = np.eye(40, dtype=np.float32)[identity]
    result, refused = summarize(open_set_searches(perfect, identity, enrolled=10, trials=3), (0.1, 0.001))
    assert result["rank1"]["mean"] == 1
    assert result["fnir_at_fpir"]["0.1"]["mean"] == 0
    assert list(result["fnir_at_fpir"]) == ["0.1"]
    assert refused == ("FPIR 0.001 needs at least 1000 non-mated probes, there are 150",)
    noise = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    elsewhere = open_set_searches(perfect, identity, enrolled=10, trials=3, gallery=-perfect)
    assert all(not np.isfinite(each.mated).any() for each in elsewhere), "what is enrolled is the gallery's"
    searches = open_set_searches(noise, identity, enrolled=10, trials=3)
    assert summarize(searches, (0.1,))[0]["rank1"]["mean"] < 0.3
    with pytest.raises(ValueError, match="can't be enrolled"):
        open_set_searches(perfect, identity, enrolled=60, trials=1)


def test_calibration_weighs_every_two_people_the_same() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 8)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    identity = rng.integers(0, 30, 150)
    count = np.bincount(identity)
    found, weights = impostor_similarities(x, identity, block=64)
    expected = [
        (float(x[i] @ x[j]), 1 / (count[identity[i]] * count[identity[j]]))
        for i in range(150)
        for j in range(i + 1, 150)
        if identity[i] != identity[j]
    ]
    order = np.argsort(found)
    assert np.stack([found, weights], 1)[order] == pytest.approx(np.array(sorted(expected)), abs=1e-6)
    people = len(np.unique(identity))
    assert weights.sum() == pytest.approx(people * (people - 1) / 2, rel=1e-4)

    calibration = calibrate(found, weights, "a test")
    assert calibration.pairs == len(expected)
    assert calibration.quantiles[0].fmr == pytest.approx(0.5, abs=1e-3)
    for quantile in calibration.quantiles:
        share = sum(w for s, w in expected if s >= quantile.similarity - 1e-7) / sum(w for _, w in expected)
        assert share == pytest.approx(quantile.fmr, abs=1e-5)
    with pytest.raises(ValueError, match="too few"):
        calibrate(found[:10], weights[:10], "a test")


def test_calibration_is_not_decided_by_the_people_with_most_photographs() -> None:
    """Two look-alikes with 100 images each among 60 strangers with one: one pair of people of 1,891."""
    rng = np.random.default_rng(1)
    strangers = np.linalg.qr(rng.normal(size=(64, 64)))[0][:60]
    alike = np.repeat(np.eye(64)[:1], 200, axis=0)
    x = np.concatenate([strangers, alike]).astype(np.float32)
    identity = np.concatenate([np.arange(60), np.repeat([60, 61], 100)])
    found, weights = impostor_similarities(x, identity)
    assert np.mean(found > 0.99) > 0.4
    at_one_percent = [q for q in calibrate(found, weights, "a test").quantiles if q.fmr >= 0.0095][-1]
    assert at_one_percent.similarity < 0.6


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_pair_lists_of_both_views(tmp_path: Path) -> None:
    view1 = write(tmp_path / "1.txt", "2\nAnn\t1\t2\nBob\t3\t4\nAnn\t1\tBob\t3\nCy\t1\tBob\t4\n")
    pairs = lfw.read_pairs(view1)
    assert pairs.names[0] == "Ann/Ann_0001"
    assert [pairs.names[i] for i in pairs.left] == [
        "Ann/Ann_0001",
        "Bob/Bob_0003",
        "Ann/Ann_0001",
        "Cy/Cy_0001",
    ]
    assert pairs.same.tolist() == [True, True, False, False]
    assert pairs.fold.tolist() == [0, 5, 0, 5]
    view2 = write(tmp_path / "2.txt", "2\t1\nAnn 1 2\nAnn 1 Bob 3\nBob 3 4\nCy 1 Bob 4\n")
    assert lfw.read_pairs(view2).fold.tolist() == [0, 0, 1, 1]
    for text, message in (("", "first line"), ("1\nAnn 1\n", "line 2"), ("1\nAnn one two\n", "image number")):
        with pytest.raises(TrainingError, match=message):
            lfw.read_pairs(write(tmp_path / "bad.txt", text))
    with pytest.raises(TrainingError, match="cannot be read"):
        lfw.read_pairs(tmp_path / "none.txt")


def made_pairs(count: int, seed: int) -> tuple[lfw.Pairs, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    people = rng.normal(size=(20, 8))
    owner = np.arange(80) % 20
    features = (people[owner] + 0.3 * rng.normal(size=(80, 8)) + 2).astype(np.float32)
    left, right = rng.integers(0, 80, (2, count))
    right = np.where(np.arange(count) % 2 == 0, (left + 20) % 80, right)
    same = owner[left] == owner[right]
    return lfw.Pairs([str(i) for i in range(80)], left, right, same, np.arange(count) * 10 // count), features


def test_the_reference_protocol_against_the_written_steps() -> None:
    pairs, features = made_pairs(200, 0)
    found = np.ones(80, bool)
    result = lfw.reference_protocol(pairs, features, found)
    for number in (0, 7):
        rest = np.flatnonzero(pairs.fold != number)
        mean = np.mean([features[r] for p in rest for r in (pairs.left[p], pairs.right[p])], axis=0)
        unit = [(f - mean) / np.linalg.norm(f - mean) for f in features]
        cosine = np.array([unit[a] @ unit[b] for a, b in zip(pairs.left, pairs.right, strict=True)])
        grid = np.arange(-10000, 10001) / 10000
        accuracy = [accuracy_at(cosine[rest], pairs.same[rest], t) for t in grid]
        threshold = np.mean(grid[np.isclose(accuracy, max(accuracy))])
        assert result.thresholds[number] == pytest.approx(threshold, abs=2e-4)
        test = pairs.fold == number
        assert result.accuracies[number] == accuracy_at(
            cosine[test], pairs.same[test], result.thresholds[number]
        )


def test_a_missing_face_is_never_a_match() -> None:
    pairs, features = made_pairs(100, 1)
    found = np.ones(80, bool)
    found[int(pairs.left[0])] = False
    similarity = lfw.similarities(pairs, features, found)
    assert similarity[0] == -1
    assert (similarity[found[pairs.left] & found[pairs.right]] > -1).all()


def test_insightface_style_takes_the_first_best_threshold() -> None:
    pairs, features = made_pairs(100, 2)
    found = np.ones(80, bool)
    result = lfw.insightface_protocol(pairs, features, found)
    distance = 2 - 2 * lfw.similarities(pairs, features, found)
    rest = pairs.fold != 4
    grid = np.arange(0, 4, 0.01)
    accuracy = [np.mean((distance[rest] < t) == pairs.same[rest]) for t in grid]
    best = grid[int(np.argmax(accuracy))]
    assert result.thresholds[4] == pytest.approx(1 - best / 2)
    assert result.accuracies[4] == np.mean((distance[~rest] < best) == pairs.same[~rest])


def test_the_threshold_of_the_training_pairs_is_carried_over() -> None:
    train, train_features = made_pairs(200, 3)
    test, features = made_pairs(100, 4)
    found = np.ones(80, bool)
    accuracy, threshold = lfw.transferred(train, train_features, found, test, features, found)
    assert threshold == best_threshold(lfw.similarities(train, train_features, found), train.same)
    assert accuracy == accuracy_at(lfw.similarities(test, features, found), test.same, threshold)


class OneFace:
    """Finds the whole image, except in black ones."""

    def detect(
        self, image: NDArray[np.uint8], *, min_face: int | None = None, min_score: float | None = None
    ) -> list[Face]:
        if not image.any():
            return []
        points = TEMPLATES["sphereface-112x96"].array
        far = Face(np.array([0, 0, 5, 5], np.float32), 0.9, points + 40)
        return [far, Face(np.array([0, 0, 96, 112], np.float32), 0.9, points)]


def jpeg(value: int) -> bytes:
    import cv2

    ok, data = cv2.imencode(".png", np.full((112, 96, 3), value, np.uint8))
    assert ok
    return data.tobytes()


def test_images_come_from_folders_and_tars_alike_and_are_cached(tmp_path: Path) -> None:
    names = {"Ann/Ann_0001": 90, "Ann/Ann_0002": 0, "Bob/Bob_0001": 200}
    folder = tmp_path / "deep" / "lfw"
    archive = tmp_path / "lfw.tar"
    with tarfile.open(archive, "w") as tar:
        for name, value in names.items():
            data = jpeg(value)
            path = folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            info = tarfile.TarInfo(f"root/{name}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    template = TEMPLATES["sphereface-112x96"]
    made = [lfw.crop_images(source, names, template, OneFace()) for source in (tmp_path / "deep", archive)]
    for crops in made:
        assert crops.found.tolist() == [True, False, True]
        assert crops.crops[0, 60, 50].tolist() == [90, 90, 90]
        assert crops.crops[2, 60, 50].tolist() == [200, 200, 200]
    first = lfw.crop_images(archive, names, template, OneFace(), cache=tmp_path / "cache")
    again = lfw.crop_images(archive, names, template, None, cache=tmp_path / "cache")  # type: ignore[arg-type]
    assert np.array_equal(first.crops, again.crops)
    aligned = lfw.crop_images(archive, names, template, OneFace(), aligned=True)
    assert aligned.found.all()
    with pytest.raises(TrainingError, match="1 of 1 images in the pair list are not in"):
        lfw.crop_images(archive, ["Cy/Cy_0001"], template, OneFace())
    with pytest.raises(TrainingError, match="neither a folder nor a readable tar"):
        lfw.crop_images(write(tmp_path / "x.tar", "no tar"), names, template, OneFace())


def test_every_run_writes_plain_json_and_a_page_that_needs_nothing_else(tmp_path: Path) -> None:
    from sphereid_training.cli.evaluate.lfw import measure
    from sphereid_training.evaluation.report import publish

    pairs, features = made_pairs(400, 5)
    both, found = np.hstack([features, features]), np.ones(80, bool)
    lists = {"test": pairs, "train": pairs}
    result, report = measure(lists, pairs.names, found, both, features, "<toy>", Path("pairs.txt"))
    page = publish(report, out=tmp_path / "r" / "lfw.json", folder=None, console=Console(quiet=True))
    stored = json.loads((tmp_path / "r" / "lfw.json").read_text())
    assert stored == result
    assert {"accuracy", "std", "folds", "not_found", "tar_at_far", "transferred"} <= stored.keys()
    assert len(stored["folds"]) == 10
    assert stored["not_found"] == 0
    assert set(stored["tar_at_far"]) == {"0.1", "0.01"}
    low, high = stored["tar_intervals"]["0.1"]
    assert low <= stored["tar_at_far"]["0.1"] <= high
    text = page.read_text()
    assert page == tmp_path / "r" / "lfw.html"
    assert "FAR 0.001 needs at least 1000 impostor pairs, there are" in text
    assert text.count("<svg") == 2
    assert "&lt;toy&gt;" in text
    assert "<toy>" not in text
    outside = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not set(re.findall(r"https?://[^\s\"'<>]+", text)) - outside
    assert "<script" not in text


@given(values=scores, seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_curve_of_a_report_against_every_threshold(values: list[float], seed: int) -> None:
    similarity, same = both_kinds(values, seed)
    genuine, impostor = similarity[same], similarity[~same]
    far, tar = roc_points(genuine, impostor)
    rates = sorted({np.mean(impostor >= t) for t in impostor})
    thresholds = [*similarity, -2.0]
    expected = [
        (rate, max(np.mean(genuine >= t) for t in thresholds if np.mean(impostor >= t) <= rate))
        for rate in rates
    ]
    assert np.column_stack([far, tar]) == pytest.approx(np.array(expected))


def test_concatenated_models_average_their_cosines() -> None:
    rng = np.random.default_rng(2)
    parts = [rng.normal(size=(12, d)) for d in (8, 16, 4)]
    parts = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    pairs = lfw.Pairs(
        [str(i) for i in range(12)], np.arange(6), np.arange(6, 12), np.ones(6, bool), np.arange(6)
    )
    found = np.ones(12, bool)
    together = lfw.similarities(pairs, concatenated(parts), found)
    assert together == pytest.approx(
        np.mean([lfw.similarities(pairs, part, found) for part in parts], axis=0)
    )
    with pytest.raises(ValueError, match="different numbers of features"):
        concatenated([parts[0], parts[1][:3]])


def test_without_a_name_the_services_default_model_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sphereid_training.evaluation.inputs import find_model

    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError, match="no model in models/"):
        find_model(None)
    for name in ("b", "a"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "manifest.json").touch()
    assert find_model(None) == Path("models/a")
    assert find_model(Path("elsewhere")) == Path("elsewhere")
