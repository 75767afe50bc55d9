"""The galleries of the gallery's own tests."""

from tests.unit.gallery.conftest import database_url, reopen, service

__all__ = ["database_url", "reopen", "service"]
