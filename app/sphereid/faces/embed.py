"""From aligned crops to embeddings: any ONNX model that a manifest describes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import onnxruntime as ort

from sphereid.faces.align import align
from sphereid.faces.errors import ModelError
from sphereid.faces.manifest import Manifest, Precision, load_manifest, read_model
from sphereid.faces.types import Face, FloatArray, RGBImage

Providers = Literal["cpu", "cuda", "tensorrt", "auto"]
PrecisionChoice = Literal["auto", "fp32", "int8"]

_PROVIDERS: Final = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}


def open_session(model: bytes, providers: Providers = "auto", threads: int = 0) -> ort.InferenceSession:
    """An ONNX Runtime session that really runs on `providers`.

    providers: `auto` takes CUDA where it works and the CPU otherwise; any other is taken at its word.
    threads: for one operator on the CPU; 0 lets the runtime choose one a physical core.
    Raises ModelError when the model is not valid ONNX, or when the wanted providers are not there.
    """
    if providers == "auto":
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            return open_session(model, "cpu", threads)
        try:
            return open_session(model, "cuda", threads)
        except ModelError:
            return open_session(model, "cpu", threads)

    wanted = _PROVIDERS[providers]
    if wanted[0] not in ort.get_available_providers():
        raise ModelError(
            f"{providers} was asked for, but this onnxruntime has no {wanted[0]} (it has: "
            f"{', '.join(ort.get_available_providers())}): install the `gpu` extra, or choose cpu"
        )
    if providers != "cpu":
        ort.preload_dlls()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning worker threads would take the cores from decoding and detection, which run beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(model, options, providers=list(wanted))
    except Exception as error:  # the runtime's exceptions share no public base
        raise ModelError(f"onnxruntime cannot load the model: {error}") from error
    if session.get_providers()[0] != wanted[0]:
        raise ModelError(
            f"{providers} was asked for, but {wanted[0]} did not start and the runtime fell back to "
            f"{session.get_providers()[0]}: check the driver and the CUDA and cuDNN libraries, or choose cpu"
        )
    return session


def normalize(crops: RGBImage, manifest: Manifest, out: FloatArray) -> None:
    """Fill `out` (N, 3, H, W) float32 with (p - mean) * scale of (N, H, W, 3) uint8 RGB crops, as a model
    wants them."""
    planes = crops.transpose(0, 3, 1, 2)
    if manifest.color == "bgr":
        planes = planes[:, ::-1]
    np.subtract(planes, np.asarray(manifest.mean, np.float32).reshape(3, 1, 1), out=out)
    out *= np.asarray(manifest.scale, np.float32).reshape(3, 1, 1)


class OnnxEmbedder:
    """A `FaceEmbedder` over one ONNX model. Safe to call from several threads at once.

    Crops run in batches of up to `max_batch`, padded to a few sizes so that the runtime's memory stays flat
    (at most a quarter of a batch is padding). With a flip rule, crops and mirror images share a batch.
    """

    def __init__(
        self,
        model: bytes,
        manifest: Manifest,
        *,
        providers: Providers = "auto",
        threads: int = 0,
        max_batch: int = 32,
        precision: Precision = "fp32",
    ) -> None:
        """model: the ONNX file's bytes, already checked against the manifest's digest (`load` does so).
        precision: of that file.

        Raises ModelError when the model does not fit the manifest or the providers are not there.
        """
        if max_batch < 1:
            raise ValueError(f"max_batch must be at least 1, got {max_batch}")
        self.manifest: Final = manifest
        self.precision: Final = precision
        self.contract: Final = manifest.contract
        """Identifies the model's digest and preprocessing."""
        self._session = open_session(model, providers, threads)
        source = _only(self._session.get_inputs(), "input", manifest)
        sink = _only(self._session.get_outputs(), "output", manifest)
        _check_shapes(source.shape, sink.shape, manifest)
        self._names = source.name, sink.name
        self._device = "cpu" if self.provider == "CPUExecutionProvider" else "cuda"
        self._fixed_batch = source.shape[0] if isinstance(source.shape[0], int) else None
        self._max_batch = max_batch
        # The first run allocates and plans; a model that gives something else than promised fails here.
        self.embed(np.full((1, *manifest.input[2:], 3), 127, dtype=np.uint8))

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        providers: Providers = "auto",
        threads: int = 0,
        max_batch: int = 32,
        precision: PrecisionChoice = "auto",
    ) -> Self:
        """Load a model folder (`manifest.json` and the file it names) and warm it up.

        precision: `auto` takes the int8 file on the CPU, where the manifest says that it is faster and as
        good; see `Quantized.worthwhile`. The contract is the same either way.
        Raises ModelError when anything is not what the manifest promises.
        """
        folder = Path(folder)
        manifest = load_manifest(folder)
        chosen = precision if precision != "auto" else _best_precision(folder, manifest, providers)
        return cls(
            read_model(folder, manifest, chosen),
            manifest,
            providers=providers,
            threads=threads,
            max_batch=max_batch,
            precision=chosen,
        )

    @property
    def name(self) -> str:
        """The model's name, as its manifest says."""
        return self.manifest.name

    @property
    def file_digest(self) -> str:
        """SHA-256 of the model file in use, as the manifest says."""
        int8 = self.manifest.int8
        return int8.sha256 if self.precision == "int8" and int8 is not None else self.manifest.sha256

    @property
    def dim(self) -> int:
        """Length D of an embedding."""
        return self.manifest.embedding_size

    @property
    def provider(self) -> str:
        """The execution provider that runs the model, as ONNX Runtime names it."""
        return str(self._session.get_providers()[0])

    def align(self, image: RGBImage, faces: Sequence[Face]) -> RGBImage:
        """(N, H, W, 3) uint8 RGB crops of `faces`, aligned to the model's template."""
        return align(image, [face.landmarks for face in faces], self.manifest.alignment)

    def embed(self, crops: RGBImage) -> FloatArray:
        """(N, D) float32 rows of L2 norm 1 for (N, H, W, 3) uint8 RGB crops; N may be 0.

        Raises ValueError for crops of another shape or type, ModelError when the model gives a vector
        without a direction (zero or not finite).
        """
        height, width = self.manifest.input[2:]
        if crops.dtype != np.uint8 or crops.shape[1:] != (height, width, 3):
            raise ValueError(
                f"crops must be (N, {height}, {width}, 3) uint8, got {crops.shape} {crops.dtype}"
            )
        embeddings = np.empty((len(crops), self.dim), dtype=np.float32)
        for start in range(0, len(crops), self._max_batch):
            chunk = crops[start : start + self._max_batch]
            embeddings[start : start + len(chunk)] = self._merge(
                self._forward(self._input(chunk)), len(chunk)
            )
        return embeddings

    def _input(self, crops: RGBImage) -> FloatArray:
        """(rows, 3, H, W) float32: the crops, their mirror images if the rule wants them, then padding."""
        count = len(crops)
        used = count if self.manifest.flip == "none" else 2 * count
        batch = np.empty((self._rows(used), *self.manifest.input[1:]), dtype=np.float32)
        normalize(crops, self.manifest, batch[:count])
        if used > count:
            batch[count:used] = batch[:count, :, :, ::-1]
        batch[used:] = 0
        return batch

    def _rows(self, used: int) -> int:
        """The padded size of a batch: exact up to eight, then in steps of 2, 4, 8 as it doubles."""
        step = self._fixed_batch or 1 << max(0, (used - 1).bit_length() - 3)
        return -(-used // step) * step

    def _forward(self, batch: FloatArray) -> FloatArray:
        """(rows, d) output of the network for a padded batch."""
        step = self._fixed_batch or len(batch)
        parts = [self._run(batch[start : start + step]) for start in range(0, len(batch), step)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, batch: FloatArray) -> FloatArray:
        """One run with input and output bound to where the model runs: each is copied once on a GPU and not
        at all on the processor."""
        source, sink = self._names
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(source, ort.OrtValue.ortvalue_from_numpy(batch, self._device))
        binding.bind_output(sink, self._device)
        self._session.run_with_iobinding(binding)
        output: FloatArray = binding.get_outputs()[0].numpy()
        return output

    def _merge(self, output: FloatArray, count: int) -> FloatArray:
        """(count, D) unit rows from the network's output by the flip rule."""
        merged = output[:count]
        if self.manifest.flip == "sum":
            merged = merged + output[count : 2 * count]
        elif self.manifest.flip == "concat":
            merged = np.concatenate([merged, output[count : 2 * count]], axis=1)
        norms: FloatArray = np.linalg.norm(merged, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and norms.all()):
            raise ModelError(
                f"model {self.name} gave an embedding that is zero or not finite: the file is damaged"
            )
        return (merged / norms).astype(np.float32, copy=False)


def _best_precision(folder: Path, manifest: Manifest, providers: Providers) -> Precision:
    cpu = providers == "cpu" or (
        providers == "auto" and "CUDAExecutionProvider" not in ort.get_available_providers()
    )
    int8 = manifest.int8
    usable = int8 is not None and int8.worthwhile and (folder / int8.file).exists()
    return "int8" if cpu and usable else "fp32"


def _only(nodes: Sequence[Any], what: str, manifest: Manifest) -> Any:
    if len(nodes) != 1:
        names = ", ".join(node.name for node in nodes)
        raise ModelError(f"model {manifest.name} must have one {what}, it has {len(nodes)}: {names}")
    return nodes[0]


def _check_shapes(source: Sequence[Any], sink: Sequence[Any], manifest: Manifest) -> None:
    """Compare the file's shapes with the manifest's; a dimension that the file leaves open fits anything."""
    size = manifest.embedding_size // (2 if manifest.flip == "concat" else 1)
    for what, found, wanted in (
        ("input", source, (None, *manifest.input[1:])),
        ("output", sink, (None, size)),
    ):
        fits = len(found) == len(wanted) and all(
            w is None or not isinstance(f, int) or f == w for f, w in zip(found, wanted, strict=True)
        )
        if not fits:
            raise ModelError(
                f"model {manifest.name}: the file's {what} is {list(found)}, its manifest says "
                f"{['batch', *wanted[1:]]} (flip rule {manifest.flip!r})"
            )
