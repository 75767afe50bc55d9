"""The commands of the protocols, on folders and archives of crops."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from sphereid.faces.embed import OnnxEmbedder
from sphereid_training.data.augment import center_view
from sphereid_training.data.store import held_out, open_store
from sphereid_training.errors import TrainingError
from sphereid_training.evaluation import photographs
from sphereid_training.evaluation.photographs import describe

from tests.toy import write_toy_model


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Aligned crops of twelve people, six each, and of forty strangers; one file is no image."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(3)
    for person in range(52):
        pattern = rng.uniform(30, 225, (14, 12, 3))
        for number in range(6 if person < 12 else 1):
            noisy = np.kron(pattern, np.ones((8, 8, 1))) + rng.normal(0, 30, (112, 96, 3))
            part = f"people/p{person:02d}" if person < 12 else "strangers/all"
            path = folder / part / f"{person:02d}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.clip(noisy, 0, 255).astype(np.uint8))
    (folder / "strangers/all/broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("models"))


def test_a_stopped_run_over_photographs_goes_on(
    faces: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photographs, "CHUNK", 16)
    embedder = OnnxEmbedder.load(model)
    archive = tmp_path / "people.tar"
    with tarfile.open(archive, "w") as file:
        file.add(faces / "people", "people")

    def run(source: Path) -> photographs.Features:
        return describe(
            source, embedder, cache=tmp_path, aligned=True, what="embed", console=Console(quiet=True)
        )

    real, calls = photographs._save, []

    def stop_at_the_third(path: Path, *rest: object) -> None:
        calls.append(path.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(photographs, "_save", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(archive)
    calls[:] = ["", "", ""]
    features = run(archive)
    assert sorted(calls[3:]) == ["00002.npz", "00003.npz", "00004.npz"]
    rows, found = features.load()
    assert rows.shape == (72, 64)
    assert found.all()
    direct = np.stack([cv2.imread(str(faces / name))[:, :, ::-1] for name in features.names])
    assert rows == pytest.approx(embedder.embed(direct), abs=1e-5)
    run(archive)
    assert len(calls) == 6
    with pytest.raises(TrainingError, match="neither a folder nor a readable tar"):
        run(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="no photographs under"):
        run(tmp_path / "empty")


def test_the_commands_measure_and_report(faces: Path, model: Path, tmp_path: Path) -> None:
    splits = tmp_path / "splits.txt"
    lines = []
    for fold in range(1, 11):
        lines += [f"{fold}, p{fold:02d}/a, p{fold:02d}/b, 1", f"{fold}, p{fold:02d}/a, p{fold + 1:02d}/b, 0"]
    splits.write_text("\n".join(lines))
    videos = tmp_path / "videos"
    for path in sorted((faces / "people").rglob("*.png")):
        half = "a" if int(path.stem[-1]) < 3 else "b"
        target = videos / path.parent.name / half / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    common = [
        "--model",
        str(model),
        "--aligned",
        "--cache",
        str(tmp_path / "cache"),
        "--report",
        str(tmp_path),
    ]
    people, strangers = str(faces / "people"), str(faces / "strangers")
    crops = [cv2.imread(str(path))[:, :, ::-1] for path in sorted((faces / "strangers").rglob("*_0.png"))]
    embeddings = tmp_path / "strangers.npy"
    np.save(embeddings, OnnxEmbedder.load(model).embed(np.stack(crops)))
    script = [
        ["blufr", "--images", people, "--gallery", "5", "--trials", "2"],
        ["ytf", "--videos", str(videos), "--splits", str(splits), "--frames", "2"],
        ["megaface", "--probes", people, "--distractors", strangers, "--far", "0.01"],
        ["trillion", "--faces", people, "--distractors", strangers, "--far", "0.01", "--far", "1e-9"],
        ["megaface", "--probes", people, "--distractors", str(embeddings), "--far", "0.01"],
        ["blufr", "--images", people, "--gallery", "50"],
    ]
    wanted = tmp_path / "probes.json"
    wanted.write_text(
        json.dumps({"path": [f"p{p:02d}/{p:02d}_{n}.jpg" for p in range(12) for n in range(2, 9)]})
    )
    commands = [["evaluate", *each, *common] for each in script]
    commands[4][-1] = str(tmp_path / "npy")
    commands[4] += ["--probe-list", str(wanted)]
    # One process for all: importing takes longer than measuring.
    runner = f"""
import sys
from sphereid_training.cli import main
for arguments in {commands!r}:
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as stop:
        print("exit", stop.code, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", runner], capture_output=True, text=True, check=False)
    assert done.stderr.count("report: ") == 5, done.stderr
    assert "error: " in done.stderr
    assert "a gallery of 50 needs as many identities with two images" in done.stderr
    found = {p.stem.split("-")[0]: json.loads(p.read_text()) for p in tmp_path.glob("*.json")}
    assert found["ytf"]["accuracy"] == 1
    assert found["ytf"]["not_found"] == 0
    assert found["megaface"]["rank1"] == {"10": 1.0, "40": 1.0}
    assert found["megaface"]["tar_at_far"] == {"0.01": 1.0}
    assert found["megaface"]["not_found"] == {"probes": 0, "distractors": 1}
    (given,) = (tmp_path / "npy").glob("megaface-*.json")
    from_file = json.loads(given.read_text())
    assert from_file["distractors_from"] == "strangers.npy"
    for key in ("rank1", "tar_at_far", "distractors"):
        assert from_file[key] == found["megaface"][key]
    assert (found["megaface"]["pairs"], from_file["pairs"]) == (12 * 6 * 5, 12 * 4 * 3)
    assert from_file["listed_but_absent"] == {"probes.json": 12 * 3}
    assert found["trillion"]["tpr_at_far"] == {"0.01": 1.0}
    assert "FAR 1e-09" in found["trillion"]["refused"][0]
    assert found["blufr"]["vr_at_far"]["0.01"]["mean_minus_std"] == 1
    for stem in ("blufr", "ytf", "megaface", "trillion"):
        (page,) = tmp_path.glob(f"{stem}-*.html")
        assert page.read_text().count("<svg") == 2


def test_the_open_set_command_also_tells_how_embeddings_lie_on_the_sphere(
    store_folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sphereid_training.cli import main

    out = tmp_path / "o.json"
    arguments = f"evaluate openset --store {store_folder} --model {model} --enrolled 3 --trials 2"
    monkeypatch.setattr(sys, "argv", ["training", *f"{arguments} --holdout-percent 40 --json {out}".split()])
    main()
    made = json.loads(out.read_text())
    store = open_store(store_folder)
    rows = np.flatnonzero(held_out(store.identity, 40))
    x = OnnxEmbedder.load(model).embed(center_view(np.asarray(store.images[rows]), "112x96"))
    who = store.identity[rows]
    assert made["identities"] == len(np.unique(who)) > 3
    assert made["rank1"]["mean"] == 1
    assert list(made["fnir_at_fpir"]) == ["0.1"]
    close = [np.sum((a - b) ** 2) for i, a in enumerate(x) for b in x[i + 1 :][who[i + 1 :] == who[i]]]
    assert made["alignment"] == pytest.approx(np.mean(close), rel=1e-3)
    assert made["angular_fisher_score"] < 0.1
    assert -4 < made["uniformity"] < 0
    assert out.with_suffix(".html").read_text().count("<svg") == 2
