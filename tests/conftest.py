"""Fixtures that every kind of test shares."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent

# The same examples on every machine and every day; HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", derandomize=False, deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real face data; skips the test where it is absent."""
    path = Path(os.environ.get("SPHEREID_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"needs the shared face data; none at {path} (set SPHEREID_SHARED_DATA)")
    return path


@pytest.fixture(scope="session")
def portrait() -> NDArray[np.uint8]:
    """(512, 512, 3) uint8 RGB: scikit-image's public-domain portrait of Eileen Collins."""
    from skimage import data

    return np.ascontiguousarray(data.astronaut())
