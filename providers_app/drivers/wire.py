"""What crosses the pipe between a driver's process and its parent: plain JSON, rebuilt by the contract's types."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from .base import Driver
from .errors import DriverError, Missing, NoSpace, Refused, Unreachable

VERBS = (
    "register",
    "survey",
    "remove",
    "discard",
    "clone",
    "recreate",
    "delete_guest",
    "power",
    "shut_down",
    "make_working_copy",
    "remove_working_copy",
)
_FAMILIES = {family.__name__: family for family in (Unreachable, Refused, NoSpace, Missing, DriverError)}


def plain(value: Any) -> Any:
    """Return what JSON can say of a value of the contract."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(plain(item) for item in value)
    return value.value if isinstance(value, Enum) else value


def rebuild(kind: Any, value: Any) -> Any:
    """Return ``value`` as a ``kind``; ValueError when it is something else."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        inner = next(option for option in get_args(kind) if option is not types.NoneType)
        return None if value is None else rebuild(inner, value)
    if origin in (tuple, frozenset):
        return origin(rebuild(get_args(kind)[0], item) for item in _expect(list, value))
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _rebuild_dataclass(kind, _expect(dict, value))
    if kind is types.NoneType:
        return _expect(kind, value)
    return kind(_expect(str, value)) if issubclass(kind, Enum) else _expect(kind, value)


def _rebuild_dataclass(kind: type, value: Mapping[str, Any]) -> Any:
    hints = _hints(kind)
    if unknown := set(value) - set(hints):
        raise ValueError(f"{kind.__name__} has no {sorted(unknown)}")
    try:
        return kind(**{name: rebuild(hints[name], item) for name, item in value.items()})
    except TypeError as error:
        raise ValueError(f"{kind.__name__} is incomplete") from error


def _expect(kind: type, value: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{type(value).__name__} instead of {kind.__name__}")
    return value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def arguments(verb: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a verb's arguments as the contract's types."""
    hints = _hints(getattr(Driver, verb))
    return {name: rebuild(hints[name], value) for name, value in given.items()}


def result(verb: str, value: Any) -> Any:
    """Return a verb's result as the contract's types."""
    return rebuild(_hints(getattr(Driver, verb))["return"], value)


def plain_error(error: DriverError) -> dict[str, Any]:
    family = next(name for name, family in _FAMILIES.items() if isinstance(error, family))
    return {
        "code": error.code,
        "text": error.text,
        "action": error.action,
        "permanent": error.permanent,
        "family": family,
    }


def rebuild_error(value: Mapping[str, Any]) -> DriverError:
    family = _FAMILIES.get(value.get("family", ""), DriverError)
    error = family(str(value["text"]), code=str(value["code"]), action=str(value.get("action", "")))
    error.permanent = bool(value.get("permanent", family.permanent))
    return error
