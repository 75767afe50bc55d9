"""What the C library's allocator keeps of memory that nobody needs any more."""

import asyncio
import ctypes
import os
from contextlib import suppress
from typing import Final

M_ARENA_MAX: Final = -8
"""Of glibc's `malloc.h`."""


def share_heaps() -> None:
    """Let glibc keep two heaps at most instead of eight a core.

    Each thread that decodes and detects would otherwise keep what it once needed in a heap of its own: memory
    went on growing as pictures of ever other sizes came by. MALLOC_ARENA_MAX has the last word.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def trim() -> None:
    """Give free pages back to the system, also those between pages in use: glibc by itself gives back only
    the end of its first heap. Takes some milliseconds; does nothing with another C library."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


async def keep_trimmed(every: float = 20.0) -> None:
    """Trim until cancelled. every: seconds."""
    while True:
        await asyncio.sleep(every)
        await asyncio.to_thread(trim)
