"""What loading and augmentation cost beside the network: the loop may lose a tenth to them at most.

    python -m benchmarks.training [RECIPE]

Both in processor time on one thread: made-up images through the recipe's augmentation to a batch of input,
and forward, backward and update of the backbone. In training the loader has a thread of its own, so this is
an upper bound of what it costs.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.images import ROOT
from benchmarks.stats import median

RECIPE = ROOT / "training" / "recipes" / "sphereface20-w32.yaml"


def measure(recipe: Path = RECIPE, *, batch: int = 64, repeats: int = 5) -> dict[str, Any]:
    """See the module's text."""
    from training.config import load
    from training.data.augment import augment
    from training.data.loader import to_pixels
    from training.speed import measure_speed

    config = load(recipe, [])
    rng = np.random.default_rng(0)
    canvases = rng.integers(0, 256, (batch, 128, 128, 3), np.uint8)
    taken = []
    for _ in range(repeats + 1):
        began = time.thread_time()
        to_pixels(augment(canvases, config.augment, config.data.template, config.data.input_pool, rng))
        taken.append((time.thread_time() - began) / batch * 1e3)
    step = 1e3 / measure_speed(config, batch=batch).images_per_cpu_second
    loader = median(taken[1:], 4)
    return {
        "recipe": recipe.stem,
        "loader_ms_an_image": loader,
        "step_ms_an_image": round(step, 3),
        "training_loader_share": round(loader / step, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path, nargs="?", default=RECIPE, help="YAML recipe")
    print(json.dumps(measure(parser.parse_args().recipe), indent=2))


if __name__ == "__main__":
    main()
