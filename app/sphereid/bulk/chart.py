"""Similarity histograms as an SVG picture, without a plotting library."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

WIDTH: Final = 860
_LEFT, _RIGHT, _TOP, _HEIGHT, _FOOT = 56, 20, 70, 240, 92
_MATED, _NON_MATED, _LIMIT = "#0072b2", "#d55e00", "#333333"  # apart for every kind of color vision
_STYLE = 'font-family="system-ui, sans-serif" font-size="13" fill="#222"'


def evaluation_svg(document: Mapping[str, Any]) -> str:
    """The histograms of an evaluation's `document`, with its thresholds and rates. Each group is drawn as a
    share of its own probes."""
    series = [
        ("same person (mated)", _MATED, document["histograms"]["mated"]),
        ("nearest other person (non-mated)", _NON_MATED, document["histograms"]["non_mated"]),
    ]
    thresholds = [("in force", document["threshold"]["value"])]
    if document["suggested"] is not None:
        thresholds.append(("suggested", document["suggested"]["threshold"]))
    edges = [edge for _, _, found in series for edge in found["edges"]]
    values = edges + [min(1.0, value) for _, value in thresholds]
    low, high = _rounded_out(min(values, default=0.0), max(values, default=1.0))
    tallest = max((max(_shares(found), default=0.0) for _, _, found in series), default=0.0) or 1.0

    def x(value: float) -> float:
        return _LEFT + (min(value, high) - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(share: float) -> float:
        return _TOP + _HEIGHT * (1 - share / tallest)

    parts = [
        f'<rect width="{WIDTH}" height="{_TOP + _HEIGHT + _FOOT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="22" font-size="16" font-weight="600">Gallery {escape(document["gallery"])}: '
        f"{document['faces']:,} faces of {document['identities']:,} identities</text>",
    ]
    for i, (label, color, found) in enumerate(series):
        parts.append(f'<rect x="{_LEFT + 320 * i}" y="36" width="12" height="12" fill="{color}"/>')
        count = sum(found["counts"])
        parts.append(f'<text x="{_LEFT + 320 * i + 18}" y="47">{label}, {count:,} probes</text>')
    step = 0.1 if high - low <= 1.2 else 0.2
    for n in range(round((high - low) / step) + 1):
        at = low + n * step
        parts.append(
            f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{_TOP}" y2="{_TOP + _HEIGHT}" stroke="#ddd"/>'
            f'<text x="{x(at):.1f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{at:.1f}</text>'
        )
    for _, color, found in series:
        bars = zip(found["edges"], found["edges"][1:], _shares(found), strict=False)
        parts += [
            f'<rect x="{x(a):.1f}" y="{y(share):.1f}" width="{max(0.5, x(b) - x(a)):.1f}" '
            f'height="{_TOP + _HEIGHT - y(share):.1f}" fill="{color}" fill-opacity="0.55"/>'
            for a, b, share in bars
            if share
        ]
    for i, (label, value) in enumerate(thresholds):
        parts.append(
            f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{_TOP - 6}" y2="{_TOP + _HEIGHT}" '
            f'stroke="{_LIMIT}" stroke-width="2" stroke-dasharray="{"none" if i == 0 else "6 4"}"/>'
            f'<text x="{x(value):.1f}" y="{_TOP + _HEIGHT + 36 + 16 * i}" text-anchor="middle">'
            f"{label} {value:.3f}</text>"
        )
    parts.append(
        f'<text x="{_LEFT}" y="{_TOP + _HEIGHT + 76}">{escape(_rates(document))}</text>'
        f'<text x="{_LEFT - 8}" y="{_TOP + 10}" text-anchor="end">{tallest:.0%}</text>'
        f'<text x="{_LEFT - 8}" y="{_TOP + _HEIGHT}" text-anchor="end">0</text>'
    )
    size = f'width="{WIDTH}" height="{_TOP + _HEIGHT + _FOOT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" {_STYLE}>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _shares(found: Mapping[str, Sequence[float]]) -> list[float]:
    total = sum(found["counts"]) or 1
    return [count / total for count in found["counts"]]


def _rounded_out(low: float, high: float) -> tuple[float, float]:
    first, last = (low * 10 - 0.001) // 1 / 10, -((-high * 10 - 0.001) // 1) / 10
    return first, max(last, first + 0.2)


def _rates(document: Mapping[str, Any]) -> str:
    current = document["current"]
    said = []
    for name in ("fpir", "fnir"):
        rate = current[name]
        said.append(
            f"{name.upper()} not measurable"
            if rate is None
            else f"{name.upper()} {rate['value']:.2%} ({rate['low']:.2%} to {rate['high']:.2%})"
        )
    return "At the threshold in force: " + ", ".join(said)
