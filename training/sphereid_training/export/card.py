"""CARD.md of a model of ours, and its table of measured figures."""

from pathlib import Path
from typing import Final

from sphereid.faces.manifest import Manifest, Metric, load_manifest, save_manifest

_HEADING: Final = "## Measured\n\n"
_CARD: Final = """\
# {name}

{summary}

| | |
|---|---|
| version | {version} |
| license | {license} |
| input | {height}×{width} {color}, {pixels} |
| alignment | template `{template}` |
| embedding | {size} numbers, flip rule `{flip}`, scaled to length 1, compared by cosine |
| sha256 | `{sha256}` |

## Training data

{training_data}

## Measured

{metrics}

## How the scores read

{calibration}

## Limits

- {terms}
- Accuracy differs between groups of people and falls with profile, blur and small faces. Measure it on your
  own faces, and set thresholds by an `fpir` policy, before trusting a match.
"""


def write_card(folder: Path, summary: str) -> Path:
    """(Re)write CARD.md from the folder's manifest. summary: Markdown that opens the card."""
    manifest = load_manifest(folder)
    path = folder / "CARD.md"
    path.write_text(
        _CARD.format(
            name=manifest.name,
            summary=summary.strip(),
            version=manifest.version,
            license=manifest.license,
            height=manifest.input[2],
            width=manifest.input[3],
            color=manifest.color.upper(),
            template=manifest.template,
            size=manifest.embedding_size,
            flip=manifest.flip,
            sha256=manifest.sha256,
            training_data=manifest.training_data,
            metrics=_measured(manifest),
            calibration=_calibration(manifest),
            pixels=_pixels(manifest),
            terms=_terms(manifest),
        ),
        encoding="utf-8",
    )
    return path


def record(folder: Path, metrics: list[Metric]) -> None:
    """Put figures into the manifest and the card, replacing those of the same name.

    Of a card that is there, only the section "Measured" changes; its other text may be anyone's.
    """
    manifest = load_manifest(folder)
    names = {metric.name for metric in metrics}
    kept = [metric for metric in manifest.metrics if metric.name not in names]
    manifest = manifest.model_copy(update={"metrics": (*kept, *metrics)})
    save_manifest(manifest, folder)
    card = folder / "CARD.md"
    if not card.exists():
        write_card(folder, "")
        return
    text = card.read_text(encoding="utf-8")
    before, heading, rest = text.partition(_HEADING)
    _, next_heading, after = rest.partition("\n## ")
    section = f"{heading or chr(10) + _HEADING}{_measured(manifest)}\n"
    card.write_text(before + section + next_heading + after, encoding="utf-8")


def _measured(manifest: Manifest) -> str:
    rows = [f"| {m.name} | {m.value:.6g} | `{m.command}` |" for m in manifest.metrics]
    return "\n".join(["| figure | value | command |", "|---|---|---|", *rows])


def _pixels(manifest: Manifest) -> str:
    """How a pixel p enters the network."""

    def one(values: tuple[float, float, float], digits: int) -> str:
        rounded = [f"{value:.{digits}g}" for value in values]
        return rounded[0] if len(set(rounded)) == 1 else f"({', '.join(rounded)})"

    inverse = tuple(1 / value for value in manifest.scale)
    return f"(p − {one(manifest.mean, 6)}) / {one((inverse[0], inverse[1], inverse[2]), 6)}"


def _terms(manifest: Manifest) -> str:
    if "research" in manifest.license.lower():
        return (
            "**Research use only**, as the terms of its training faces demand. "
            "Not for decisions about people."
        )
    return f"License: {manifest.license}. Not for decisions about people without a human behind them."


def _calibration(manifest: Manifest) -> str:
    calibration = manifest.calibration
    if calibration is None:
        return "Not calibrated: galleries can't use an `fpir` policy with this model."
    rows = [f"| {q.fmr:.2g} | {q.similarity:.3f} |" for q in calibration.quantiles]
    head = f"{calibration.pairs:,} impostor pairs: {calibration.protocol}."
    return "\n".join([head, "", "| false match rate | similarity |", "|---|---|", *rows])
