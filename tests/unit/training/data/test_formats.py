"""RecordIO and .bin sets as their writers make them, whole and damaged; more protocols against loops."""

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sphereid_training.data.bin_set import read_bin
from sphereid_training.data.prepare import prepare
from sphereid_training.data.recordio import RecordFile
from sphereid_training.data.store import open_store
from sphereid_training.errors import TrainingError
from sphereid_training.evaluation.megaface import megaface
from sphereid_training.evaluation.sphere import alignment, angular_fisher_score, uniformity
from sphereid_training.evaluation.verification import clopper_pearson, concatenated, template_features

MAGIC = struct.pack("<I", 0xCED7230A)


def record(payload: bytes, kind: int = 0) -> bytes:
    return MAGIC + struct.pack("<I", kind << 29 | len(payload)) + payload + b"\0" * (-len(payload) % 4)


def header(label: float | list[float]) -> bytes:
    if isinstance(label, float):
        return struct.pack("<IfQQ", 0, label, 0, 0)
    return struct.pack("<IfQQ", len(label), 0.0, 0, 0) + struct.pack(f"<{len(label)}f", *label)


def write_set(folder: Path, records: list[bytes]) -> Path:
    offset, lines = 0, []
    for key, data in enumerate(records):
        lines.append(f"{key}\t{offset}\n")
        offset += len(data)
    (folder / "train.rec").write_bytes(b"".join(records))
    (folder / "train.idx").write_text("".join(lines))
    return folder / "train.rec"


def test_records_with_one_and_many_labels_and_split_payloads(tmp_path: Path) -> None:
    whole = header(4.0) + b"head" + MAGIC + b"tail"
    first, second = whole.split(MAGIC)
    path = write_set(
        tmp_path,
        [
            record(header([4.0, 6.0])),
            record(header(3.0) + b"plain"),
            record(header([5.0, 0.25]) + b"two labels"),
            record(first, 1) + record(second, 3),
            record(header([1.0, 2.0])),
            record(header([2.0, 3.0])),
        ],
    )
    read = list(RecordFile(path))
    assert [(r.key, r.labels, r.data) for r in read] == [
        (1, (3.0,), b"plain"),
        (2, (5.0, 0.25), b"two labels"),
        (3, (4.0,), b"head" + MAGIC + b"tail"),
    ]


def test_damaged_records_are_explained(tmp_path: Path) -> None:
    path = write_set(tmp_path, [record(header(1.0) + b"x" * 40)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TrainingError, match="did not arrive whole"):
        list(RecordFile(path))
    path.write_bytes(b"no records here at all")
    with pytest.raises(TrainingError, match="no record 0 at byte 0"):
        list(RecordFile(path))
    path.with_suffix(".idx").write_text("first line\n")
    with pytest.raises(TrainingError, match="not a RecordIO index"):
        RecordFile(path)
    path.with_suffix(".idx").unlink()
    with pytest.raises(TrainingError, match=r"beside the \.rec file"):
        RecordFile(path)


def test_prepare_takes_a_record_file(tmp_path: Path) -> None:
    def jpg(value: int) -> bytes:
        ok, data = cv2.imencode(".png", np.full((112, 112, 3), value, np.uint8))
        assert ok
        return data.tobytes()

    path = write_set(tmp_path, [record(header(float(label)) + jpg(10 * label)) for label in (2, 1, 2)])
    assert prepare(path, tmp_path / "out") == 3
    store = open_store(tmp_path / "out")
    assert store.identity.tolist() == [1, 2, 2]
    assert store.images[:, 0, 0, 0].tolist() == [10, 20, 20]


def test_bin_sets_of_every_pickle_protocol(tmp_path: Path) -> None:
    for protocol in range(6):
        path = tmp_path / f"{protocol}.bin"
        path.write_bytes(pickle.dumps(([b"a\xff", b"b", b"c", b"d"], [True, False]), protocol))
        made = read_bin(path)
        assert made.images == [b"a\xff", b"b", b"c", b"d"]
        assert made.same.tolist() == [True, False]


def test_a_bin_set_as_python_2_wrote_it(tmp_path: Path) -> None:
    """InsightFace's own files: protocol 2, images as `str`, which is bytes there, short and long."""
    long = bytes(range(256)) * 2
    images = b"]q\x01(U\x03a\xffbT" + struct.pack("<I", len(long)) + long + b"e"
    path = tmp_path / "lfw.bin"
    path.write_bytes(b"\x80\x02" + images + b"]q\x02\x88a\x86q\x03.")
    made = read_bin(path)
    assert made.images == [b"a\xffb", long]
    assert made.same.tolist() == [True]


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("exit 1",))


