"""The loop: learns, resumes bit by bit, keeps its checkpoint whole, and says in one line what is wrong."""

import errno
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sphereid_training.config import Config, OptimizerConfig, from_dict, to_dict
from sphereid_training.errors import TrainingError
from sphereid_training.loop import checkpoint, engine, plateau
from sphereid_training.loop.engine import resample_fc, train, transfer
from sphereid_training.loop.objective import Objective, regression_loss, relation_loss
from sphereid_training.loop.schedule import advance, rate

Make = Callable[..., Config]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_learns_to_tell_held_out_identities_apart(
    small_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    torch.manual_seed(0)
    config = small_config(engine={"precision": precision})
    path = train(config, runs=tmp_path)
    assert "held-out identities: accuracy" in capsys.readouterr().out
    state = checkpoint.load(path)
    assert state.progress == 1
    assert state.step == 20
    store = engine.open_store(Path(config.data.store))
    out = engine.held_out(store.identity, config.data.holdout_percent)
    validation = engine.make_validation(store, out, template="112x96", pool=2, pairs=60)
    assert validation is not None
    fresh = Objective(config, state.classes, state.teacher_size)
    trained = Objective(config, state.classes, state.teacher_size)
    trained.load_state_dict(state.ema)
    assert validation.measure(trained.backbone)["accuracy"] >= 0.95
    assert set(validation.measure(fresh.backbone)) == {"accuracy"}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"head": {"name": "a_softmax", "options": {"m": 4}}, "optimizer": {"clip": 1.0}},
        {"head": {"name": "adaface", "options": {}}, "optimizer": {"name": "adamw", "lr": 0.001}},
        {"head": {"options": {"sample_rate": 0.5}}, "optimizer": {"accumulate": 2}},
        {"engine": {"precision": "bf16"}, "optimizer": {"schedule": "poly"}},
        {"optimizer": {"name": "muon", "lr": 0.001}},
    ],
    ids=["cosface", "a_softmax", "adaface-adamw", "sampled-accumulated", "bf16-poly", "muon"],
)
def test_resuming_is_bit_identical(small_config: Make, tmp_path: Path, change: dict[str, Any]) -> None:
    config = small_config(**change)
    unbroken = checkpoint.load(train(config, runs=tmp_path / "a", max_steps=6))
    train(config, runs=tmp_path / "b", max_steps=3)
    torch.manual_seed(999)
    resumed = checkpoint.load(train(config, runs=tmp_path / "b", max_steps=3, resume=True))
    assert resumed.step == unbroken.step == 6
    assert resumed.progress == unbroken.progress
    for name in ("objective", "ema"):
        before, after = getattr(unbroken, name), getattr(resumed, name)
        assert before.keys() == after.keys()
        for key in before:
            assert torch.equal(before[key], after[key]), key
    assert torch.equal(unbroken.rng, resumed.rng)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_frozen_norms_keep_their_statistics_and_learn_their_weights(
    small_config: Make, tmp_path: Path, share: float
) -> None:
    config = small_config(engine={"freeze_norm": share}, optimizer={"warmup": 0})
    state = checkpoint.load(train(config, runs=tmp_path, max_steps=2)).objective
    means = [value for name, value in state.items() if name.endswith("running_mean")]
    biases = [value for name, value in state.items() if "features" in name and name.endswith("bias")]
    assert all(bool((mean == 0).all()) == (share == 0.0) for mean in means)
    assert any(bool((bias != 0).any()) for bias in biases)


