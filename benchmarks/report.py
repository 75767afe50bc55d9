"""The benchmarks' JSON as one Markdown table and plots."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.stats import exponent

HEADLINE = {
    "detector_vs_facenet_pytorch": ("detector", "detector_vs_facenet_pytorch_our_defaults"),
    "detector_vs_facenet_pytorch_equal_settings": ("detector", "detector_vs_facenet_pytorch_equal_settings"),
    "detector_vs_facenet_pytorch_one_thread": ("detector", "detector_vs_facenet_pytorch_one_thread"),
    "detector_vs_mtcnn_tf": ("detector", "detector_vs_mtcnn_tf_our_defaults"),
    "detector_vs_mtcnn_tf_equal_settings": ("detector", "detector_vs_mtcnn_tf_equal_settings"),
    "detector_match_rate": ("detector", "detector_match_rate"),
    "detector_landmark_distance_px_mean": ("detector", "detector_landmark_distance_px_mean"),
    "pipeline_vs_face_recognition": ("pipeline", "pipeline_vs_face_recognition"),
    "service_vs_pipeline_c16": ("service", "service_vs_pipeline_c16"),
    "service_vs_processes_c16": ("service", "service_vs_processes_c16"),
    "p99_over_p50_c16": ("service", "p99_over_p50_c16"),
    "errors_c16": ("service", "errors_c16"),
    "goodput_over_capacity": ("service", "goodput_over_capacity"),
    "rss_growth_mb": ("service", "rss_growth_mb"),
    "training_loader_share": ("training", "training_loader_share"),
    "training_loop_over_bare": ("training", "training_loop_over_bare"),
    "training_loop_over_bare_two": ("training", "training_loop_over_bare_two"),
    "training_two_over_one": ("training", "training_two_over_one"),
}
"""Which part each of the figures at the top of the JSON comes from, and what it is called there."""

_ROWS = (
    ("Detector against facenet-pytorch, ours at its defaults", "detector_vs_facenet_pytorch", "≥ 4"),
    ("… at equal settings", "detector_vs_facenet_pytorch_equal_settings", ""),
    ("… at equal settings, one thread each", "detector_vs_facenet_pytorch_one_thread", ""),
    ("Detector against `mtcnn` on TensorFlow, ours at its defaults", "detector_vs_mtcnn_tf", "≥ 8"),
    ("… at equal settings", "detector_vs_mtcnn_tf_equal_settings", ""),
    ("facenet-pytorch's faces that ours has too, IoU ≥ 0.9, equal settings", "detector_match_rate", "≥ 0.99"),
    ("… their landmarks apart, in pixels", "detector_landmark_distance_px_mean", "≤ 1"),
    ("Pipeline against `face_recognition`, faces per second", "pipeline_vs_face_recognition", "≥ 6"),
    ("Service at 16 clients over the bare pipeline", "service_vs_pipeline_c16", "≥ 0.85"),
    ("… over the bare pipeline in a process a core", "service_vs_processes_c16", ""),
    ("… p99 over p50", "p99_over_p50_c16", "≤ 3"),
    ("… errors", "errors_c16", "0"),
    ("Answered at 4 times the capacity over answered below it", "goodput_over_capacity", "≥ 0.9"),
    ("Growth of the service's memory, MB", "rss_growth_mb", "< 50"),
    ("Training: loading and augmentation over a step of the network", "training_loader_share", "< 0.1"),
    ("… images per second of the loop over the network alone, one process", "training_loop_over_bare", ""),
    ("… two processes", "training_loop_over_bare_two", ""),
    ("… of the loop in two processes over one", "training_two_over_one", ""),
)

_INTRO = """# Benchmarks

`make bench` writes this page, its plots and `benchmarks/results/latest.json`; it first builds the other
projects an environment of their own, `.venv-peers`. A ratio above 1 means that SphereID is faster. Times
depend on the machine, ratios less so: whoever is compared runs in a process of its own on the same cores and
takes turns with the others, and a ratio is one of medians, with the 10th to 90th percentile of the ratios
turn by turn as its spread. `make bench BENCH="service --full"` measures one part, the memory over 20,000
requests.
"""

_NOTES = """
- **Equal settings**: all three detectors look for faces from 20 pixels, the default of the others. **Our
  defaults**: faces from 32 pixels or 1/32 of the shorter side, and a second look at close-ups; what the
  service does. Two threads each, unless it says one. The match rate is at equal settings.
