"""No Docker engine runs in CI: every path, extra, port and variable that the files name is held here."""

import fnmatch
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from sphereid.settings import Settings

DOCKERFILES = ["docker/Dockerfile.cpu", "docker/Dockerfile.gpu"]


def instructions(path: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments) of a Dockerfile, continued lines joined, comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = (line.split(None, 1) for line in joined.splitlines() if line.strip())
    return [(name.upper(), arguments) for name, arguments in pairs]


def environment(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, arguments in instructions(path):
        if name == "ENV":
            found |= dict(part.split("=", 1) for part in shlex.split(arguments))
    return found


def ignored(relative: str, patterns: list[str]) -> bool:
    """The .dockerignore rule: the last pattern that matches a path or its parent decides."""
    verdict = False
    for pattern in patterns:
        wanted = pattern.removeprefix("!")
        parts = Path(relative).parts
        prefixes = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        if any(fnmatch.fnmatch(prefix, wanted) for prefix in prefixes):
            verdict = not pattern.startswith("!")
    return verdict


@pytest.fixture(scope="module")
def compose(repo_root: Path) -> dict[str, Any]:
    return yaml.safe_load((repo_root / "docker-compose.yml").read_text())


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_every_copied_path_exists_and_reaches_the_build(repo_root: Path, dockerfile: str) -> None:
    rules = (repo_root / ".dockerignore").read_text().splitlines()
    patterns = [rule for rule in rules if rule and not rule.startswith("#")]
    copies = [a.split() for i, a in instructions(repo_root / dockerfile) if i == "COPY"]
    from_context = [words[:-1] for words in copies if not words[0].startswith("--from")]
    sources = [source for words in from_context for source in words]
    assert {"app", "models", "pyproject.toml"} <= set(sources)
    for source in sources:
        assert (repo_root / source).exists(), source
        assert not ignored(source, patterns), f"{source} is kept out by .dockerignore"


def test_dockerignore_keeps_data_and_checkpoints_out(repo_root: Path) -> None:
    rules = (repo_root / ".dockerignore").read_text().splitlines()
    patterns = [rule for rule in rules if rule and not rule.startswith("#")]
    for path in ("data/sphereid.db", "tests/conftest.py", ".venv/bin/python", "models/x/checkpoint.pt"):
        assert ignored(path, patterns), path


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_variables_are_settings(repo_root: Path, dockerfile: str) -> None:
    prefix = Settings.model_config.get("env_prefix", "")
    named = [name for name in environment(repo_root / dockerfile) if name.startswith("SPHEREID_")]
    assert named
    for name in named:
        field = name.removeprefix(prefix).lower().split("__")[0]
        assert field in Settings.model_fields, name


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_the_image_starts_the_program_as_nobody_special(repo_root: Path, dockerfile: str) -> None:
    steps = instructions(repo_root / dockerfile)
    by_name = dict(steps)
    scripts = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(by_name["ENTRYPOINT"])[0] in scripts
    assert json.loads(by_name["CMD"]) == ["serve"]
    assert by_name["USER"] == "sphereid"
    order = [name for name, _ in steps]
    assert order.index("USER") < order.index("ENTRYPOINT")
    environment_of_image = environment(repo_root / dockerfile)
    assert by_name["EXPOSE"] == environment_of_image["PORT"]
    assert by_name["VOLUME"] == environment_of_image["SPHEREID_DATA_DIR"]
    assert "/healthz" in by_name["HEALTHCHECK"]


def test_the_health_route_exists() -> None:
    from sphereid.api.application import create_app

    paths = create_app(Settings()).openapi()["paths"]
    assert "/healthz" in paths


def test_gpu_requirements_replace_the_cpu_builds(repo_root: Path) -> None:
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    wanted = [line for line in (repo_root / "requirements/gpu.in").read_text().splitlines() if line[0] != "#"]
    assert sorted(wanted) == sorted(project["optional-dependencies"]["gpu"])
    locked = (repo_root / "requirements/gpu.txt").read_text()
    assert re.search(r"^onnxruntime-gpu==", locked, re.M)
    assert re.search(r"^faiss-gpu==", locked, re.M)
    removed = re.search(r"'(\^\(.*?==)'", (repo_root / "docker/Dockerfile.gpu").read_text())
    assert removed
    serve = (repo_root / "requirements/serve.txt").read_text().splitlines()
    dropped = [line for line in serve if re.match(removed.group(1), line)]
    assert sorted(line.split("==")[0] for line in dropped) == ["faiss-cpu", "onnxruntime"]


def test_base_images_agree_with_the_python_that_we_ask_for(repo_root: Path) -> None:
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    cpu = instructions(repo_root / "docker/Dockerfile.cpu")
    versions = [re.search(r"python:3\.(\d+)", a) for name, a in cpu if name == "FROM"]
    assert versions
    assert all(found and int(found.group(1)) >= 11 for found in versions)


def test_compose_profiles(repo_root: Path, compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert {tuple(service["profiles"]) for service in services.values()} == {("cpu",), ("gpu",)}
    for name, service in services.items():
        kind = service["profiles"][0]
        dockerfile = repo_root / service["build"]["dockerfile"]
        assert dockerfile.is_file()
        assert dockerfile.name == f"Dockerfile.{kind}", name
        image_environment = environment(dockerfile)
        assert service["ports"][0].endswith(f":{image_environment['PORT']}")
        assert service["read_only"] is True
        assert "ALL" in service["cap_drop"]
        volume, mount = service["volumes"][0].split(":")
        assert volume in compose["volumes"]
        assert mount == image_environment["SPHEREID_DATA_DIR"]
        for variable in service["environment"]:
            assert variable.removeprefix("SPHEREID_").lower() in Settings.model_fields, variable
        assert ":?" in service["environment"]["SPHEREID_API_KEYS"], "an open port needs a key"
    devices = services["sphereid-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices[0]["driver"] == "nvidia"
    assert environment(repo_root / "docker/Dockerfile.gpu")["SPHEREID_PROVIDER"] == "cuda"
