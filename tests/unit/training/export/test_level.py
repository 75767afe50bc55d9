"""Leveling: the means of collections come together, everything else stays, and the served model has it."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sphereid.faces.embed import OnnxEmbedder
from sphereid_training.cli import main
from sphereid_training.cli.export import export_model
from sphereid_training.config import Config
from sphereid_training.data.augment import center_view
from sphereid_training.data.store import held_out, open_store
from sphereid_training.errors import TrainingError
from sphereid_training.export import leveling as level
from sphereid_training.export.leveling import leveling
from sphereid_training.export.model import network_of
from sphereid_training.loop import checkpoint
from sphereid_training.loop.engine import train

Make = Callable[..., Config]


@given(groups=st.integers(2, 5), size=st.integers(5, 12), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_differences_of_means_shrink_and_nothing_else(
    groups: int, size: int, share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(groups, size))
    matrix = leveling(means, share)
    for a in means:
        for b in means:
            assert matrix @ (a - b) == pytest.approx((1 - share) * (a - b), abs=1e-9)
    # Orthogonal to the differences by least squares, another way than the matrix was made.
    spread = (means[1:] - means[0]).T
    other = rng.normal(size=size)
    other -= spread @ np.linalg.lstsq(spread, other, rcond=None)[0]
    assert matrix @ other == pytest.approx(other, abs=1e-9)


def test_equal_means_leave_everything() -> None:
    assert leveling(np.ones((3, 4)), 1.0) == pytest.approx(np.eye(4))


@pytest.fixture
def two_groups(store_folder: Path, tmp_path: Path) -> Path:
    """The toys, every other person in a second collection."""
    folder = tmp_path / "two"
    shutil.copytree(store_folder, folder)
    meta = np.load(folder / "meta.npz")
    group = ["odd" if identity % 2 else "even" for identity in meta["identity"]]
    names = [f"{g}/{name.split('/', 1)[1]}" for g, name in zip(group, meta["name"], strict=True)]
    np.savez(folder / "meta.npz", name=np.array(names), identity=meta["identity"])
    return folder


def exported(checkpoint_file: Path, out: Path, share: float) -> OnnxEmbedder:
    export_model(
        checkpoint_file, out, store=None, name=None, data="", level=share, with_checkpoint=True,
        command="x", console=Console(quiet=True),
    )  # fmt: skip
    return OnnxEmbedder.load(out)


def test_the_served_model_is_level_and_its_checkpoint_as_trained(
    small_config: Make, two_groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(level, "PEOPLE", 5)
    config = small_config(data={"store": str(two_groups)})
    trained = train(config, runs=tmp_path, max_steps=5)
    plain, leveled = (exported(trained, tmp_path / f"m{share:g}", share) for share in (0.0, 0.8))
    store = open_store(two_groups)
    backbone = network_of(checkpoint.load(trained))[0]
    means = level.collection_means(backbone, store, "112x96", 20, Console(quiet=True))
    assert set(means) == {"even", "odd"}
    crops = center_view(np.asarray(store.images[:30]), "112x96")
    expected = plain.embed(crops) @ leveling(np.array(list(means.values())), 0.8).T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert leveled.embed(crops) == pytest.approx(expected, abs=1e-4)
    assert np.abs(leveled.embed(crops) - plain.embed(crops)).max() > 0.01
    for folder, said in ((tmp_path / "m0", False), (tmp_path / "m0.8", True)):
        assert ("of even, odd differ are shrunk by 80%" in (folder / "CARD.md").read_text()) == said
    released, whole = checkpoint.load(tmp_path / "m0.8" / "checkpoint.pt").ema, checkpoint.load(trained).ema
    for name, value in released.items():
        assert np.allclose(value.float(), whole[name].float(), atol=2e-3), name


def test_of_each_collection_as_many_people_that_were_not_held_out(
    small_config: Make, two_groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(level, "PEOPLE", 6)
    looked_at = []
    monkeypatch.setattr(level, "embed", lambda _, crops: looked_at.append(crops) or np.eye(len(crops)))
    store = open_store(two_groups)
    means = level.collection_means(torch.nn.Identity(), store, "112x96", 20, Console(quiet=True))
    crops = center_view(np.asarray(store.images), "112x96")
    (seen,) = looked_at
    rows = np.array([int(np.flatnonzero(np.all(crop == crops, axis=(1, 2, 3)))[0]) for crop in seen])
    assert list(store.group[rows]) == ["even"] * 6 + ["odd"] * 6
    assert not held_out(store.identity, 20)[rows].any()
    labels = store.identity[rows]
    assert len(set(labels[labels >= 0])) == np.sum(labels >= 0)
    assert means["even"] == pytest.approx([1 / 6] * 6 + [0] * 6)
    assert means["odd"] == pytest.approx([0] * 6 + [1 / 6] * 6)


def test_what_cannot_be_leveled_is_refused(
    small_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = train(small_config(), runs=tmp_path, max_steps=1)
    with pytest.raises(TrainingError, match="two collections of 1,000 people"):
        exported(trained, tmp_path / "m", 0.5)
    monkeypatch.setattr(sys, "argv", f"training export {trained} {tmp_path}/m --level 1.5".split())
    with pytest.raises(SystemExit):
        main()
    assert "'--level': Input should be less than or equal to 1" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "m").exists()
