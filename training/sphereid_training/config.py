"""A run's configuration: typed dataclasses, read from one YAML recipe, changed by `key=value` overrides."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from sphereid_training.errors import TrainingError

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What is learned from.

    store: folder made by `python -m training prepare`.
    input_pool: 1 trains on 112×96 pixels, 2 on their 2×2 means (56×48): a quarter of the cost.
    template: the part of the 128×128 canvas that the network sees; `upper` and `wide` are patches for an
        ensemble. The manifest names it, so that the service aligns to it.
    group_weights: how often an image of a group is seen per epoch (1 when not named).
    min_images_per_class: identities with fewer images teach by distillation only.
    holdout_percent: share of identities kept out of training for verification and calibration.
    """

    __pydantic_config__ = _STRICT

    store: str = "runs/store"
    template: Literal["112x96", "112x96-upper", "112x96-wide", "112x112", "150x150"] = "112x96"
    input_pool: int = 1
    group_weights: dict[str, float] = field(default_factory=dict)
    min_images_per_class: int = 5
    holdout_percent: int = 8


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Augmentation of one aligned face. Lengths are pixels of the 112-pixel face; p_* are probabilities.

    p_cut: of a black band along one edge, as where a photograph ends inside the face.
    p_blend: of a mixture with another face, which belongs to nobody and is described by the teacher anew
        (distill.live).
    """

    __pydantic_config__ = _STRICT

    flip: bool = True
    shift: float = 4.0
    scale: float = 0.08
    rotation_degrees: float = 5.0
    p_downscale: float = 0.2
    downscale_min: float = 0.25
    p_blur: float = 0.1
    p_grey: float = 0.1
    brightness: float = 0.2
    contrast: float = 0.2
    p_erase: float = 0.1
    p_cut: float = 0.0
    p_blend: float = 0.0


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    """Which network maps pixels to embeddings. `python -m training train --help` lists the names.

    map_pool: 2 averages the last map of a SphereFace network 2×2 before its fully connected layer, which
        then has the size of one trained at half the resolution (data.input_pool=2) and can go on from it.
    """

    __pydantic_config__ = _STRICT

    name: str = "sphereface20"
    width: int = 64
    batch_norm: bool = False
    embedding_size: int = 512
    map_pool: int = 1


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """The margin loss over identities. `options` are the head's own (s, m, …); weight 0 leaves it out.

    warmup: share of the run over which the margin grows linearly from 0.
    """

    __pydantic_config__ = _STRICT

    name: str = "a_softmax"
    weight: float = 1.0
    grad_mode: Literal["exact", "normalized", "detached"] = "exact"
    warmup: float = 0.0
    options: dict[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DistillConfig:
    """Learning from cached teacher descriptors.

    weight: of the regression 1 − cosine + ½ squared error of a linear map of the embedding to the descriptor.
    relation: of the mean squared difference between the student's and the teacher's cosines in a batch.
    center: share of their mean that is subtracted from the descriptors first. All of it (1) spreads strangers
        around a cosine of 0. Less leaves embeddings a part in common, so that their length says how good a
        face is, which tells people apart better; a batch norm over embeddings must be frozen for it.
    live: folder of the model that the store's descriptors are of (`prepare --teacher`), to describe what is
        not in the store: blended faces. On the CPU in int8, where its manifest says that this is as good.
    """

    __pydantic_config__ = _STRICT

    weight: float = 0.0
    relation: float = 0.0
    center: float = 1.0
    live: str = ""


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """How the weights move.

    name: muon is for the backbone's matrices and takes adamw for the rest. momentum: of sgd.
    samples: images to see in all. deadline_minutes, when above 0, replaces it: the learning rate reaches its
    end that many minutes after the (re)start, however busy the machine is.
    warmup: steps of linear warm-up. milestones: shares of the run at which `step` divides the rate by ten.
    batch_size: images a step, over all processes and accumulated micro-batches together.
    """

    __pydantic_config__ = _STRICT

    name: Literal["sgd", "adamw", "muon"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "poly", "step"] = "cosine"
    milestones: tuple[float, ...] = (0.57, 0.86)
    warmup: int = 200
    samples: int = 1_000_000
    deadline_minutes: float = 0.0
    batch_size: int = 128
    accumulate: int = 1
    clip: float = 5.0
    ema: float = 0.999


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How the run is carried out.

    freeze_norm: share of the run after which batch norm uses its running statistics, so that the loss sees
    the network as it will be deployed; 1 never does, 0 is for going on from weights that are good already.
    """

    __pydantic_config__ = _STRICT

    seed: int = 1
    freeze_norm: float = 1.0
    threads: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    checkpoint_seconds: float = 180.0
    evaluate_seconds: float = 600.0
    evaluation_pairs: int = 1000
    log_steps: int = 20
    tensorboard: bool = True
    plateau_steps: int = 3000


@dataclass(frozen=True, slots=True)
class Config:
    """One run. `init_from` names a checkpoint whose weights are taken over, with a fresh optimizer."""

    __pydantic_config__ = _STRICT

    name: str = "run"
    init_from: str = ""
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)


_ADAPTER = TypeAdapter(Config)


def from_dict(values: dict[str, Any]) -> Config:
    """Check plain values against the types above.

    Raises TrainingError with the first wrong key and what was expected there.
    """
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TrainingError(f"configuration: {where}: {first['msg']}") from None


def to_dict(config: Config) -> dict[str, Any]:
    """Plain values, as written into checkpoints and run folders."""
    return asdict(config)


def load(recipe: Path | None, overrides: list[str] | None = None) -> Config:
    """Read a YAML recipe (None: all defaults) and apply overrides such as `optimizer.lr=0.05`."""
    values: dict[str, Any] = {}
    if recipe is not None:
        try:
            values = yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}
        except FileNotFoundError:
            raise TrainingError(
                f"no recipe at {recipe}; the shipped ones are in training/sphereid_training/recipes/"
            ) from None
        except yaml.YAMLError as error:
            raise TrainingError(f"{recipe} is not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(values, dict):
            raise TrainingError(f"{recipe} must hold a mapping of keys to values")
    return from_dict(override(values, overrides or []))


def override(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """A copy of `values` with dotted `key=value` settings put in; values are read as YAML scalars or
    lists."""
    result = {k: dict(v) if isinstance(v, dict) else v for k, v in values.items()}
    for text in overrides:
        key, equals, raw = text.partition("=")
        if not equals or not key.strip():
            raise TrainingError(
                f"override {text!r} is not of the form key=value, for example optimizer.lr=0.05"
            )
        node = result
        *parents, leaf = key.strip().split(".")
        for parent in parents:
            child = node.get(parent)
            node[parent] = dict(child) if isinstance(child, dict) else {}
            node = node[parent]
        try:
            node[leaf] = yaml.safe_load(raw)
        except yaml.YAMLError:
            raise TrainingError(f"override {text!r}: {raw!r} is not a YAML value") from None
    return result
