"""What the pipeline asks of a detector and of an embedder."""

from collections.abc import Sequence
from typing import Protocol

from sphereid.faces.types import Face, FloatArray, RGBImage


class FaceDetector(Protocol):
    """Finds faces. Safe to call from several threads at once."""

    def detect(
        self, image: RGBImage, *, min_face: int | None = None, min_score: float | None = None
    ) -> list[Face]:
        """Every face of an upright RGB image, largest first; an empty list when there is none.

        min_face: shortest side in pixels of a face worth finding (None: the detector's default).
        min_score: lowest detection score to report, in [0, 1] (None: the detector's default).
        """
        ...


class FaceEmbedder(Protocol):
    """Maps aligned crops to the hypersphere. Safe to call from several threads at once."""

    @property
    def name(self) -> str:
        """The model's name, as its manifest says."""
        ...

    @property
    def contract(self) -> str:
        """Identifies the model's digest and preprocessing."""
        ...

    @property
    def dim(self) -> int:
        """Length D of an embedding."""
        ...

    def align(self, image: RGBImage, faces: Sequence[Face]) -> RGBImage:
        """(N, H, W, 3) uint8 RGB crops of `faces`, aligned to the model's template."""
        ...

    def embed(self, crops: RGBImage) -> FloatArray:
        """(N, D) float32 rows of L2 norm 1 for (N, H, W, 3) uint8 RGB crops; N may be 0."""
        ...
