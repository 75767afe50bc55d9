"""Backbones by name."""

from collections.abc import Callable

from torch import nn

from training.backbones.sphereface import UNITS, SphereFaceNet
from training.config import BackboneConfig
from training.errors import TrainingError

_BUILDERS: dict[str, Callable[[BackboneConfig, tuple[int, int]], nn.Module]] = {
    name: lambda config, size, units=units: SphereFaceNet(  # type: ignore[misc]
        units,
        width=config.width,
        batch_norm=config.batch_norm,
        embedding_size=config.embedding_size,
        input_size=size,
    )
    for name, units in UNITS.items()
}
_BUILDERS["dlib29"] = lambda config, size: _dlib29()


def _dlib29() -> nn.Module:
    from training.backbones.dlib29 import DlibBackbone  # reads the weights of an optional package

    return DlibBackbone.pretrained()


def names() -> list[str]:
    """Every backbone that a recipe can name."""
    return sorted(_BUILDERS)


def build(config: BackboneConfig, input_size: tuple[int, int]) -> nn.Module:
    """A freshly initialised backbone for (H, W) = `input_size` pixels."""
    try:
        builder = _BUILDERS[config.name]
    except KeyError:
        raise TrainingError(f"unknown backbone {config.name!r}; choose from {', '.join(names())}") from None
    return builder(config, input_size)
