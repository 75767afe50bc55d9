"""False match rates within collections: against counting by hand, and from a store to card and page."""

import json
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.manifest import Calibration, Quantile, load_manifest, save_manifest
from sphereid_training.data.augment import center_view
from sphereid_training.data.store import open_store
from sphereid_training.evaluation.groups import LEAST_FACES, Strangers, pick_faces

from tests.toy import write_toy_model


@given(
    people=st.lists(st.integers(-1, 80), min_size=1, max_size=300),
    most=st.integers(1, 400),
    seed=st.integers(0, 9),
)
def test_of_each_person_one_face_is_picked(people: list[int], most: int, seed: int) -> None:
    identity = np.array(people, np.int64)
    group = np.array(["ab"[i % 2] for i in range(len(people))])
    picked = pick_faces(identity, group, most, seed=seed)
    for name in "ab":
        inside = identity[group == name]
        persons = len(set(inside[inside >= 0])) + int(np.sum(inside < 0))
        if persons < LEAST_FACES:
            assert name not in picked
            continue
        rows = picked[name]
        labels = [who for who in identity[rows] if who >= 0]
        assert len(rows) == len(set(rows)) == min(most, persons)
        assert np.all(group[rows] == name)
        assert len(labels) == len(set(labels))


def test_rates_are_those_counted_pair_by_pair() -> None:
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = Strangers.of("all", x)
    cosines = [float(a @ b) for a, b in combinations(x, 2)]
    assert len(found.similarities) == len(cosines) == 435
    limits = (-0.5, 0.0, 0.3, 0.9)
    counted = [np.mean([cosine >= limit for cosine in cosines]) for limit in limits]
    assert [float(found.fmr(limit)) for limit in limits] == pytest.approx(counted)
    assert found.fmr(limits) == pytest.approx(counted)
    assert found.fmr(max(cosines)) <= 1 / 435 + 1e-9  # at the threshold counts as above it
    assert found.fmr(found.similarities[-1]) == pytest.approx(1 / 435)
    assert found.fmr(found.threshold(0.1)) == pytest.approx(0.1, abs=0.005)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty people each of `varied`, who differ, and of `alike`, who hardly do; ten of `few`."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("groups")
    one = rng.uniform(40, 215, (8, 8, 3))
    names, identity, images = [], [], []
    for person in range(130):
        group = ("varied", "alike", "few")[min(2, person // 60)]
        other = rng.uniform(40, 215, one.shape)
        pattern = 0.8 * one + 0.2 * other if group == "alike" else other
        unlabeled = person % 2 == 1
        for number in range(1 if unlabeled else 2):
            images.append(np.kron(pattern, np.ones((16, 16, 1))).astype(np.uint8))
            names.append(f"{group}/{'unlabelled' if unlabeled else f'p{person:05d}'}/{person}{number}.webp")
            identity.append(-1 if unlabeled else person)
    np.save(folder / "images.npy", np.stack(images))
    np.savez(folder / "meta.npz", name=np.array(names), identity=np.array(identity))
    return folder


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    from sphereid_training.cli import main

    monkeypatch.setattr(sys, "argv", ["training", "evaluate", "groups", *map(str, arguments)])
    main()


def test_the_command_tells_collections_apart_and_records_it(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = write_toy_model(tmp_path), tmp_path / "groups.json"
    opened = open_store(store)
    rows = pick_faces(opened.identity, opened.group, 50)["varied"]
    x = OnnxEmbedder.load(model).embed(center_view(np.asarray(opened.images[rows]), "112x96"))
    limit = Strangers.of("varied", x).threshold(0.01)
    levels = (Quantile(fmr=0.1, similarity=limit - 0.1), Quantile(fmr=0.01, similarity=limit))
    calibration = Calibration(quantiles=levels, pairs=5000, protocol="by hand")
    save_manifest(load_manifest(model).model_copy(update={"calibration": calibration}), model)

    command(monkeypatch, "--store", store, "--model", model, "--faces", 50, "--json", out, "--record")

    made = json.loads(out.read_text())
    assert made["thresholds"] == {"0.01": pytest.approx(limit)}
    assert set(made["groups"]) == {"varied", "alike"}
    varied, alike = made["groups"]["varied"], made["groups"]["alike"]
    assert (varied["faces"], varied["pairs"]) == (50, 50 * 49 // 2)
    assert varied["fmr"]["0.01"] == pytest.approx(0.01, abs=0.003)
    assert alike["fmr"]["0.01"] > 0.5
    assert alike["threshold_at_fmr"]["0.01"] > limit
    recorded = {metric.name: metric for metric in load_manifest(model).metrics}
    metric = recorded["strangers of alike, FMR where it is calibrated to 0.01"]
    assert metric.value == alike["fmr"]["0.01"]
    assert "--record" not in metric.command
    page = out.with_suffix(".html").read_text()
    assert page.count("<svg") == 1
    assert "alike" in page


def test_without_calibration_or_people_it_says_so(
    store: Path,
    store_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bare = write_toy_model(tmp_path, "bare", calibrated=False)
    for given_store, model, said in (
        (store, bare, "has no calibration"),
        (store_folder, write_toy_model(tmp_path), "no collection with 50 people"),
    ):
        with pytest.raises(SystemExit):
            command(monkeypatch, "--store", given_store, "--model", model)
        assert said in " ".join(capsys.readouterr().err.split())
