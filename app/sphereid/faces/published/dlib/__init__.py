"""dlib's face descriptor: its file read without dlib, its graph written without torch."""

from typing import Final

LICENSE: Final = "CC0-1.0 (public domain dedication by dlib's author, Davis E. King)"
PACKAGE: Final = "face-recognition-models"
"""The package that brings the weights; the extra `dlib` asks for it."""
