"""docs/commands.md says what the commands are."""

from __future__ import annotations

import argparse
import re

import pytest
from django.core.management import get_commands, load_command_class

from rasweb.orders import OrderCommand
from templates_app.models import Template
from tests.commands.conftest import Order
from tests.product import ROOT

TEXT = (ROOT / "docs" / "commands.md").read_text()
EVERYWHERE = {"--help", "--json"}
DJANGO = {"--version", "--verbosity", "--settings", "--pythonpath", "--traceback", "--no-color"}
DJANGO |= {"--force-color", "--skip-checks"}


def rows(verb: str) -> str:
    """The lines of the tables about one command."""
    return "\n".join(line for line in TEXT.splitlines() if re.match(rf"\|.*`{verb}[ `]", line))


def options(parser: argparse.ArgumentParser) -> set[str]:
    found = {option for action in parser._actions for option in action.option_strings}
    return {option for option in found if option.startswith("--")} - EVERYWHERE - DJANGO


def verbs(name: str) -> dict[str, argparse.ArgumentParser]:
    parser = load_command_class("rasweb", name).create_parser("manage.py", name)
    [choices] = [
        action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    ]
    return dict(choices)


ORDERS = [
    name
    for name, app in get_commands().items()
    if app == "rasweb" and isinstance(load_command_class(app, name), OrderCommand)
]


@pytest.mark.parametrize("name", ORDERS)
def test_every_verb_and_option_is_described(name: str) -> None:
    for verb, parser in verbs(name).items():
        described = rows(f"{name} {verb}")
        assert described, f"{name} {verb}"
        assert not [option for option in options(parser) if option not in described], f"{name} {verb}"


@pytest.mark.parametrize("name", ["up", "worker", "demo"])
def test_every_option_of_the_running_product_is_described(name: str) -> None:
    parser = load_command_class("rasweb", name).create_parser("manage.py", name)
    assert all(option in rows(name) for option in options(parser))


def test_no_verb_or_option_is_described_that_is_not_there() -> None:
    known = {f"{name} {verb}" for name in ORDERS for verb in verbs(name)}
    told = set(re.findall(rf"`((?:{'|'.join(ORDERS)}) [a-z-]+)", TEXT))
    assert told == known
    real = {option for name in ORDERS for parser in verbs(name).values() for option in options(parser)}
    assert set(re.findall(r"--[a-z][a-z-]+", TEXT)) - real - EVERYWHERE == {
        "--host",
        "--port",
        "--no-workers",
        "--first",
    }


def test_every_key_is_described(template: Template, order: Order) -> None:
    order("guest", "create", "win11", "--provider", "left")
    answers = [
        order(*words.split(), "--json").json
        for words in ("provider list", "guest list", "template status", "template verify win11")
    ]
    assert not {key for key in _keys(answers) if f'"{key}"' not in TEXT and f"`{key}`" not in TEXT}


def _keys(answer: object) -> set[str]:
    if isinstance(answer, list):
        return {key for each in answer for key in _keys(each)}
    if isinstance(answer, dict):
        return {*answer, *(key for each in answer.values() for key in _keys(each))}
    return set()
