"""Memory that is free goes back to the system."""

import platform
import re
from pathlib import Path

import pytest

from app.memory import trim

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
