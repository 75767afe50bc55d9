"""What must not be trained on: people of a test set, found by name and by face."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console
from sphereid.faces.align import TEMPLATES, align
from sphereid.faces.detect import MtcnnDetector
from sphereid_training.data.overlap import HeldOutSet, centers, nearest, plain, same_names
from sphereid_training.data.prepare import prepare
from sphereid_training.data.store import open_store
from sphereid_training.errors import TrainingError

from tests.toy import write_toy_model


def test_names_are_compared_without_case_accents_and_separators() -> None:
    assert plain("José_Ángel") == plain("jose angel") == "joseangel"
    assert plain("王小明") == "王小明"
    found = same_names(["ann_lee", "Bob-Ray", "p00007", "___"], ["Ann_Lee", "Cy", "BOB RAY", "--"])
    assert found == {"ann_lee": "Ann_Lee", "Bob-Ray": "BOB RAY"}


@given(st.text(max_size=20))
@example("ᴬ\N{SQUARE MB}\N{COMBINING GREEK YPOGEGRAMMENI}")
def test_a_plain_name_is_its_own_plain_name(name: str) -> None:
    assert plain(plain(name)) == plain(name)
    assert plain(f" {name}_") == plain(name)


@pytest.mark.parametrize("block", [3, 4096])
def test_centers_and_nearest_against_loops(block: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 5)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    group = rng.integers(3, 9, 20)
    values, means = centers(x, group)
    assert values.tolist() == sorted(set(group.tolist()))
    for value, mean in zip(values, means, strict=True):
        expected = np.mean([row for row, g in zip(x, group, strict=True) if g == value], axis=0)
        assert mean == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)
    index, best = nearest(x, means, block=block)
    for row, i, s in zip(x, index, best, strict=True):
        scores = [float(row @ mean) for mean in means]
        assert scores[i] == pytest.approx(max(scores), abs=1e-6)
        assert s == pytest.approx(max(scores), abs=1e-6)


def write(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])


def dropped(store: Path) -> dict[str, str]:
    with (store / "dropped.csv").open() as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


def test_people_of_a_pair_list_are_left_out_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("ann lee", "Cy"):
        write(tmp_path / "faces" / "g" / name / "0.png", rng.integers(0, 256, (128, 128, 3), dtype=np.uint8))
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("1\nAnn_Lee 1 2\nAnn_Lee 1 Bob_Ray 1\n")
    assert prepare(tmp_path / "faces", tmp_path / "out", test_set=HeldOutSet(pairs)) == 1
    assert list(open_store(tmp_path / "out").name) == ["g/Cy/0.png"]
    assert dropped(tmp_path / "out") == {"g/ann lee/0.png": "same name as Ann_Lee of the test set"}
    pairs.write_text("1\nAnn_Lee 1 2\nAnn_Lee 1 cy 1\n")
    with pytest.raises(TrainingError, match=r"all 2 images under .* are of excluded identities"):
        prepare(tmp_path / "faces", tmp_path / "out2", test_set=HeldOutSet(pairs))


def test_people_of_a_test_set_are_left_out_by_face(tmp_path: Path, portrait: NDArray[np.uint8]) -> None:
    (face,) = MtcnnDetector().detect(portrait)
    canvas = align(portrait, [face.landmarks], TEMPLATES["canvas-128x128"])[0]
    rng = np.random.default_rng(0)
    others = [
        np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8) for _ in range(4)
    ]
    write(tmp_path / "faces/g/p00001/0.png", canvas)
    write(tmp_path / "faces/g/p00001/1.png", cv2.GaussianBlur(canvas, (5, 5), 0))  # type: ignore[arg-type]
    write(tmp_path / "faces/g/p00002/0.png", others[0])
    write(tmp_path / "faces/g/p00003/0.png", others[1])
    write(tmp_path / "faces/g/unlabelled/0.png", others[2])
    write(tmp_path / "faces/g/unlabelled/1.png", canvas)
    write(tmp_path / "faces/g/unlabelled/2.png", others[3])
    write(tmp_path / "test/Eileen/1.png", portrait)
    model = write_toy_model(tmp_path / "models", calibrated=False)
    cache = tmp_path / "cache"
    test_set = HeldOutSet(tmp_path / "test", model, 0.9, cache)
    quiet = Console(quiet=True)
    assert prepare(tmp_path / "faces", tmp_path / "out", test_set=test_set, console=quiet) == 4
    store = open_store(tmp_path / "out")
    assert list(store.name) == [
        "g/p00002/0.png",
        "g/p00003/0.png",
        "g/unlabelled/0.png",
        "g/unlabelled/2.png",
    ]
    assert store.images[3].tolist() == others[3].tolist()
    reasons = dropped(tmp_path / "out")
    assert sorted(reasons) == ["g/p00001/0.png", "g/p00001/1.png", "g/unlabelled/1.png"]
    assert all(reason.startswith("looks like Eileen of the test set (") for reason in reasons.values())
    with pytest.raises(TrainingError, match="not calibrated: say --exclude-similarity"):
        prepare(
            tmp_path / "faces",
            tmp_path / "out",
            test_set=HeldOutSet(tmp_path / "test", model, None, cache),
            console=quiet,
        )
