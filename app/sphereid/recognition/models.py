"""The models that serve: one from the start, another as soon as a gallery holds its embeddings."""

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from sphereid.faces.manifest import Manifest
from sphereid.gallery.errors import ContractMismatchError
from sphereid.gallery.thresholds.calibration import ImpostorCalibration
from sphereid.inference.models import Model

if TYPE_CHECKING:  # commands that look at no picture do without ONNX Runtime and OpenCV
    from sphereid.faces.embed import OnnxEmbedder
    from sphereid.faces.ports import FaceDetector
    from sphereid.inference.batcher import MicroBatcher

T = TypeVar("T")


def impostor_calibration(manifest: Manifest) -> ImpostorCalibration | None:
    """The impostor scores of a model as the gallery wants them; None where its manifest has none."""
    calibration = manifest.calibration
    if calibration is None:
        return None
    quantiles = ((quantile.fmr, quantile.similarity) for quantile in calibration.quantiles)
    return ImpostorCalibration.from_quantiles(quantiles, calibration.pairs, calibration.clumping)


class Models:
    """Finds the model of a gallery, by the contract of its embeddings. Thread-safe.

    What was loaded stays, so that a gallery that changes its model misses no request.
    """

    def __init__(
        self,
        detector: "FaceDetector",
        embedder: "OnnxEmbedder",
        *,
        contract_of: Callable[[str], str | None],
        manifests: Callable[[], Mapping[str, Manifest]],
        load: "Callable[[str], OnnxEmbedder]",
        batched: "Callable[[OnnxEmbedder], MicroBatcher]",
    ) -> None:
        """embedder: of galleries that hold nothing yet. contract_of: of a gallery's embeddings. manifests: of
        the models folder, by the name of their own folder. load: the model of such a name."""
        self._detector = detector
        self._contract_of = contract_of
        self._manifests = manifests
        self._load = load
        self._batched = batched
        self._loaded: dict[str, Model] = {}
        self._loading = threading.Lock()
        self.default = self._keep(embedder)

    @property
    def contracts(self) -> frozenset[str]:
        """Of the models that are loaded."""
        return frozenset(self._loaded)

    @property
    def waiting(self) -> int:
        """Faces that wait to be embedded."""
        return sum(model.batcher.waiting for model in list(self._loaded.values()))

    def of(self, gallery_id: str) -> Model:
        """The model whose embeddings a gallery holds. Raises NotFoundError, ModelError, and
        ContractMismatchError where the models folder has no such model."""
        contract = self._contract_of(gallery_id)
        if contract is None:
            return self.default
        return self._loaded.get(contract) or self._find(gallery_id, contract)

    def named(self, name: str) -> Model:
        """The model in a folder of the models folder. Raises ModelError."""
        with self._loading:
            manifest = self._manifests().get(name)
            known = None if manifest is None else self._loaded.get(manifest.contract)
            return known or self._keep(self._load(name))

    def moved(self, gallery_id: str, model: Model) -> bool:
        """Whether a gallery holds another model's embeddings than this one's, which was its own."""
        return self._contract_of(gallery_id) not in (None, model.contract)

    def follow(self, gallery_id: str, work: Callable[[Model], T]) -> T:
        """Do work with a gallery's model; once more where another one took over on the way."""
        while True:
            model = self.of(gallery_id)
            try:
                return work(model)
            except ContractMismatchError:
                if not self.moved(gallery_id, model):
                    raise

    def close(self) -> None:
        """Finish what is waiting."""
        for model in self._loaded.values():
            model.batcher.close()

    def _find(self, gallery_id: str, contract: str) -> Model:
        with self._loading:
            if contract in self._loaded:
                return self._loaded[contract]
            for name, manifest in self._manifests().items():
                if manifest.contract == contract:
                    return self._keep(self._load(name))
        raise ContractMismatchError(
            f"gallery {gallery_id!r} holds embeddings of contract {contract}, and no model in the models "
            "folder makes such: put the model that enrolled it back there, or enroll the photographs into a "
            "new gallery"
        )

    def _keep(self, embedder: "OnnxEmbedder") -> Model:
        from sphereid.faces.pipeline import FacePipeline

        batcher = self._batched(embedder)
        shared, alone = (FacePipeline(self._detector, each) for each in (batcher, embedder))
        model = Model(embedder, batcher, shared, alone)
        self._loaded[model.contract] = model
        return model
