"""From a checkpoint to a model folder that the service loads: ONNX, manifest, card."""

import copy
import hashlib
import io
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from sphereid.faces.manifest import Calibration, Manifest, Metric, save_manifest
from sphereid.faces.quantization.prelu import prelu_as_maximum
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from sphereid_training.config import Config
from sphereid_training.data.augment import VIEWS, view_size
from sphereid_training.errors import TrainingError
from sphereid_training.loop import checkpoint
from sphereid_training.loop.objective import Objective

OPSET = 18
PARITY_LIMIT = 1e-4
LICENSE = "research use only"


class Deployed(nn.Module):
    """The network as served: full-size crops in, pooled first where the backbone was trained on pooled
    ones. level: applied to the backbone's embeddings (`sphereid_training.export.leveling`)."""

    def __init__(self, backbone: nn.Module, pool: int, level: nn.Module | None = None) -> None:
        super().__init__()
        self.pool: nn.Module = nn.AvgPool2d(pool) if pool > 1 else nn.Identity()
        self.backbone = backbone
        self.level = level or nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        embedding: Tensor = self.level(self.backbone(self.pool(pixels)))
        return embedding


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export made. parity: largest absolute difference to torch by batch size."""

    folder: Path
    manifest: Manifest
    parity: dict[int, float]
    megabytes: float


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode with every batch norm folded into the convolution or linear layer before
    it."""
    network = copy.deepcopy(network).eval()
    for parent in list(network.modules()):
        before: nn.Module | None = None
        before_name = ""
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
                setattr(parent, before_name, fuse_conv_bn_eval(before, child))
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.BatchNorm1d) and isinstance(before, nn.Linear):
                setattr(parent, before_name, fuse_linear_bn_eval(before, _affine(child)))
                setattr(parent, name, nn.Identity())
            before, before_name = child, name
    return network


def _affine(norm: nn.BatchNorm1d) -> nn.BatchNorm1d:
    """Torch's fusion of linear layers wants weights and biases; a batch norm without them has ones and
    zeros."""
    if norm.affine:
        return norm
    full = nn.BatchNorm1d(norm.num_features, eps=norm.eps).eval()
    full.load_state_dict({**full.state_dict(), **norm.state_dict()})
    return full


def to_onnx(network: nn.Module, size: tuple[int, int], metadata: dict[str, str]) -> bytes:
    """ONNX bytes of a network on (N, 3, H, W) float32 `pixels`, any N, giving (N, D) `embedding`.

    PReLU is written as a maximum where its slopes allow it.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, *size),),
            buffer,  # type: ignore[arg-type]  # a buffer is taken, the annotation lags behind
            dynamo=False,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=["embedding"],
            dynamic_axes={"pixels": {0: "batch"}, "embedding": {0: "batch"}},
        )
    model = prelu_as_maximum(onnx.load_from_string(buffer.getvalue()))
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def measure_parity(
    model: bytes, network: nn.Module, size: tuple[int, int], batches: tuple[int, ...] = (1, 7)
) -> dict[int, float]:
    """Largest absolute difference between ONNX Runtime and torch on random pixels, by batch size."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(7)
    differences = {}
    for batch in batches:
        pixels = torch.rand(batch, 3, *size, generator=generator) * 2 - 1
        with torch.no_grad():
            expected = network(pixels).numpy()
        found = session.run(None, {"pixels": pixels.numpy()})[0]
        differences[batch] = float(np.abs(found - expected).max())
    return differences


def network_of(state: checkpoint.State, level: nn.Module | None = None) -> tuple[Deployed, tuple[int, int]]:
    """The averaged network of a checkpoint in evaluation mode, `level` after it, and the (H, W) of the crops
    that it wants."""
    config: Config = state.config
    objective = Objective(config, state.classes, state.teacher_size)
    # A released checkpoint may leave out the head.
    missing, unexpected = objective.load_state_dict(state.ema, strict=False)
    lacking = [name for name in missing if name.startswith("backbone.")]
    if lacking or unexpected:
        raise TrainingError(
            f"the checkpoint does not fit its own recipe: {', '.join((lacking + unexpected)[:3])}"
        )
    network = Deployed(objective.backbone, config.data.input_pool, level).eval()
    return network, view_size(config.data.template, 1)


def export(
    state: checkpoint.State,
    folder: Path,
    *,
    name: str,
    training_data: str,
    calibration: Calibration | None,
    command: str,
    version: str | None = None,
    flip: str = "sum",
    level: nn.Module | None = None,
) -> Exported:
    """Write model.onnx and manifest.json into `folder`, replacing what lies there.

    level: applied to the backbone's embeddings. Raises TrainingError, with the folder untouched, when ONNX
    and torch differ by more than 1e-4.
    """
    network, size = network_of(state, level)
    folded = fold_batch_norm(network)
    template = VIEWS[state.config.data.template]
    metadata = {
        "mean": "127.5",
        "scale": "1/128",
        "color": "rgb",
        "template": template,
        "flip": flip,
        "license": LICENSE,
        "backbone": state.config.backbone.name,
        "samples_seen": str(state.samples),
    }
    model = to_onnx(folded, size, metadata)
    parity = measure_parity(model, network, size)
    worst = max(parity.values())
    if worst > PARITY_LIMIT:
        raise TrainingError(
            f"ONNX and torch differ by {worst:.1e} (limit {PARITY_LIMIT:.0e}); nothing was written"
        )
    now = datetime.now(UTC)
    manifest = Manifest.model_validate(
        {
            "name": name,
            "version": version or now.strftime("%Y.%m.%d.%H%M"),
            "sha256": hashlib.sha256(model).hexdigest(),
            "input": (1, 3, *size),
            "template": template,
            "embedding_size": state.config.backbone.embedding_size * (2 if flip == "concat" else 1),
            "flip": flip,
            "training_data": training_data,
            "license": LICENSE,
            "metrics": tuple(
                Metric(name=f"largest difference ONNX to torch, batch {batch}", value=value, command=command)
                for batch, value in parity.items()
            ),
            "calibration": calibration,
            "date": now.date(),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "model.onnx.tmp"
    temporary.write_bytes(model)
    temporary.replace(folder / "model.onnx")
    save_manifest(manifest, folder)
    return Exported(folder, manifest, parity, len(model) / 1e6)


def release_checkpoint(state: checkpoint.State, path: Path) -> float:
    """Write the averaged weights as float16 without optimizer: what a later run's `init_from` needs.
    Returns MB."""
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.ema.items()}
    small = checkpoint.State(
        config=state.config,
        classes=state.classes,
        teacher_size=state.teacher_size,
        step=state.step,
        samples=state.samples,
        progress=state.progress,
        seconds=state.seconds,
        objective={},
        ema=half,
        optimizer={},
        rng=torch.empty(0, dtype=torch.uint8),
    )
    checkpoint.save(path, small)
    return path.stat().st_size / 1e6