- **Pipeline**: detect, align and embed one face: two processes of one thread each on either side.
  `face_recognition` at its defaults: HOG detector, one encoding.
- **Service**: its processes at their defaults, 250×250 portraits, a gallery of 100 identities; the load
  generator is a process of its own on the same cores and takes its share of them.
- **Bare pipeline**: decodes, detects, aligns and embeds, with a thread a core in one process; or in a process
  a core, which share nothing and do nothing else.
- **Memory**: requests of 90 to 2,000 pixels a side and 1 to 16 faces; growth is counted after the first
  tenth.
"""

_TRAINING_NOTE = """
- **Training**: the real command on made-up faces against forward, backward and update of its
  backbone alone, one computing thread a process. Beside loading and augmentation, whose processor time has a
  row of its own, the loop computes the losses of head and teacher and the mean weights; two processes also
  exchange gradients.
"""

_GROWTH = """

An exponent is the slope of time over size in logarithms over the last three points: 1 is linear, less is
better. Large photographs are searched on a reduced copy, for the smallest face sought grows with them. A
gallery's exact search reads every embedding once: where it no longer fits the processor's cache, the step
from one size to the next is steeper than linear, and linear again beyond.
"""


_CLIENTS = """
More clients than cores wait for each other: the time of one answer grows with their number, the answers per
second stay. The memory is that of all the service's processes together, a page that they share counted once.
"""


def table(result: dict[str, Any]) -> str:
    """The headline figures, one row each."""
    lines = ["| what | measured | spread | asked |", "|---|---|---|---|"]
    for text, key, asked in _ROWS:
        if key in result:
            low_high = result.get(f"{key}_p10_p90")
            spread = f"{low_high[0]:g} – {low_high[1]:g}" if low_high else ""
            lines.append(f"| {text} | {_text(result[key])} | {spread} | {asked} |")
    return "\n".join(lines)


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def write(result: dict[str, Any], docs: Path) -> None:
    """`benchmarks.md` and its plots below `docs`."""
    about = result["machine"]
    lines = [
        _INTRO,
        f"Last run {about['date']} on {about['cores_used']} cores of {about['processor']}, "
        f"Python {about['python']}, ONNX Runtime {about['onnxruntime']}; {_versions(result)}.\n",
        table(result),
        _NOTES + (_TRAINING_NOTE.lstrip() if "training_loop_over_bare" in result else ""),
    ]
    result = {**result, "growth": _growth(result)} if "growth" in result else result
    drawings: dict[str, tuple[str, Callable[[Any, dict[str, Any]], None]]] = {
        "detector": ("Time of one image, by detector", _draw_detector),
        "service": ("The service by number of clients, and its memory over many requests", _draw_service),
        "growth": ("Time and memory as the input grows", _draw_growth),
    }
    for part, (title, draw) in drawings.items():
        if part in result:
            name = f"img/bench-{part}.svg"
            _plot(docs / name, draw, result[part])
            lines.append(f"![{title}]({name})\n")
    if "growth" in result:
        lines.append(_growth_text(result["growth"]))
    (docs / "benchmarks.md").write_text("\n".join(lines).rstrip() + "\n")


def _versions(result: dict[str, Any]) -> str:
    found: dict[str, str] = {}
    for part in ("detector", "pipeline"):
        found |= result.get(part, {}).get("versions", {})
    said = dict.fromkeys(
        text
        for name, text in found.items()
        if name not in ("sphereid_equal_settings", "sphereid_our_defaults")
    )
    images = {part["images"] for part in result.values() if isinstance(part, dict) and "images" in part}
    return "; ".join([*said, f"images: {', '.join(sorted(images))}"])


def _watched(result: dict[str, Any]) -> dict[str, Any]:
    """By number of clients, what was measured of identify together with the service's memory."""
    identify = result.get("service", {}).get("identify", {})
    return {clients: each for clients, each in identify.items() if "peak_mb" in each}


