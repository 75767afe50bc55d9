"""What the service loads: never torch or TensorFlow, and nothing heavy before it is needed."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import sphereid

HEAVY = ("torch", "tensorflow", "keras", "sklearn", "matplotlib", "skimage", "pandas", "onnx")


BLOCK = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "tensorflow", "sphereid_training"):
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Block())
"""
TELL = "print(*{name.partition('.')[0] for name, module in sys.modules.items() if module})"


def loaded_by(statement: str, repo_root: Path) -> set[str]:
    """Top-level modules that a fresh interpreter has after `statement`, in which torch cannot be imported."""
    script = f"{BLOCK}\n{statement}\n{TELL}"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=repo_root, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import sphereid.api.application",
        "from sphereid.api.application import create_app; from sphereid.settings import Settings; "
        "create_app(Settings())",
    ],
)
def test_the_service_wants_no_training_library(repo_root: Path, statement: str) -> None:
    assert not loaded_by(statement, repo_root) & set(HEAVY)


def test_a_service_loads_ffmpeg_only_when_a_video_comes(repo_root: Path) -> None:
    rooms = ("api.application", "api.routes", "jobs.video", "video.live", "monitors.runner")
    parts = ", ".join(f"sphereid.{room}" for room in rooms)
    assert "av" not in loaded_by(f"import {parts}", repo_root)
    assert "av" in loaded_by("import sphereid.video.process", repo_root)


def test_help_is_quick(repo_root: Path) -> None:
    loaded = loaded_by("import sphereid.cli", repo_root)
    assert not loaded & {
        *HEAVY,
        "onnxruntime",
        "cv2",
        "faiss",
        "sqlalchemy",
        "alembic",
        "scipy",
        "fastapi",
        "uvicorn",
    }


def test_importing_starts_nothing(repo_root: Path) -> None:
    check = (
        "import threading, pathlib; before = set(pathlib.Path().iterdir()); import sphereid.api.application; "
        "assert threading.active_count() == 1, threading.enumerate(); "
        "assert set(pathlib.Path().iterdir()) == before"
    )
    loaded_by(check, repo_root)


def test_the_version_is_the_project_s(repo_root: Path) -> None:
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    assert sphereid.__version__ == project["version"]
