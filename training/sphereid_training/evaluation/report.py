"""One JSON file and one HTML page for every evaluation, from one description of what was measured."""

import html
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as RichTable
from sphereid.faces.manifest import Metric

from sphereid_training.errors import TrainingError
from sphereid_training.evaluation import plots
from sphereid_training.evaluation.verification import TarAtFar, tar_table
from sphereid_training.export import card as cards

REPORTS: Final = Path("runs/reports")


@dataclass(frozen=True, slots=True)
class Table:
    """header and rows of cells that are ready to be shown; the first column names, the others are figures."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation found.

    name: of its files, without suffix. facts: what was compared, for the head of the page. result: for the
    JSON file. tables: for terminal and page. plots: SVG texts. refused: figures that the data can't support,
    and why.
    """

    name: str
    title: str
    facts: tuple[tuple[str, str], ...]
    result: dict[str, Any]
    tables: tuple[Table, ...]
    plots: tuple[str, ...] = ()
    refused: tuple[str, ...] = field(default=())


def publish(report: Report, *, out: Path | None, folder: Path | None, console: Console) -> Path:
    """Print the tables; write JSON and HTML; return the page's path.

    out: the JSON file, with the page beside it. folder: for both, under the report's name; without either,
    runs/reports. Raises TrainingError when they can't be written.
    """
    for table in report.tables:
        shown = RichTable(title=f"{report.title}: {table.title}")
        for index, name in enumerate(table.header):
            shown.add_column(name, justify="left" if index == 0 else "right")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    for line in report.refused:
        console.print(line, markup=False)
    path = out if out is not None and folder is None else (folder or REPORTS) / f"{report.name}.json"
    try:
        for target in {path, out or path}:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(report.result, indent=2) + "\n", encoding="utf-8")
        page = path.with_suffix(".html")
        page.write_text(to_html(report), encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"the report {path} cannot be written: {error.strerror}") from None
    console.print(f"report: {page}", markup=False, soft_wrap=True)
    return page


def recorded_command() -> str:
    """The command as it was given, without the switch that records its figures."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--record"]
    return shlex.join(["python", "-m", "training", *arguments])


def record_figures(model: Path, figures: Mapping[str, float]) -> None:
    """Put figures that this command measured into a model's manifest and card."""
    command = recorded_command()
    cards.record(model, [Metric(name=name, value=value, command=command) for name, value in figures.items()])


def percent(value: float) -> str:
    """A share as a percentage with two digits."""
    return f"{100 * value:.2f} %"


def verification_tables(
    similarity: NDArray[np.floating[Any]], same: NDArray[np.bool_], fars: Sequence[float]
) -> tuple[dict[str, Any], Table, tuple[str, ...], tuple[str, ...]]:
    """JSON terms, threshold table, plots and refusals of scored pairs.

    TAR at each FAR with its 95 % interval; a FAR below 1/#impostors is refused, not extrapolated.
    """
    entries, refused = tar_table(similarity, same, fars)
    genuine, impostor = similarity[same], similarity[~same]
    terms = {
        "genuine": len(genuine),
        "impostors": len(impostor),
        "tar_at_far": {f"{entry.far:g}": entry.tar for entry in entries},
        "tar_intervals": {f"{entry.far:g}": list(entry.interval) for entry in entries},
        "thresholds_at_far": {f"{entry.far:g}": entry.threshold for entry in entries},
        "refused": list(refused),
    }
    marks = {entry.far: entry.tar for entry in entries}
    lines = {f"FAR {entry.far:g}": entry.threshold for entry in entries}
    drawn = (
        plots.roc(genuine, impostor, marks),
        plots.histograms({"genuine": genuine, "impostor": impostor}, lines),
    )
    return terms, threshold_table(entries), drawn, refused


def threshold_table(entries: Sequence[TarAtFar]) -> Table:
    """The table of thresholds of a report."""
    return Table(
        "thresholds",
        ("asked FAR", "threshold", "FAR", "TAR", "95 % interval of TAR"),
        tuple(
            (
                f"{entry.far:g}",
                f"{entry.threshold:.4f}",
                f"{entry.measured_far:.3g}",
                percent(entry.tar),
                f"{percent(entry.interval[0])} to {percent(entry.interval[1])}",
            )
            for entry in entries
        ),
    )


_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1f2933; background: #fff; margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin-top: 2rem; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; }}
dt {{ color: #52606d; }} dd {{ margin: 0; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #e4e7eb; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
.plots {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; }}
.plots svg {{ width: 100%; height: auto; }}
.scroll {{ overflow-x: auto; }} .refused {{ color: #9a3412; }}
</style>
</head>
<body>
<h1>{title}</h1>
<dl>{facts}</dl>
{tables}
{refused}
<h2>plots</h2>
<div class="plots">{plots}</div>
</body>
</html>
"""


def to_html(report: Report) -> str:
    """The page: no script, nothing loaded from elsewhere."""
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts = (*report.facts, ("command", recorded_command()), ("made", made))
    return _PAGE.format(
        title=html.escape(report.title),
        facts="".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts),
        tables="\n".join(_html_table(table) for table in report.tables),
        refused="".join(f'<p class="refused">{html.escape(line)}</p>' for line in report.refused),
        plots="\n".join(f"<figure style='margin:0'>{svg}</figure>" for svg in report.plots),
    )


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.header)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{_unbroken(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return (
        f'<h2>{html.escape(table.title)}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _unbroken(cell: str) -> str:
    """Safe for HTML, with numbers and their signs kept on one line of a narrow screen."""
    return html.escape(cell).replace(" %", "\N{NO-BREAK SPACE}%").replace("± ", "±\N{NO-BREAK SPACE}")
