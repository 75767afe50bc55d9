"""What a recipe costs: training images per second, of processor time for comparing on a busy machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sphereid_training import networks
from sphereid_training.config import Config
from sphereid_training.data.augment import view_size


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
    network = networks.build(config.backbone, size)
    taken = seconds_a_step(config, batch=batch, repeats=repeats, clock=time.process_time)
    return Speed(
        images_per_cpu_second=batch / min(taken),
        parameters=sum(p.numel() for p in network.parameters()),
        multiply_adds=networks.multiply_adds(network, size),
    )


def seconds_a_step(
    config: Config, *, batch: int, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Forward, backward and update of the recipe's backbone alone, on one thread and one batch that is there
    already: the `clock`'s seconds for each of `repeats` steps, after one to warm up."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = view_size(config.data.template, config.data.input_pool)
    network = networks.build(config.backbone, size)
    pixels = torch.randn(batch, 3, *size)
    if config.engine.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        pixels = pixels.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    taken = []
    for _ in range(repeats + 1):
        start = clock()
        with torch.autocast("cpu", torch.bfloat16, enabled=config.engine.precision == "bf16"):
            output = network(pixels)
        optimizer.zero_grad()
        output.float().square().mean().backward()
        optimizer.step()
        taken.append(clock() - start)
    return taken[1:]
