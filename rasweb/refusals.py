"""An ordinary no: the answer to an order that can not be carried out now, in words for the administrator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import DatabaseError, IntegrityError, ProgrammingError


class Refusal(Exception):
    """``text`` is a whole sentence, ``code`` stable and upper case, ``action`` says what to do next."""

    def __init__(self, text: str, code: str = "REFUSED", action: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.action = action

    def __str__(self) -> str:
        return f"{self.text} {self.action}".strip()


@contextmanager
def bad_input_refused(taken: str) -> Iterator[None]:
    """Turn refused fields, and names that are ``taken`` meanwhile, into a Refusal."""
    try:
        yield
    except ValidationError as error:
        raise Refusal(" ".join(_sentences(error)), "BAD_INPUT") from error
    except IntegrityError as error:
        raise Refusal(taken, "CONFLICT", "Look at the list again, then choose another name.") from error


def changed_meanwhile(row: object) -> Refusal:
    return Refusal(
        f"{row} was changed by somebody else just now.",
        "CONFLICT",
        "Look at it again, then repeat the order.",
    )


def without_database(error: DatabaseError) -> Refusal:
    """What to say where the database was asked and did not do it."""
    if isinstance(error, ProgrammingError) or "no such table" in str(error):
        return Refusal("The database was never set up.", "DATABASE", "Run `manage.py up` first.")
    return Refusal("The database is busy or can not be reached.", "DATABASE", "Try again.")


def _sentences(error: ValidationError) -> Iterator[str]:
    """What is wrong, each with the field that it is about."""
    fields = error.message_dict if hasattr(error, "error_dict") else {NON_FIELD_ERRORS: error.messages}
    for name, messages in fields.items():
        about = "" if name == NON_FIELD_ERRORS else f"{name.replace('_', ' ').capitalize()}: "
        yield from (f"{about}{message}" for message in messages)
