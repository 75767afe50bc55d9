"""A model folder that is written whole or not at all."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sphereid.faces.errors import ModelError
from sphereid.faces.manifest import MANIFEST_FILE, Manifest, save_manifest

CARD_FILE: Final = "CARD.md"


@dataclass(frozen=True, slots=True, eq=False)
class ModelFiles:
    """What a model folder holds.

    model: bytes of the file that the manifest names. int8: bytes of the one that `manifest.int8` names, None
    where it names none. card: Markdown.
    """

    manifest: Manifest
    model: bytes
    int8: bytes | None
    card: str


def check_target(folder: Path, *, replace: bool) -> None:
    """Raises ModelError where a model may not be written: on a file, over anything that is no model, or,
    unless `replace`, over a model."""
    if folder.exists() and not folder.is_dir():
        raise ModelError(f"{folder} is a file: name a folder for the model")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / MANIFEST_FILE).exists():
        raise ModelError(f"{folder} holds other things than a model: name another folder or empty this one")
    if not replace:
        raise ModelError(f"{folder} holds a model already: --force replaces it")


def write_model(files: ModelFiles, folder: Path, *, replace: bool) -> None:
    """Write a model folder beside its place and move it there.

    Raises ModelError as `check_target` does, and when it cannot be written; then what was there stays.
    """
    check_target(folder, replace=replace)
    fresh, old = (folder.with_name(f".{folder.name}.{what}") for what in ("new", "old"))
    try:
        for left_over in (fresh, old):
            shutil.rmtree(left_over, ignore_errors=True)
        fresh.mkdir(parents=True)
        (fresh / files.manifest.file).write_bytes(files.model)
        if files.manifest.int8 is not None and files.int8 is not None:
            (fresh / files.manifest.int8.file).write_bytes(files.int8)
        (fresh / CARD_FILE).write_text(files.card, encoding="utf-8")
        save_manifest(files.manifest, fresh)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        raise ModelError(f"{folder} cannot be written: {error.strerror}") from None
