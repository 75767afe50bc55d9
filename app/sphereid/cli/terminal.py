"""What the commands share: finding the files, showing progress, printing tables, ending with a code."""

import glob
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

err: Final = Console(stderr=True)

DONE: Final = 0
NOT_ALL: Final = 1
"""Some files could not be used, or, with verify, it is not the same person."""
FAILED: Final = 2

IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})

Paths = Annotated[
    list[str],
    typer.Argument(help="Image files, folders (searched through), or quoted globs.", metavar="PATHS..."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, instead of a table.")]
GalleryName = Annotated[str, typer.Option("--gallery", "-g", help="The gallery to work in.")]


def fail(message: str) -> None:
    """One line on stderr about what went wrong."""
    err.print(f"[bold red]error:[/] {_plain(message)}", soft_wrap=True, highlight=False)


def note(message: str) -> None:
    """One line on stderr about something worth knowing."""
    err.print(_plain(message), soft_wrap=True, highlight=False)


def plural(count: int, one: str, many: str = "") -> str:
    """`1 face`, `2 faces`. many: where it is not `one` and an s."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def expand(paths: Iterable[str]) -> list[Path]:
    """The image files that the arguments name, in their order, each once.

    A folder stands for the images below it, in the order of their names. Raises ValueError where an argument
    names nothing.
    """
    found: dict[Path, None] = {}
    for text in paths:
        path = Path(text)
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not files:
                raise ValueError(f"no image in the folder {text}")
        elif path.exists():
            files = [path]
        else:
            # Path.glob takes no absolute patterns
            matches = glob.glob(text, recursive=True)  # noqa: PTH207
            files = sorted(path for path in map(Path, matches) if path.is_file())
            if not files:
                raise ValueError(f"there is no file {text}")
        found |= dict.fromkeys(files)
    return list(found)


@contextmanager
def progress(title: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr; none for a single file, without a terminal, or when `quiet`."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=quiet or total < 2 or not err.is_terminal,
    )
    with bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows; numbers to the right."""
    grid = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    cells = [[_cell(value) for value in row] for row in rows]
    for i, column in enumerate(columns):
        numeric = bool(cells) and all(_is_number(row[i]) for row in cells)
        grid.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        grid.add_row(*(_plain(text) for text in row))
    # Without a terminal nobody benefits from lines broken at 80 columns.
    Console(width=None if sys.stdout.isatty() else 200).print(grid)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    return text == "–" or text.replace(".", "", 1).removeprefix("-").isdigit()


def _plain(text: str) -> str:
    """Without what a terminal or rich would act on: file names and names of people are not ours."""
    return escape("".join(c if c.isprintable() or c == "\n" else "?" for c in text))
