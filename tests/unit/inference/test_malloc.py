"""Memory that is free goes back to the system."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sphereid.inference.malloc import trim

MIB = 1 << 20


def resident() -> float:
    """MiB of this process in memory."""
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is meant")
def test_free_pages_between_used_ones_go_back() -> None:
    blocks = [bytearray(b"x" * 60_000) for _ in range(2000)]  # below what has a mapping of its own
    del blocks[1::2], blocks[1::2]
    before = resident()
    trim()
    given_back = before - resident()
    assert len(blocks) == 500
    assert given_back > 40  # of 90 MB that are free


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is meant")
def test_a_large_block_goes_back_when_it_is_freed_whatever_was_freed_before() -> None:
    """In a process of its own, for the settings last as long as the process."""
    program = (
        "from sphereid.inference.malloc import settle_heaps;"
        "from tests.unit.inference.test_malloc import resident; settle_heaps();"
        "bytearray(20_000_000);"
        "blocks = [bytearray(b'x' * 10_000_000) for _ in range(8)]; last = blocks.pop(); full = resident();"
        "blocks.clear(); print(full - resident())"
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=env, capture_output=True, text=True, check=True
    )
    assert float(run.stdout) > 60  # of 70 MB
