"""Run the benchmarks and write `benchmarks/results/latest.json`, `docs/benchmarks.md` and its plots.

    python -m benchmarks                      everything (`make bench` also builds the peers' environment)
    python -m benchmarks detector service     these parts; the JSON keeps what it holds of the others
    python -m benchmarks --full               20,000 requests for the memory instead of 4,000
    python -m benchmarks --render             only write the document anew from the JSON

Each part also runs alone and prints its JSON: `python -m benchmarks.detector`, `.pipeline`, `.service`,
`.growth`.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import detector, growth, pipeline, report, service, training
from benchmarks.images import DATA, ROOT
from benchmarks.processes import PEERS, cores

RESULTS = ROOT / "benchmarks" / "results" / "latest.json"


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")),
        platform.processor(),
    )  # fmt: skip
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "cores_used": len(cores()),
        "python": platform.python_version(),
        "onnxruntime": version("onnxruntime"),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def headline(parts: dict[str, Any]) -> dict[str, Any]:
    """The figures that were asked for, under the names that were asked for."""
    found: dict[str, Any] = {}
    for key, (part, name) in report.HEADLINE.items():
        if name in parts.get(part, {}):
            found[key] = parts[part][name]
            if (spread := parts[part].get(f"{name}_p10_p90")) is not None:
                found[f"{key}_p10_p90"] = spread
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="detector, pipeline, service, growth, training; default: all"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the shared face data")
    parser.add_argument("--peers", type=Path, default=PEERS, help="virtual environment with the peers")
    parser.add_argument("--full", action="store_true", help="20,000 requests for the memory")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the document anew")
    given = parser.parse_args()
    data, peers = given.data.absolute(), given.peers.absolute()
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "detector": lambda: detector.measure(data, peers),
        "pipeline": lambda: pipeline.measure(data, peers),
        "service": lambda: service.measure(data, requests=20_000 if given.full else 4_000),
        "growth": lambda: growth.measure(data),
        "training": training.measure,
    }
    if unknown := set(given.parts) - set(measures):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(measures)}")
    parts: dict[str, Any] = {}
    if RESULTS.exists():
        known = json.loads(RESULTS.read_text())
        parts = {name: known[name] for name in measures if name in known}
        about = known["machine"]
    if not given.render:
        about = machine()
        for name in given.parts or measures:
            parts[name] = measures[name]()
    elif not parts:
        parser.error(f"there is nothing to render: {RESULTS} does not exist")
    result = {
        **headline(parts),
        "machine": about,
        **{name: parts[name] for name in measures if name in parts},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    report.write(result, ROOT / "docs")
    print(report.table(result))


if __name__ == "__main__":
    main()
