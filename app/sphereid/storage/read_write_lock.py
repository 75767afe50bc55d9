"""Many readers or one writer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadWriteLock:
    """Readers share, a writer is alone and goes before readers that come after it: the stream of searches
    can't hold up a write for longer than the searches under way. Not reentrant."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._waiting_writers = 0
        self._writing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._writing and not self._waiting_writers)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                if not self._readers:
                    self._changed.notify_all()

    @contextmanager
    def writing(self, timeout: float | None = None) -> Iterator[bool]:
        """Alone inside. With a timeout in seconds: yields False, without the lock, where it passed in
        vain."""
        with self._changed:
            self._waiting_writers += 1
            try:
                mine = self._changed.wait_for(lambda: not self._writing and not self._readers, timeout)
                self._writing = self._writing or mine
            finally:
                self._waiting_writers -= 1
                self._changed.notify_all()
        try:
            yield mine
        finally:
            if mine:
                with self._changed:
                    self._writing = False
                    self._changed.notify_all()
