"""What a recipe costs: training images per second of processor time, for comparing on a busy machine."""

import time
from dataclasses import dataclass

import torch

from training import backbones
from training.config import Config
from training.data.augment import view_size


@dataclass(frozen=True, slots=True)
class Speed:
    """images_per_cpu_second: forward, backward and update on one thread. parameters, multiply_adds: of the
    backbone, for one image."""

    images_per_cpu_second: float
    parameters: int
    multiply_adds: int


def measure_speed(config: Config, *, batch: int = 64, repeats: int = 3) -> Speed:
    """Time steps of the recipe's backbone on one thread; the best of `repeats` after one to warm up.

    Processor time, not wall time: what other programs do matters little.
    """
    size = view_size(config.data.template, config.data.input_pool)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = backbones.build(config.backbone, size)
    pixels = torch.randn(batch, 3, *size)
    if config.engine.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        pixels = pixels.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    best = float("inf")
    for attempt in range(repeats + 1):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=config.engine.precision == "bf16"):
            output = network(pixels)
        optimizer.zero_grad()
        output.float().square().mean().backward()
        optimizer.step()
        if attempt:
            best = min(best, time.process_time() - start)
    return Speed(
        images_per_cpu_second=batch / best,
        parameters=sum(p.numel() for p in network.parameters()),
        multiply_adds=backbones.multiply_adds(network, size),
    )
