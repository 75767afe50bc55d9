"""What the C library's allocator keeps of memory that nobody needs any more."""

import asyncio
import ctypes
import os
from contextlib import suppress
from typing import Final

SETTINGS: Final = (
    ("MALLOC_ARENA_MAX", -8, 2),
    ("MALLOC_MMAP_THRESHOLD_", -3, 4 << 20),
    ("MALLOC_TRIM_THRESHOLD_", -1, 16 << 20),
)
"""Environment variable, number in glibc's `malloc.h`, value."""


def settle_heaps() -> None:
    """Set up glibc's allocator for pictures of ever other sizes: left to itself, it keeps ever more memory.

    Two heaps at most instead of eight a core: each thread that decodes and detects would keep what it once
    needed in a heap of its own. What takes four megabytes or more gets a mapping of its own, which goes back
    when it is freed: by default the first large picture that is freed raises that limit up to 32 MB for good,
    and large pictures leave holes in the heaps. The environment variables of glibc have the last word.
    """
    for variable, number, value in SETTINGS:
        if variable not in os.environ:
            with suppress(AttributeError, OSError):  # another C library
                ctypes.CDLL(None).mallopt(number, value)


def trim() -> None:
    """Give free pages back to the system, also those between pages in use: glibc by itself gives back only
    the end of its first heap. Takes some milliseconds; does nothing with another C library."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


async def keep_trimmed(every: float = 10.0) -> None:
    """Trim until cancelled. every: seconds."""
    while True:
        await asyncio.sleep(every)
        await asyncio.to_thread(trim)
