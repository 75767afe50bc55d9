"""The plots of a report, as SVG text: self-contained, without fonts or scripts from elsewhere."""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sphereid_training.evaluation.verification import intervals

Array = NDArray[np.floating[Any]]

_INK, _GENUINE, _IMPOSTOR, _FAINT = "#1f2933", "#0b7285", "#c2410c", "#9aa5b1"
_MANY = (_GENUINE, _IMPOSTOR, "#5f3dc4", "#2b8a3e", "#a61e4d", "#846358")


class _Figure:
    """Holds the SVG once its `with` block is left."""

    svg: str = ""


@contextmanager
def _figure(title: str, x: str, y: str) -> Any:
    import matplotlib

    matplotlib.use("svg", force=False)
    from matplotlib.figure import Figure

    made = _Figure()
    # Texts stay texts, which a reader can search; ids differ between the plots of one page.
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,
        "font.family": "sans-serif",
        "font.size": 10,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.set(title=title, xlabel=x, ylabel=y)
        axes.grid(visible=True, color="#e4e7eb", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        yield axes, made
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    made.svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)


def roc_points(genuine: Array, impostor: Array, most: int = 600) -> tuple[Array, Array]:
    """(K,) false accept rates, rising, and the highest true accept rate at each; accept means similarity ≥
    threshold.

    One point per distinct impostor similarity, at most about `most`, evenly on the logarithm of the rate.
    """
    high = np.sort(impostor)[::-1]
    count = len(high)
    last = np.append(np.flatnonzero(high[1:] < high[:-1]), count - 1)
    if len(last) > most:
        wanted = np.geomspace(1, count, most)
        last = np.unique(last[np.clip(np.searchsorted(last + 1, wanted), 0, len(last) - 1)])
    # The threshold may fall until the next impostor would be accepted.
    following = np.append(high, -np.inf)[last + 1]
    accepted = len(genuine) - np.searchsorted(np.sort(genuine), following, side="right")
    return (last + 1) / count, accepted / len(genuine)


def roc(genuine: Array, impostor: Array, marks: Mapping[float, float]) -> str:
    """TAR over FAR on a logarithmic axis, with the 95 % interval. marks: FAR to TAR of the table."""
    far, tar = roc_points(genuine, impostor)
    with _figure("ROC", "false accept rate (log)", "true accept rate") as (axes, made):
        low, high = intervals(np.rint(tar * len(genuine)).astype(np.int64), len(genuine))
        axes.fill_between(far, low, high, step="post", color=_GENUINE, alpha=0.15, linewidth=0)
        axes.step(far, tar, where="post", color=_GENUINE, label="TAR, 95 % interval")
        if marks:
            axes.plot(list(marks), list(marks.values()), "o", color=_IMPOSTOR, label="table")
        axes.set_xscale("log")
        axes.set_xlim(0.8 / len(impostor), 1)
        axes.set_ylim(max(0.0, float(low.min()) - 0.02), 1.01)
        axes.legend(loc="lower right", frameon=False)
    return str(made.svg)


def histograms(kinds: Mapping[str, Array], thresholds: Mapping[str, float]) -> str:
    """Score densities of two kinds of comparisons, with thresholds as lines."""
    values = np.concatenate([v[np.isfinite(v)] for v in kinds.values()])
    edges = np.linspace(values.min(), values.max() + 1e-6, 61)
    with _figure("Scores", "similarity (cosine)", "density") as (axes, made):
        for (name, scores), color in zip(kinds.items(), (_GENUINE, _IMPOSTOR), strict=False):
            finite = scores[np.isfinite(scores)]
            label = f"{name} ({len(scores):,})"
            axes.hist(finite, edges, density=True, histtype="stepfilled", color=color, alpha=0.35)
            axes.hist(finite, edges, density=True, histtype="step", color=color, label=label)
        _mark(axes, thresholds)
        axes.legend(loc="upper left", frameon=False)
    return str(made.svg)


def _mark(axes: Any, thresholds: Mapping[str, float]) -> None:
    """Thresholds as upright lines with their names."""
    for name, value in thresholds.items():
        if np.isfinite(value):
            axes.axvline(value, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)))
            axes.annotate(
                name, (value, 1), xycoords=("data", "axes fraction"), rotation=90, fontsize=8,
                xytext=(2, -4), textcoords="offset points", va="top", color=_INK,
            )  # fmt: skip


def false_match_rates(similarity: Array, rates: Mapping[str, Array], thresholds: Mapping[str, float]) -> str:
    """One falling curve a name, the rates logarithmic. thresholds: calibrated rate to similarity."""
    title = "False match rate of two strangers"
    with _figure(title, "threshold (cosine)", "FMR (log)") as (axes, made):
        for index, (name, values) in enumerate(rates.items()):
            shown = values > 0
            axes.plot(
                similarity[shown], values[shown], color=_MANY[index % len(_MANY)], linewidth=1.6,
                linestyle=("-", "--", ":")[index // len(_MANY) % 3], label=name,
            )  # fmt: skip
        axes.set_yscale("log")
        _mark(axes, {f"calibrated {name}": value for name, value in thresholds.items()})
        axes.legend(loc="lower left", frameon=False)
    return str(made.svg)


def curves(title: str, x: str, y: str, lines: Sequence[tuple[Array, Array]], *, log: bool = True) -> str:
    """Several trials' curves, thin, and their mean where they share their x values."""
    with _figure(title, x, y) as (axes, made):
        for xs, ys in lines:
            axes.plot(xs, ys, color=_FAINT, linewidth=0.8)
        if len({len(xs) for xs, _ in lines}) == 1:
            axes.plot(lines[0][0], np.mean([ys for _, ys in lines], axis=0), color=_GENUINE, linewidth=2)
        if log:
            axes.set_xscale("log")
    return str(made.svg)
