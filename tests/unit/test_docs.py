"""What the documents name must be there: settings, commands, targets, files and links."""

import re
from pathlib import Path

import pytest
from sphereid.settings import Settings, markdown_table
from typer.main import get_command


def documents(root: Path) -> list[Path]:
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def test_the_settings_page_is_the_settings(repo_root: Path) -> None:
    page = (repo_root / "docs/settings.md").read_text()
    assert markdown_table() in page, "renew it: see the first lines of docs/settings.md"


def test_every_variable_in_the_documents_is_a_setting(repo_root: Path) -> None:
    known_to_compose_and_tests = {"BIND", "SHARED_DATA"}
    for document in documents(repo_root):
        for name in re.findall(r"SPHEREID_([A-Z][A-Z_]*)", document.read_text()):
            field = name.lower().split("__")[0].rstrip("_")
            assert name in known_to_compose_and_tests or field in Settings.model_fields, (document.name, name)


def test_every_command_in_the_documents_exists(repo_root: Path) -> None:
    from sphereid.cli import app

    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    for document in documents(repo_root):
        for name in re.findall(r"^(?:\.venv/bin/)?sphereid ([a-z-]+)", document.read_text(), re.M):
            assert name in commands, (document.name, name)


def test_every_make_target_in_the_documents_exists(repo_root: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repo_root / "Makefile").read_text(), re.M))
    for document in documents(repo_root):
        for name in re.findall(r"(?:^|`)(?:[A-Z_]+=\S+ )*make ([a-z-]+)", document.read_text(), re.M):
            assert name in targets, (document.name, name)


def test_links_between_the_documents_lead_somewhere(repo_root: Path) -> None:
    for document in documents(repo_root):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
            if not target.startswith(("http://", "https://")):
                assert (document.parent / target).exists(), (document.name, target)


def test_no_photograph_lies_in_the_repository(repo_root: Path) -> None:
    kinds = {".jpg", ".jpeg", ".webp", ".bmp", ".tiff", ".gif", ".mp4", ".avi", ".heic"}
    folders = ("app", "training", "tests", "models", "docker", "docs", "benchmarks")
    found = [p for folder in folders for p in (repo_root / folder).rglob("*") if p.suffix.lower() in kinds]
    assert not found


@pytest.mark.parametrize("word", ["confidence"])
def test_a_cosine_is_never_called(repo_root: Path, word: str) -> None:
    for source in [*(repo_root / "app").rglob("*.py"), *(repo_root / "app").rglob("*.js")]:
        assert word not in source.read_text().lower(), source
