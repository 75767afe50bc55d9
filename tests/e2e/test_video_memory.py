"""A video that is twelve times as long takes no more memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.e2e.process import environment
from tests.e2e.test_video import film
from tests.toy import write_toy_model
from tests.unit.video.clips import write_clip

ROOM = 24 * 1024
"""KiB by which two runs may differ; one frame of this clip takes 225, so not even a tenth of the long one's
frames would fit."""


def peak(folder: Path, clip: str) -> int:
    """KiB that the command had in memory at most."""
    arguments = [sys.executable, "-m", "sphereid", "video", clip, "--out", f"named-{clip}", "--every-n", "20"]
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(
            arguments, cwd=folder, env=environment(folder / "data", folder / "models"), stdout=log, stderr=log
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        assert process.returncode == 0, log.read().decode()
    return used.ru_maxrss


def test_memory_does_not_grow_with_the_length(portrait: NDArray[np.uint8], tmp_path: Path) -> None:
    write_toy_model(tmp_path / "models")
    frames = film(portrait, 40)
    write_clip(tmp_path / "short.mp4", frames * 3, rate=20)
    write_clip(tmp_path / "long.mp4", frames * 36, rate=20)
    short, long = peak(tmp_path, "short.mp4"), peak(tmp_path, "long.mp4")
    assert long - short < ROOM, f"{short} KiB for 120 frames, {long} KiB for 1440"