def in_two_processes(*program: object) -> None:
    """Run it under torchrun."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"),
            *(str(part) for part in program),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_two_processes_evaluate_together_though_their_clocks_differ(
    small_config: Make, tmp_path: Path
) -> None:
    recipe, program = tmp_path / "recipe.yaml", tmp_path / "program.py"
    recipe.write_text(yaml.safe_dump(to_dict(small_config(engine={"evaluate_seconds": 0}))))
    program.write_text(
        "import os, time\n"
        "clock = time.monotonic\n"
        "time.monotonic = lambda: clock() + 3600 * int(os.environ['RANK'])\n"
        "from sphereid_training.cli import main\n"
        "main()\n"
    )
    in_two_processes(program, "train", recipe, "--max-steps", 2, "--runs", tmp_path)
    assert checkpoint.load(tmp_path / "toy" / "last.pt").step == 2


@pytest.mark.parametrize("sample_rate", [1.0, 0.7])
def test_two_processes_do_what_one_does(small_config: Make, tmp_path: Path, sample_rate: float) -> None:
    """Same global batch, no batch norm, whose statistics are each process's own; and the same sampled
    classes, those of either's half of the batch among them."""
    values = to_dict(
        small_config(
            head={"options": {"s": 16, "m": 0.1, "sample_rate": sample_rate}},
            backbone={"batch_norm": False},
            distill={"relation": 0.0},
            augment={
                "flip": False,
                "shift": 0,
                "scale": 0,
                "rotation_degrees": 0,
                "p_downscale": 0,
                "p_blur": 0,
                "p_grey": 0,
                "brightness": 0,
                "contrast": 0,
                "p_erase": 0,
            },
            optimizer={"lr": 0.01},
        )
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    one = checkpoint.load(train(from_dict(values), runs=tmp_path / "one", max_steps=3))
    in_two_processes("-m", "training", "train", recipe, "--max-steps", 3, "--runs", tmp_path / "two")
    two = checkpoint.load(tmp_path / "two" / "toy" / "last.pt")
    for key, value in one.objective.items():
        assert torch.allclose(value, two.objective[key], atol=2e-5), key


def test_a_broken_write_leaves_the_last_checkpoint(
    small_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config()
    path = train(config, runs=tmp_path, max_steps=2)
    good = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(TrainingError, match=r"No space left.*still at"):
        train(config, runs=tmp_path, max_steps=2, resume=True)
    assert path.read_bytes() == good
    assert [p.name for p in path.parent.glob("*.tmp")] == []


def test_a_real_full_disk_is_one_clear_line(small_config: Make, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "last.tmp").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match="could not write the checkpoint"):
        train(small_config(), runs=tmp_path, max_steps=1)


def test_a_loss_that_is_not_a_number_stops_with_advice(small_config: Make, tmp_path: Path) -> None:
    config = small_config(optimizer={"lr": 1e30, "warmup": 0, "clip": 0.0}, backbone={"batch_norm": False})
    with pytest.raises(TrainingError, match=r"not a number at step \d+: lower optimizer.lr"):
        train(config, runs=tmp_path)


@pytest.mark.parametrize(
    "head",
    [
        {"name": "softmax", "options": {}},
        {"name": "a_softmax", "options": {"m": 4}},
        {"name": "sphereface_r", "options": {"scheme": "NFN", "lw": 3}},
    ],
    ids=lambda head: str(head["name"]),
)
def test_a_plateau_at_ln_n_stops_with_advice(
    small_config: Make, tmp_path: Path, head: dict[str, Any]
) -> None:
    """Weights that decay to nothing give embeddings of no length, and a loss of ln N."""
    config = small_config(
        backbone={"batch_norm": False},
        head=head,
        distill={"weight": 0.0, "relation": 0.0},
        optimizer={"lr": 0.01, "weight_decay": 30.0, "samples": 4 * 500, "batch_size": 4},
        engine={"plateau_steps": 205},
    )
    with pytest.raises(TrainingError, match="sits at ln N"):
        train(config, runs=tmp_path)


def test_only_a_loss_that_stays_there_is_a_plateau() -> None:
    ln_n, half = math.log(100), plateau.WINDOW // 2
    assert plateau.stuck([ln_n] * (2 * half - 1), 100) is None
    assert "ln N = 4.61" in str(plateau.stuck([9.0, *[ln_n] * 2 * half], 100))
    assert plateau.stuck([*np.linspace(ln_n + 1, ln_n - 1, 2 * half)], 100) is None
    assert plateau.stuck([ln_n + 0.1] * 2 * half, 100) is None
    assert "87.34" in str(plateau.stuck([87.3] * 2 * half, 100))


def test_starting_over_a_run_or_resuming_another_is_refused(small_config: Make, tmp_path: Path) -> None:
    train(small_config(), runs=tmp_path, max_steps=1)
    with pytest.raises(TrainingError, match="--resume"):
        train(small_config(), runs=tmp_path, max_steps=1)
    with pytest.raises(TrainingError, match=r"backbone\.width, optimizer\.lr differ"):
        train(small_config(backbone={"width": 16}, optimizer={"lr": 0.5}), runs=tmp_path, resume=True)
    longer = small_config(optimizer={"samples": 6400})
    assert checkpoint.load(train(longer, runs=tmp_path, resume=True, max_steps=1)).step == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"min_images_per_class": 50}}, "0 identities have 50 images"),
        ({"data": {"store": "/nowhere"}}, "run `python -m training prepare`"),
        ({"optimizer": {"batch_size": 4096}}, "less than one batch"),
        ({"optimizer": {"accumulate": 3}}, "multiple of 3"),
        ({"init_from": "/nowhere.pt"}, "no checkpoint at"),
        ({"distill": {"center": 0.5}}, r"engine\.freeze_norm=0"),
    ],
)
def test_wrong_settings_are_explained(
    small_config: Make, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        train(small_config(**change), runs=tmp_path, max_steps=1)


def test_checkpoints_run_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.system, ("true",))

    path = tmp_path / "evil.pt"
    torch.save({"format": 1, "x": Evil()}, path)
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        checkpoint.load(path)
    path.write_bytes(b"PK truncated")
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        checkpoint.load(path)


