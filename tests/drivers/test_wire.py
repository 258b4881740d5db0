"""What crosses the pipe between a driver's process and its parent."""

from __future__ import annotations

import json
from typing import Any, get_type_hints

import pytest

from providers_app.drivers import (
    VM,
    Can,
    CloneSpec,
    Definition,
    Disk,
    Driver,
    DriverError,
    Image,
    Mark,
    Missing,
    NoSpace,
    Refused,
    Survey,
    Unreachable,
    wire,
)

MARK = Mark("here", "image", "1", 2, 0, "d")
DISK = Disk("ref", "disk0.raw", "raw", 10, 10, 5)
SURVEY = Survey(
    "id",
    frozenset(Can),
    vms=(VM("ref", "name", (DISK,), 512, 1, "lan", "on", MARK, "none"), VM("ref", "other")),
    images=(Image("ref", "name", 5, "stamp", MARK), Image("ref", "foreign", 5, "stamp")),
    networks=("lan",),
    free_bytes=1,
    total_bytes=2,
)
SPEC = CloneSpec("desk", ("a", "b"), ("raw", "qcow2"), True, Definition(1, 2, "lan"), MARK)


def over(value: Any) -> Any:
    return json.loads(json.dumps(wire.plain(value)))


@pytest.mark.parametrize("value", [SURVEY, Survey("id"), SPEC, MARK, VM("r", "n"), Definition()])
def test_what_is_sent_arrives(value: Any) -> None:
    assert wire.rebuild(type(value), over(value)) == value


def test_arguments_and_results_are_rebuilt_for_each_verb() -> None:
    assert wire.result("survey", over(SURVEY)) == SURVEY
    assert wire.result("remove", None) is None
    assert wire.result("register", "id") == "id"
    assert wire.arguments("clone", {"spec": over(SPEC)}) == {"spec": SPEC}
    given = {"name": "x", "mark": over(MARK), "force": True}
    assert wire.arguments("remove", given) == {"name": "x", "mark": MARK, "force": True}


@pytest.mark.parametrize("verb", wire.VERBS)
def test_only_verbs_of_the_contract_are_called(verb: str) -> None:
    assert "return" in get_type_hints(getattr(Driver, verb))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Mark, {"installation": 5, "kind": "image", "owner": "1"}),
        (Mark, {"installation": "x"}),
        (Mark, {"installation": "x", "kind": "image", "owner": "1", "more": 1}),
        (Mark, {"installation": "x", "kind": "image", "owner": "1", "version": True}),
        (Mark, []),
        (Survey, {"host_id": "x", "can": ["fly"]}),
        (Survey, {"host_id": "x", "vms": {}}),
        (str, None),
        (type(None), "x"),
    ],
)
def test_what_is_something_else_is_refused(kind: Any, value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each says it in its own words
        wire.rebuild(kind, value)


@pytest.mark.parametrize("family", [Unreachable, Refused, NoSpace, Missing, DriverError])
def test_an_error_arrives_as_what_it_was(family: type[DriverError]) -> None:
    error = wire.rebuild_error(
        json.loads(json.dumps(wire.plain_error(family("It broke.", code="X", action="Mend it."))))
    )
    assert (type(error), error.text, error.code, error.action) == (family, "It broke.", "X", "Mend it.")
    assert error.permanent is family.permanent


def test_an_error_of_an_unknown_family_keeps_its_words() -> None:
    error = wire.rebuild_error({"code": "NEW", "text": "It broke.", "permanent": True})
    assert (type(error), error.code, error.action, error.permanent) == (DriverError, "NEW", "", True)
