"""CARD.md of a model of ours, and its table of measured figures."""

from pathlib import Path
from typing import Final

from app.pipeline.manifest import Manifest, Metric, load_manifest, save_manifest

_CARD: Final = """\
# {name}

{summary}

| | |
|---|---|
| version | {version} |
| license | {license} |
| input | {height}×{width} {color}, (p − 127.5) / 128 |
| alignment | template `{template}` |
| embedding | {size} numbers, flip rule `{flip}`, scaled to length 1, compared by cosine |
| sha256 | `{sha256}` |

## Training data

{training_data}

## Measured

| figure | value | command |
|---|---|---|
{metrics}

## How the scores read

{calibration}

## Limits

- **Research use only**, as the terms of its training faces demand. Not for decisions about people.
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
            metrics="\n".join(f"| {m.name} | {m.value:.6g} | `{m.command}` |" for m in manifest.metrics),
            calibration=_calibration(manifest),
        ),
        encoding="utf-8",
    )
    return path


def record(folder: Path, metrics: list[Metric]) -> None:
    """Put figures into the manifest and the card, replacing those of the same name."""
    manifest = load_manifest(folder)
    names = {metric.name for metric in metrics}
    kept = [metric for metric in manifest.metrics if metric.name not in names]
    save_manifest(manifest.model_copy(update={"metrics": (*kept, *metrics)}), folder)
    card = folder / "CARD.md"
    summary = ""
    if card.exists():
        body = card.read_text(encoding="utf-8").split("\n", 1)[1]
        summary = body.split("\n| | |", 1)[0]
    write_card(folder, summary)


def _calibration(manifest: Manifest) -> str:
    calibration = manifest.calibration
    if calibration is None:
        return "Not calibrated: galleries can't use an `fpir` policy with this model."
    rows = [f"| {q.fmr:.2g} | {q.similarity:.3f} |" for q in calibration.quantiles]
    head = f"{calibration.pairs:,} impostor pairs: {calibration.protocol}."
    return "\n".join([head, "", "| false match rate | similarity |", "|---|---|", *rows])
