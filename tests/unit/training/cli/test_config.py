"""Recipes, overrides and their mistakes; every shipped recipe builds its network."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from sphereid_training import heads, networks
from sphereid_training.config import Config, from_dict, load, override, to_dict
from sphereid_training.errors import TrainingError

RECIPES = sorted((Path(__file__).parents[4] / "training" / "sphereid_training" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("recipe", [r for r in RECIPES if "dlib" not in r.name], ids=lambda r: r.stem)
def test_shipped_recipes_are_valid(recipe: Path) -> None:
    config = load(recipe)
    assert config.backbone.name in networks.names()
    assert config.head.weight == 0 or heads.build(config.head, 3, 8) is not None


def test_overrides_win_and_keep_the_rest(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: a\noptimizer: {lr: 0.2, momentum: 0.8}\nhead: {options: {s: 30}}\n")
    config = load(
        recipe, ["optimizer.lr=0.5", "head.options.m=0.1", "optimizer.milestones=[0.1,0.2]", "name=b"]
    )
    assert (config.optimizer.lr, config.optimizer.momentum, config.name) == (0.5, 0.8, "b")
    assert config.head.options == {"s": 30, "m": 0.1}
    assert config.optimizer.milestones == (0.1, 0.2)


def test_a_configuration_survives_the_round_trip() -> None:
    config = load(None, ["optimizer.milestones=[0.1,0.2]", "data.group_weights={a: 2}"])
    assert from_dict(to_dict(config)) == config
    assert from_dict({}) == Config()


def test_overrides_do_not_touch_their_source() -> None:
    values = {"optimizer": {"lr": 1}}
    override(values, ["optimizer.lr=2"])
    assert values == {"optimizer": {"lr": 1}}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.rate=1"], "optimizer.rate"),
        (["optimizer.name=lamb"], "'sgd', 'adamw' or 'muon'"),
        (["optimizer.lr"], "key=value"),
        (["nothing=1"], "nothing"),
        (["optimizer.lr=[1"], "not a YAML value"),
        (["name.x=1"], "name"),
    ],
)
def test_mistakes_name_their_key(overrides: list[str], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        load(None, overrides)


def test_unreadable_recipes_are_explained(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no recipe at"):
        load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(TrainingError, match="is not YAML"):
        load(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(TrainingError, match="must hold a mapping"):
        load(tmp_path / "list.yaml")


def test_the_help_reads_in_full_and_names_every_network_and_head() -> None:
    from sphereid_training.cli import app
    from typer.main import get_command

    def pages(command: click.Command, above: click.Context | None = None) -> Iterator[tuple[str, str]]:
        context = click.Context(command, info_name=command.name, parent=above, terminal_width=80)
        yield context.command_path, command.get_help(context)
        for each in getattr(command, "commands", {}).values():
            yield from pages(each, context)

    told = dict(pages(get_command(app)))
    assert len(told) >= 18
    for command, page in told.items():
        assert "..." not in page.partition("Commands:")[2], f"{command}: a summary is cut off"
        assert page.count("\n") > 5
    first = told["python -m training"]
    assert first.count("\n      python -m training ") == 4, "an example a line"
    words = told["python -m training train"].replace(",", " ").replace(".\n", " ").split()
    assert {*networks.names(), *heads.names()} <= set(words)