def _growth(result: dict[str, Any]) -> dict[str, Any]:
    """All that was measured in several sizes; the clients are in the part of the service."""
    watched = _watched(result)
    if not watched:
        return dict(result["growth"])
    clients, times = [int(count) for count in watched], [each["p50_ms"] for each in watched.values()]
    series = {
        "what": "clients that ask at once",
        "sizes": clients,
        "ms": times,
        "peak_mb": [each["peak_mb"] for each in watched.values()],
        "exponent": exponent(clients, times),
    }
    return {**result["growth"], "clients": series}


def _growth_text(growth: dict[str, Any]) -> str:
    lines = [
        "| grows with | from | to | time, ms | peak memory, MB | exponent |",
        "|---|---|---|---|---|---|",
    ]
    for series in (value for value in growth.values() if isinstance(value, dict)):
        sizes, times, peaks = series["sizes"], series["ms"], series["peak_mb"]
        lines.append(
            f"| {series['what']} | {sizes[0]:g} | {sizes[-1]:g} | {times[0]:.3g} → {times[-1]:.3g} "
            f"| {peaks[0]:.0f} → {peaks[-1]:.0f} | {series['exponent']:.2f} |"
        )
    return "\n".join(lines) + _GROWTH + (_CLIENTS if "clients" in growth else "")


def _plot(path: Path, draw: Callable[[Any, dict[str, Any]], None], part: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    style = {
        "svg.hashsalt": "sphereid", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    }  # fmt: skip
    with mpl.rc_context(style):
        figure = pyplot.figure(figsize=(9, 3), layout="constrained")
        draw(figure, part)
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)


def _draw_detector(figure: Any, part: dict[str, Any]) -> None:
    names = {
        "sphereid_our_defaults": "SphereID, defaults",
        "sphereid_equal_settings": "SphereID, equal settings",
        "facenet_pytorch": "facenet-pytorch",
        "mtcnn_tf": "mtcnn, TensorFlow",
    }
    titles = {"median_ms": "LFW image, ms", "median_ms_of_9_people": "picture of 9 people, ms"}
    for axes, (key, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        bars = axes.barh(
            list(names.values())[::-1], [part[key][name] for name in names][::-1], color="#3b6ea5"
        )
        axes.bar_label(bars, fmt="%.0f", padding=3)
        axes.set_title(title)
        axes.margins(x=0.15)


def _draw_service(figure: Any, part: dict[str, Any]) -> None:
    rate, latency, memory = figure.subplots(1, 3)
    clients = [int(count) for count in part["identify"]]
    for kind in ("identify", "verify"):
        rate.plot(clients, [each["per_second"] for each in part[kind].values()], "o-", label=kind)
    rate.axhline(part["bare_images_per_second"], color="gray", ls="--", label="bare pipeline, images")
    rate.set_ylim(bottom=0)
    for percentile in ("p50_ms", "p95_ms", "p99_ms"):
        values = [each[percentile] for each in part["identify"].values()]
        latency.plot(clients, values, "o-", label=percentile.removesuffix("_ms"))
    latency.set_yscale("log")
    for axes, title in ((rate, "requests per second"), (latency, "identify, ms")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(clients, [str(count) for count in clients])
        axes.set_xlabel("clients")
        axes.set_title(title)
        axes.legend(frameon=False)
    resident = part["rss_mb_by_part"]
    step = part["rss_requests"] // len(resident)
    memory.plot([step * (i + 1) for i in range(len(resident))], resident)
    memory.set_ylim(0, 1.2 * max(resident))
    memory.set_xlabel("requests")
    memory.set_title("resident memory, MB")


def _draw_growth(figure: Any, part: dict[str, Any]) -> None:
    series = [value for value in part.values() if isinstance(value, dict)]
    rows = -(-len(series) // 3)
    figure.set_figheight(3 * rows)
    drawn = figure.subplots(rows, -(-len(series) // rows), squeeze=False).flat
    for axes, each in zip(drawn, series, strict=False):
        axes.loglog(each["sizes"], each["ms"], "o-", label="time, ms")
        axes.loglog(
            each["sizes"], [max(peak, 0.1) for peak in each["peak_mb"]], "s:", label="peak memory, MB"
        )
        axes.set_xlabel(each["what"])
        axes.legend(frameon=False)
