"""The clock of training speed, and the store that the benchmark trains on."""

import time
from collections.abc import Callable
from pathlib import Path

from sphereid_training.config import Config
from sphereid_training.data.store import open_store
from sphereid_training.loop.engine import train
from sphereid_training.loop.speed import measure_speed, seconds_a_step

from benchmarks.training import make_store


def test_every_step_but_the_first_is_timed(small_config: Callable[..., Config]) -> None:
    ticks = iter(range(100))
    assert seconds_a_step(small_config(), batch=4, repeats=3, clock=lambda: next(ticks)) == [1, 1, 1]


def test_speed_counts_images(small_config: Callable[..., Config]) -> None:
    began = time.process_time()
    made = measure_speed(small_config(), batch=8, repeats=1)
    assert made.images_per_cpu_second > 8 / (time.process_time() - began)
    assert made.parameters > 0
    assert made.multiply_adds > made.parameters


def test_the_made_up_store_can_be_trained_on(small_config: Callable[..., Config], tmp_path: Path) -> None:
    make_store(tmp_path / "store", identities=10, images=4)
    store = open_store(tmp_path / "store")
    assert len(store.images) == 40
    assert store.teacher is not None
    last = train(small_config(data={"store": str(tmp_path / "store")}), max_steps=1, runs=tmp_path / "runs")
    assert last.is_file()
