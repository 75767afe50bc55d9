"""A model that is loaded, with what requests and long work embed through."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sphereid.faces.manifest import Manifest

if TYPE_CHECKING:  # commands that look at no picture do without ONNX Runtime and OpenCV
    from sphereid.faces.embed import OnnxEmbedder
    from sphereid.faces.pipeline import FacePipeline
    from sphereid.inference.batcher import MicroBatcher


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A model that is loaded. batcher: lets requests share batches. shared: the pipeline over it; alone: the
    pipeline of long work, which brings batches of its own."""

    embedder: "OnnxEmbedder"
    batcher: "MicroBatcher"
    shared: "FacePipeline"
    alone: "FacePipeline"

    @property
    def manifest(self) -> Manifest:
        return self.embedder.manifest

    @property
    def name(self) -> str:
        return self.embedder.name

    @property
    def contract(self) -> str:
        return self.embedder.contract
