"""The protocols over many comparisons, against brute force."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat
from sphereid_training.errors import TrainingError
from sphereid_training.evaluation import photographs
from sphereid_training.evaluation.blufr import blufr, published_splits, random_splits
from sphereid_training.evaluation.megaface import PublishedList, megaface
from sphereid_training.evaluation.streaming import Highest, trillion
from sphereid_training.evaluation.verification import clopper_pearson
from sphereid_training.evaluation.ytf import read_splits, spread_frames, video_features


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@given(
    values=st.lists(st.integers(-4, 4), min_size=1, max_size=40),
    keep=st.integers(1, 12),
    parts=st.integers(1, 6),
)
@settings(max_examples=80, deadline=None)
def test_the_highest_scores_give_the_threshold_of_all(values: list[int], keep: int, parts: int) -> None:
    scores = np.array(values, np.float32) / 4
    highest = Highest(keep)
    for part in np.array_split(scores, parts):
        highest.add(part)
    assert highest.count == len(scores)
    for allowed in range(1, keep + 1):
        threshold = highest.threshold(allowed)
        assert np.sum(scores >= threshold) <= allowed
        lower = [s for s in scores if s < threshold]
        if lower:  # the next score down would let too many in
            assert np.sum(scores >= max(lower)) > allowed


@pytest.mark.parametrize("total", [0, 90])
@pytest.mark.parametrize("block", [4, 1000])
def test_trillion_against_loops(total: int, block: int) -> None:
    rng = np.random.default_rng(0)
    identity = rng.integers(0, 9, 40)
    # A coarse grid of directions, so that scores tie.
    faces = unit(np.round(rng.normal(size=(9, 3))[identity] + 0.3 * rng.normal(size=(40, 3)), 1) + 1e-3)
    others = unit(np.round(rng.normal(size=(total, 3)), 1) + 1e-3) if total else np.empty((0, 3), np.float32)
    fars = (0.1, 0.01, 1e-6)
    made = trillion(faces, identity, np.array_split(others, 3), total=total, fars=fars, block=block)
    genuine, impostor = [], []
    for i in range(40):
        for j in range(i + 1, 40):
            (genuine if identity[i] == identity[j] else impostor).append(float(faces[i] @ faces[j]))
        impostor += [float(faces[i] @ other) for other in others]
    scores, strangers = np.array(genuine), np.array(impostor)
    assert (made.genuine, made.impostors) == (len(scores), len(strangers))
    assert [row.far for row in made.rows] == [0.1, 0.01]
    for row in made.rows:
        # Products of other shapes round differently in the last bit.
        assert np.mean(strangers >= row.threshold + 1e-6) <= row.far
        best = max(
            np.mean(scores >= t - 1e-6)
            for t in {*scores, *strangers, 1.1}
            if np.mean(strangers >= t - 1e-6) <= row.far
        )
        assert row.tpr == pytest.approx(best)
        assert row.interval[0] <= row.tpr <= row.interval[1]
    assert made.refused == (f"FAR 1e-06 needs at least 1000000 impostor pairs, there are {len(strangers)}",)
    with pytest.raises(ValueError, match="announced"):
        trillion(faces, identity, [others[:1]], total=total + 5, fars=(0.1,))
    with pytest.raises(ValueError, match="no identity has two faces"):
        trillion(faces, np.arange(40), (), total=0)


@pytest.mark.parametrize("distractors", [20_000, 80_000])
def test_memory_does_not_grow_with_the_distractors(distractors: int) -> None:
    rng = np.random.default_rng(2)
    probes, identity = unit(rng.normal(size=(200, 16))), np.repeat(np.arange(100), 2)
    clopper_pearson(1, 2)  # what it imports is not to be counted

    def blocks() -> Iterator[np.ndarray]:
        for _ in range(distractors // 2000):
            yield unit(rng.normal(size=(2000, 16)))

    for run in (
        lambda: megaface(probes, identity, blocks(), total=distractors, far=1e-5),
        lambda: trillion(probes, identity, blocks(), total=distractors, fars=(1e-5,)),
    ):
        tracemalloc.start()
        run()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # Scores of one block are 1.6 MB; all of them would be 16 and 64.
        assert peak < 8e6


def test_embeddings_in_a_file_pass_by_a_chunk_at_a_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(5 * photographs.CHUNK + 7, 32)).astype(np.float32)
    rows[3] = 0
    path = tmp_path / "others.npy"
    np.save(path, rows)
    others = photographs.EmbeddingFile.open(path, 32)
    assert (len(others), others.count_found()) == (len(rows), len(rows) - 1)
    assert np.concatenate(list(others.found_blocks())) == pytest.approx(unit(np.delete(rows, 3, axis=0)))
    tracemalloc.start()
    for _ in others.found_blocks():
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < rows.nbytes
    for wrong in (rows.astype(np.float64), rows[:, :16], np.asfortranarray(rows)):
        np.save(path, wrong)
        with pytest.raises(TrainingError, match=r"embeddings are float32 \(N, 32\)"):
            photographs.EmbeddingFile.open(path, 32)
    rows[0, 0] = np.nan
    np.save(path, rows)
    with pytest.raises(TrainingError, match="not all numbers"):
        others.count_found()
    path.write_bytes(path.read_bytes()[:-64])
    with pytest.raises(TrainingError, match=r"no readable \.npy file"):
        photographs.EmbeddingFile.open(path, 32)


def test_blufr_against_loops() -> None:
    rng = np.random.default_rng(1)
    identity = np.repeat(np.arange(40), 4)
    x = unit(rng.normal(size=(40, 6))[identity] + 0.8 * rng.normal(size=(160, 6)))
    splits = random_splits(identity, gallery=10, trials=3, seed=5)
    trials = blufr(x, identity, splits, vr_fars=(0.01, 1e-9), dir_fars=(0.1, 1e-4))
    assert len({tuple(t.vr.values()) for t in trials}) == 3
    # The same draws, then every comparison by itself.
    rng = np.random.default_rng(5)
    for trial in trials:
        rows = np.flatnonzero(np.isin(identity, rng.choice(np.arange(40), 30, replace=False)))
        who = identity[rows]
        assert (trial.identities, trial.images) == (30, 120)
        genuine = [
            x[a] @ x[b] for i, a in enumerate(rows) for b in rows[i + 1 :] if identity[a] == identity[b]
        ]
        impostor = np.array(
            [x[a] @ x[b] for i, a in enumerate(rows) for b in rows[i + 1 :] if identity[a] != identity[b]]
        )
        best = max(np.mean(np.array(genuine) >= t) for t in genuine if np.mean(impostor >= t) <= 0.01)
        assert trial.vr == {0.01: pytest.approx(best)}
        people = rng.choice(np.unique(who), 10, False)
        gallery = [rows[rng.choice(np.flatnonzero(who == person))] for person in people]
        strangers, mates = [], []
        for row in rows:
            if row in gallery:
                continue
            scores = {identity[g]: x[row] @ x[g] for g in gallery}
            winner = max(scores, key=lambda person: scores[person])
            if identity[row] in scores:
                mates.append(scores[winner] if winner == identity[row] else -2)
            else:
                strangers.append(scores[winner])
        rates = [
            np.mean(np.array(mates) >= t)
            for t in [*mates, *strangers]
            if t > -2 and np.mean(strangers >= t) <= 0.1
        ]
        assert trial.dir == {0.1: pytest.approx(max(rates), abs=0.02)}
    with pytest.raises(ValueError, match="the test part has 30 of 30"):
        list(random_splits(identity, gallery=30))


def cells(rows: list[list[int]]) -> np.ndarray:
    """As MATLAB stores a cell array of index columns, counted from 1."""
    made = np.empty((len(rows), 1), object)
    for number, row in enumerate(rows):
        made[number, 0] = np.array(row, np.uint16)[:, None] + 1
    return made


def test_the_published_lists_of_blufr(tmp_path: Path) -> None:
    listed = np.array([[f"{person}_{n:04d}.jpg"] for person in "ABCD" for n in (1, 2, 3)], object)
    path = tmp_path / "blufr_lfw_config.mat"
    indices = {
        "testIndex": cells([[0, 1, 2, 3, 4, 5, 9], [3, 4, 5, 6, 7, 8]]),
        "galIndex": cells([[0, 3], [3, 6]]),
        "probIndex": cells([[1, 2, 4, 5, 9], [4, 5, 7, 8]]),
    }
    savemat(path, {"imageList": listed, **indices})
    names = [f"lfw/{title[0]}/{title[:-4]}.jpg" for (title,) in listed[::-1]]
    first, second = published_splits(path, names)
    assert [names[row][-10:-4] for row in first.gallery] == ["A_0001", "B_0001"]
    assert [names[row][-10:-4] for row in first.probes] == ["A_0002", "A_0003", "B_0002", "B_0003", "D_0001"]
    assert len(first.test) == 7
    assert [names[row][-10:-4] for row in second.gallery] == ["B_0001", "C_0001"]
    # B's enrolled photograph has no face: no probe of hers can be told from a stranger's.
    fewer = [name for name in names if "B_0001" not in name]
    first, _ = published_splits(path, fewer)
    assert [fewer[row][-10:-4] for row in first.probes] == ["A_0002", "A_0003", "D_0001"]
    assert len(first.test) == 6
    x = unit(np.eye(4)[np.array(["ABCD".index(n[4]) for n in names])] + 0.01)
    (one, _) = blufr(x, np.array([ord(n[4]) for n in names]), published_splits(path, names), vr_fars=(0.1,))
    assert one.vr == {0.1: 1.0}
    assert (len(one.search.mated), len(one.search.non_mated)) == (4, 1)
    with pytest.raises(TrainingError, match="none of the 12 photographs"):
        published_splits(path, ["else.jpg"])
    savemat(path, {"imageList": listed[:3], **indices})
    with pytest.raises(TrainingError, match="indices do not fit"):
        published_splits(path, names)
    path.write_bytes(b"no matrix")
    with pytest.raises(TrainingError, match="not BLUFR's list of trials"):
        published_splits(path, names)


def test_lists_of_videos_and_the_mean_of_their_frames(tmp_path: Path) -> None:
    path = tmp_path / "splits.txt"
    path.write_text(
        "split number, first name, second name, is same\n1, Ann/0, Ann/3, 1\n2, Ann/0, Bob/1, 0\n\n"
    )
    pairs = read_splits(path)
    assert pairs.names == ["Ann/0", "Ann/3", "Bob/1"]
    assert list(zip(pairs.left, pairs.right, pairs.same, pairs.fold, strict=True)) == [
        (0, 1, True, 1),
        (0, 2, False, 2),
    ]
    for text, message in (("1, Ann, Bob, 1", "line 1: not"), ("1, A/0, B/1, 7", "line 1"), ("", "no pairs")):
        path.write_text(text)
        with pytest.raises(TrainingError, match=message):
            read_splits(path)
    names = [f"db/Ann/0/{n:03d}.jpg" for n in range(9)] + ["db/Bob/1/0.jpg", "db/Cy/5/0.jpg"]
    chosen = spread_frames(names, {"Ann/0", "Bob/1"}, 3)
    assert chosen == ["db/Ann/0/000.jpg", "db/Ann/0/004.jpg", "db/Ann/0/008.jpg", "db/Bob/1/0.jpg"]
    # Named as in the published folders, without leading zeros.
    frames = [f"db/Ann/3/aligned_detect_3.{n}.jpg" for n in (100, 101, 102, 98, 99)]
    assert spread_frames(frames, {"Ann/3"}, 3) == [frames[0], frames[2], frames[3]]
    rng = np.random.default_rng(0)
    rows, found = unit(rng.normal(size=(4, 5))), np.array([True, False, True, False])
    np.savez(tmp_path / "0.npz", features=rows[:3], found=found[:3])
    np.savez(tmp_path / "1.npz", features=rows[3:], found=found[3:])
    features = photographs.Features(tuple(chosen), (tmp_path / "0.npz", tmp_path / "1.npz"))
    means, there = video_features(features, ["Ann/0", "Bob/1"])
    assert means[0] == pytest.approx(unit((rows[0] + rows[2])[None])[0], abs=1e-6)
    assert list(there) == [True, False]


def test_the_published_list_of_video_pairs(tmp_path: Path) -> None:
    path = tmp_path / "meta_and_splits.mat"
    videos = np.array([["Ann/0"], ["Ann/3"], ["Bob\\1"], ["Cy/5"]], object)
    splits = np.zeros((2, 3, 10))
    splits[0] = np.array([1, 2, 1])[:, None]
    splits[1] = np.array([2, 3, 0])[:, None]
    labels = np.array([[1.0, 1, 2, 3]])
    savemat(path, {"video_names": videos, "Splits": splits, "video_labels": labels, "mat_names": videos})
    pairs = read_splits(path)
    assert pairs.names == ["Ann/0", "Ann/3", "Bob/1"]
    assert list(zip(pairs.left, pairs.right, pairs.same, pairs.fold, strict=True)) == [
        row for fold in range(1, 11) for row in ((0, 1, True, fold), (1, 2, False, fold))
    ]
    lines = [f"{fold}, {pair}" for fold in range(1, 11) for pair in ("Ann/0, Ann/3, 1", "Ann/3, Bob/1, 0")]
    (tmp_path / "splits.txt").write_text("\n".join(lines))
    text = read_splits(tmp_path / "splits.txt")
    assert (pairs.names, *map(list, (pairs.left, pairs.right, pairs.same, pairs.fold))) == (
        text.names,
        *map(list, (text.left, text.right, text.same, text.fold)),
    )
    for place, value in (((1, 1, 9), 5), ((1, 1, 9), 0), ((1, 2, 9), 2)):
        wrong = splits.copy()
        wrong[place] = value
        savemat(path, {"video_names": videos, "Splits": wrong})
        with pytest.raises(TrainingError, match="Splits does not fit its names"):
            read_splits(path)
    path.write_bytes(b"no matrix")
    with pytest.raises(TrainingError, match="not YouTube Faces' list of video pairs"):
        read_splits(path)


def test_the_published_lists_of_megaface(tmp_path: Path) -> None:
    path = tmp_path / "facescrub_features_list.json"
    listed = ["Ann_Lee/Ann_Lee_7.png", "Bob/Bob_2.jpg", "Bob/Bob_3.jpg"]
    path.write_text(json.dumps({"path": listed, "id": ["Ann_Lee", "Bob", "Bob"]}))
    names = ["aligned/Ann_Lee/Ann_Lee_7.jpg", "Ann_Lee_7.png", "Bob/Bob_2.jpg", "x/Bob/Bob_22.jpg"]
    assert PublishedList.read(path).choose(names) == [names[0], names[2]]
    with pytest.raises(TrainingError, match="none of the 3 photographs"):
        PublishedList.read(path).choose(names[3:])
    distractors = tmp_path / "megaface_features_list.json_10_1"
    distractors.write_text(json.dumps({"path": ["534/53415754@N00/37731000_1.jpg"]}))
    there = ["FlickrFinal2/534/53415754@N00/37731000_1.jpg", "FlickrFinal2/534/53415754@N00/37731000_0.jpg"]
    assert PublishedList.read(distractors).choose(there) == there[:1]
    for wrong in ("no JSON", "[]", '{"id": []}', '{"path": 3}'):
        path.write_text(wrong)
        with pytest.raises(TrainingError, match="not a list of MegaFace's kit"):
            PublishedList.read(path)
