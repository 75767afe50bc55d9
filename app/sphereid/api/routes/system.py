"""What this service runs with: its settings, and the cards of its models."""

from pathlib import Path as FilePath
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Path
from pydantic import Field, SecretStr

from sphereid.api.dependencies import PartsDep, problems
from sphereid.api.problems import Problem
from sphereid.api.schemas import Output
from sphereid.monitors.allowed import shown
from sphereid.settings import PREFIX, Settings, rows

router = APIRouter(tags=["operation"])
CARD = "CARD.md"


class Setting(Output):
    """One setting. value: as it is now; secrets are only said to be set."""

    variable: str
    value: str
    default: str = Field(description="Empty where it depends on the machine or there is none.")
    description: str


class SettingList(Output):
    """All settings, in the order of the documentation."""

    items: list[Setting]


class ModelCard(Output):
    """A model's card. text: Markdown."""

    name: str
    text: str


@router.get("/v1/settings", summary="Show the settings", responses=problems())
async def list_settings(parts: PartsDep) -> SettingList:
    """What the service runs with. Keys, passwords and the database's address are not told."""
    return SettingList(
        items=[
            Setting(
                variable=variable, value=_value(parts.settings, variable), default=default, description=text
            )
            for variable, default, text in rows()
        ]
    )


@router.get("/v1/models/{model}/card", summary="Show a model's card", responses=problems(404, 422))
async def get_card(
    model: Annotated[str, Path(max_length=200, description="The model's name.")], parts: PartsDep
) -> ModelCard:
    """What the model was trained on, how good it is by which command, and what it must not be used for."""
    folder = next((name for name, manifest in parts.models.items() if manifest.name == model), None)
    if folder is None:
        raise Problem("model_not_found", f"there is no model {model[:80]!r} in the models folder")
    text = await anyio.to_thread.run_sync(_read, parts.settings.models_dir / folder / CARD)
    if text is None:
        raise Problem("model_not_found", f"the model {model!r} has no card")
    return ModelCard(name=model, text=text)


def _read(path: FilePath) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _value(settings: Settings, variable: str) -> str:
    value: Any = settings
    for part in variable.removeprefix(PREFIX).lower().split("__"):
        value = getattr(value, part)
    return _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return "set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ", ".join(dict.fromkeys(_text(each) for each in value))
    return shown(str(value))
