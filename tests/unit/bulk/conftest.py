"""The galleries of the gallery's own tests."""

from tests.unit.gallery.conftest import reopen, service

__all__ = ["reopen", "service"]
