"""ONNX Runtime's reports to its makers stay off."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toy import write_toy_model

EMBED = """
import sys
from pathlib import Path
import numpy as np
from {first} import *
from sphereid.faces.embed import OnnxEmbedder
embedder = OnnxEmbedder.load(Path(sys.argv[1]))
_, _, height, width = embedder.manifest.input
embedder.embed(np.zeros((1, height, width, 3), np.uint8))
"""


@pytest.mark.parametrize("first", ["sphereid", "sphereid_training"])
def test_inference_leaves_no_trace_in_the_home_folder(first: str, tmp_path: Path, repo_root: Path) -> None:
    model = write_toy_model(tmp_path / "models")
    home = tmp_path / "home"
    home.mkdir()
    # On a build server the runtime is quiet of its own accord, which would hide a report.
    kept = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith(("GITHUB", "ORT_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", EMBED.format(first=first), str(model)],
        env=kept | {"HOME": str(home)},
        cwd=repo_root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert [p.name for p in home.rglob("*") if "onnxruntime" in p.name.lower() or p.name == "deviceid"] == []