def test_going_on_at_full_resolution(small_config: Make, tmp_path: Path) -> None:
    """The fully connected layer is resampled; everything else is taken over."""
    half = train(small_config(), runs=tmp_path, max_steps=2)
    full = small_config(name="full", init_from=str(half), data={"input_pool": 1})
    state = checkpoint.load(half)
    objective = Objective(full, state.classes, state.teacher_size)
    assert transfer(objective, state.ema) == []
    old = state.ema["backbone.fc.weight"]
    constant = torch.ones(1, old.shape[1] // 12, 1, 1)
    at_half = old.reshape(32, -1, 4, 3).mul(constant).sum(dim=(1, 2, 3))
    at_full = objective.backbone.get_parameter("fc.weight").reshape(32, -1, 7, 6).sum(dim=(1, 2, 3))
    assert torch.allclose(at_half, at_full, atol=0.15 * at_half.abs().max().item())
    assert train(full, runs=tmp_path, max_steps=1).exists()


def test_resampling_keeps_a_smooth_weight_exactly() -> None:
    weight = torch.full((2, 3 * 4 * 3), 0.5)
    resampled = resample_fc(weight, 3 * 7 * 6, (7, 6))
    assert resampled.sum(dim=1).tolist() == pytest.approx([18.0, 18.0])


def test_learning_rates() -> None:
    cosine = OptimizerConfig(lr=0.1, warmup=10)
    assert rate(cosine, 0.0, 0) == pytest.approx(0.01)
    assert rate(cosine, 0.0, 9) == pytest.approx(0.1)
    assert rate(cosine, 0.5, 100) == pytest.approx(0.05)
    assert rate(cosine, 1.0, 100) == pytest.approx(0.0)
    assert rate(OptimizerConfig(lr=1, warmup=0, schedule="poly"), 0.25, 0) == pytest.approx(0.75)
    step = OptimizerConfig(lr=1, warmup=0, schedule="step", milestones=(0.5, 0.8))
    assert [rate(step, p, 0) for p in (0.4, 0.5, 0.9)] == pytest.approx([1, 0.1, 0.01])


def test_a_deadline_is_met_whatever_the_speed() -> None:
    config = OptimizerConfig(deadline_minutes=1)
    progress, clock = 0.0, 0.0
    for seconds in np.random.default_rng(0).uniform(0.1, 9, 1000):
        clock += seconds
        progress = advance(progress, config, seconds=seconds, seconds_left=60 - clock)
        assert progress == pytest.approx(min(1.0, clock / 60), abs=1e-9)
        if clock > 60:
            break
    assert progress == 1
    by_samples = OptimizerConfig(samples=1280, batch_size=128)
    assert advance(0.5, by_samples, seconds=1, seconds_left=-1) == pytest.approx(0.6)


def test_distillation_losses_against_loops() -> None:
    rng = np.random.default_rng(0)
    p, t = rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    expected = np.mean([1 - unit(p)[i] @ unit(t)[i] + 0.5 * ((p[i] - t[i]) ** 2).sum() for i in range(4)])
    assert regression_loss(torch.tensor(p), torch.tensor(t)).item() == pytest.approx(expected)
    pairs = [
        (unit(p)[i] @ unit(p)[j] - unit(t)[i] @ unit(t)[j]) ** 2 for i in range(4) for j in range(4) if i != j
    ]
    assert relation_loss(torch.tensor(p), torch.tensor(t)).item() == pytest.approx(np.mean(pairs))
    assert math.isclose(relation_loss(torch.ones(1, 3), torch.ones(1, 3)).item(), 0)


def test_lambda_counts_optimizer_steps_and_the_share_is_told(
    small_config: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(
        head={"name": "a_softmax", "options": {"m": 4, "base": 99.0, "gamma": 0.0}},
        optimizer={"accumulate": 2},
        engine={"log_steps": 1},
    )
    state = checkpoint.load(train(config, runs=tmp_path, max_steps=3))
    assert int(state.objective["head.step"]) == 3
    assert capsys.readouterr().out.count("margin 1% ") == 3
