"""Backbones by name, and what they cost."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sphereid_training.config import BackboneConfig
from sphereid_training.errors import TrainingError
from sphereid_training.networks import iresnet, sphereface
from sphereid_training.networks.iresnet import IResNet
from sphereid_training.networks.mobilefacenet import MobileFaceNet
from sphereid_training.networks.sphereface import SphereFaceNet

Builder = Callable[[BackboneConfig, tuple[int, int]], nn.Module]


def _sphereface(config: BackboneConfig, size: tuple[int, int]) -> nn.Module:
    return SphereFaceNet(
        sphereface.UNITS[config.name],
        width=config.width,
        batch_norm=config.batch_norm,
        embedding_size=config.embedding_size,
        input_size=size,
        map_pool=config.map_pool,
    )


def _iresnet(config: BackboneConfig, size: tuple[int, int]) -> nn.Module:
    return IResNet(
        iresnet.UNITS[config.name],
        width=config.width,
        embedding_size=config.embedding_size,
        input_size=size,
    )


def _mobilefacenet(config: BackboneConfig, size: tuple[int, int]) -> nn.Module:
    return MobileFaceNet(width=config.width, embedding_size=config.embedding_size, input_size=size)


def _dlib29(config: BackboneConfig, size: tuple[int, int]) -> nn.Module:
    from sphereid_training.networks.dlib29 import DlibBackbone  # reads the weights of an optional package

    return DlibBackbone.pretrained()


_BUILDERS: dict[str, Builder] = {
    **dict.fromkeys(sphereface.UNITS, _sphereface),
    **dict.fromkeys(iresnet.UNITS, _iresnet),
    "mobilefacenet": _mobilefacenet,
    "dlib29": _dlib29,
}


def names() -> list[str]:
    """Every backbone that a recipe can name."""
    return sorted(_BUILDERS)


def build(config: BackboneConfig, input_size: tuple[int, int]) -> nn.Module:
    """A freshly initialized backbone for (H, W) = `input_size` pixels; IResNet and MobileFaceNet always have
    batch norm, dlib29 comes with its weights.

    Raises TrainingError for an unknown name.
    """
    try:
        builder = _BUILDERS[config.name]
    except KeyError:
        raise TrainingError(f"unknown backbone {config.name!r}; choose from {', '.join(names())}") from None
    return builder(config, input_size)


def describe(config: BackboneConfig) -> str:
    """The backbone in words, for a model's card."""
    if config.name == "dlib29":
        from sphereid_training.networks.dlib29 import CENTERED

        return (
            "dlib's 29-convolution residual network (King, 2017), its 128 outputs brought to length 1 and "
            f"{CENTERED:g} of their mean subtracted"
        )
    norm = "with batch norm" if config.batch_norm else "without batch norm"
    return f"{config.name} of width {config.width} {norm}, {config.embedding_size} outputs"


def multiply_adds(network: nn.Module, input_size: tuple[int, int]) -> int:
    """Multiply-accumulates of convolutions and linear layers for one (H, W) image, as papers count them.

    Works on the meta device, where nothing is computed.
    """
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += module.weight.numel()

    hooks = [
        m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    device = next(network.parameters()).device
    was_training = network.training
    try:
        network.eval()(torch.zeros(1, 3, *input_size, device=device))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return total