def test_bin_sets_that_would_run_code_or_do_not_match_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(pickle.dumps(([Evil()], [True])))
    with pytest.raises(TrainingError, match=r"it holds posix\.system"):
        read_bin(path)
    path.write_bytes(pickle.dumps(([b"a"], [True])))
    with pytest.raises(TrainingError, match="1 images for 1 pairs"):
        read_bin(path)
    path.write_bytes(b"junk")
    with pytest.raises(TrainingError, match="not a plain verification set"):
        read_bin(path)


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("blocks", [1, 7])
def test_megaface_against_loops(blocks: int) -> None:
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(6), 3)
    probes = unit(rng.normal(size=(6, 4))[identity] + 0.4 * rng.normal(size=(18, 4)))
    distractors = unit(rng.normal(size=(200, 4)))
    result = megaface(probes, identity, np.array_split(distractors, blocks), total=200, far=0.01)
    hits = []
    mates = []
    for i in range(18):
        for j in range(18):
            if i != j and identity[i] == identity[j]:
                mates.append(probes[i] @ probes[j])
                hits.append(all(probes[i] @ probes[j] > probes[i] @ d for d in distractors))
    impostors = (probes @ distractors.T).ravel()
    tars = [
        np.mean(np.array(mates) >= t) for t in [*impostors, *mates, 1.1] if np.mean(impostors >= t) <= 0.01
    ]
    assert result.rank1 == pytest.approx(np.mean(hits))
    assert result.tar == pytest.approx(max(tars))
    assert np.mean(impostors >= result.threshold) <= 0.01
    with pytest.raises(ValueError, match="announced"):
        megaface(probes, identity, [distractors[:50]], total=200, far=0.01)
    with pytest.raises(ValueError, match="at least 1000000 impostor pairs"):
        megaface(probes, identity, [distractors], total=200, far=1e-6)


def test_angular_fisher_score_against_loops_and_scale() -> None:
    rng = np.random.default_rng(1)
    identity = rng.integers(0, 5, 60)
    x = rng.normal(size=(5, 6))[identity] + 0.3 * rng.normal(size=(60, 6))
    cosine = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)  # noqa: E731
    mean = x.mean(axis=0)
    within = between = 0.0
    for i in range(5):
        own = x[identity == i].mean(axis=0)
        within += sum(1 - cosine(v, own) for v in x[identity == i])
        between += sum(identity == i) * (1 - cosine(own, mean))
    assert angular_fisher_score(x, identity) == pytest.approx(within / between)
    assert angular_fisher_score(7 * x, identity) == pytest.approx(within / between)
    with pytest.raises(ValueError, match="only one"):
        angular_fisher_score(x, np.zeros(60, int))


def test_alignment_and_uniformity_against_loops() -> None:
    rng = np.random.default_rng(2)
    x, identity = unit(rng.normal(size=(30, 4))).astype(np.float64), rng.integers(0, 6, 30)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    pairs = [(i, j) for i in range(30) for j in range(i + 1, 30)]
    square = {p: np.sum((x[p[0]] - x[p[1]]) ** 2) for p in pairs}
    own = [square[i, j] for i, j in pairs if identity[i] == identity[j]]
    assert alignment(x, identity) == pytest.approx(np.mean(own))
    expected = np.log(np.mean([np.exp(-2 * square[p]) for p in pairs]))
    assert uniformity(x, block=8) == pytest.approx(expected)


def test_templates_are_means_of_their_frames() -> None:
    frames = np.array([[1.0, 0], [0, 1.0], [3.0, 4.0]])
    made = template_features(frames, np.array([0, 0, 1]))
    assert made == pytest.approx(np.array([[0.5**0.5, 0.5**0.5], [0.6, 0.8]]))
    with pytest.raises(ValueError, match="template 1 has no frames"):
        template_features(frames, np.array([0, 0, 2]))
    assert concatenated([frames, frames]).shape == (3, 4)
    with pytest.raises(ValueError, match="different numbers"):
        concatenated([frames, frames[:2]])


def test_confidence_intervals_hold_the_rate() -> None:
    low, high = clopper_pearson(30, 100)
    assert (low, high) == pytest.approx((0.2124, 0.3998), abs=1e-4)
    assert clopper_pearson(0, 10)[0] == 0
    assert clopper_pearson(10, 10) == pytest.approx((0.6915, 1.0), abs=1e-4)
