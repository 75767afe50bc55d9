"""What every end-to-end test shares."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test with real processes, sockets or a browser gets a second try, and the report says why.

    It depends on what else the machine does; one that fails twice in a row is broken.
    """
    for item in items:
        if "tests/e2e" in item.path.as_posix():
            item.add_marker(pytest.mark.flaky(reruns=1))
