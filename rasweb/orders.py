"""The base of the commands: the same gate as the pages, plain words or JSON out, exit status 0 or 1."""

from __future__ import annotations

import json
import os
import pwd
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from django.core.exceptions import ObjectDoesNotExist
from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError, models

from rasweb.refusals import Refusal, without_database

POLL_SECONDS = 0.2
Row = TypeVar("Row", bound=models.Model)


class OneSentenceParser(CommandParser):
    """Wrong arguments are answered like every other wrong order: one sentence, status 1."""

    def error(self, message: str) -> NoReturn:
        print(f"{message[:1].upper()}{message[1:]}. See --help.", file=sys.stderr)
        sys.exit(1)


class OrderCommand(BaseCommand):
    """A command with verbs. Each verb returns what is printed: as JSON with ``--json``, else through ``plain``."""

    requires_system_checks = ()

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = OneSentenceParser(prog=f"{prog_name} {subcommand}", description=self.help, **kwargs)
        self.add_base_argument(parser, "--settings", help="Python path of the settings module.")
        self.add_base_argument(parser, "--pythonpath", help="A folder to add to the Python path.")
        for name in ("--traceback", "--no-color", "--force-color"):
            self.add_base_argument(parser, name, action="store_true")
        parser.set_defaults(verbosity=1, skip_checks=True)
        self.add_arguments(parser)
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(
            dest="verb", required=True, metavar="VERB", parser_class=OneSentenceParser
        )

        def verb(name: str, run: Callable[[Namespace], Any], told: str) -> ArgumentParser:
            sub: ArgumentParser = verbs.add_parser(name, help=told, description=told)
            sub.add_argument("--json", action="store_true", help="Print JSON.")
            sub.set_defaults(run=run)
            return sub

        self.add_verbs(verb)

    def add_verbs(self, verb: Callable[..., ArgumentParser]) -> None:
        """Declare the verbs: ``verb(name, run, help)`` returns a parser to add arguments to."""
        raise NotImplementedError

    def handle(self, *args: Any, **options: Any) -> None:
        asked = Namespace(**options)
        try:
            answer, fine = _with_status(asked.run(asked))
        except Refusal as refusal:
            self._fail(asked, refusal)
        except ObjectDoesNotExist:
            self._fail(asked, Refusal("It was deleted meanwhile.", "MISSING"))
        except DatabaseError as error:
            self._fail(asked, without_database(error))
        except KeyboardInterrupt:
            text = "Interrupted; what was ordered goes on."
            self._fail(asked, Refusal(text, "INTERRUPTED", "Look at the status later."))
        try:
            if asked.json:
                self.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False))
            else:
                self.plain(answer)
            self.stdout.flush()
        except BrokenPipeError:  # whoever reads has seen enough, such as ``head``
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not fine:
            sys.exit(1)

    def plain(self, answer: Any) -> None:
        """Print an answer for people: a sentence, or rows as a table."""
        if isinstance(answer, str):
            self.stdout.write(answer)
        else:
            for line in table(answer if isinstance(answer, list) else [answer]) or ["None."]:
                self.stdout.write(line)

    def _fail(self, asked: Namespace, refusal: Refusal) -> NoReturn:
        if asked.json:
            error = {"code": refusal.code, "text": refusal.text, "action": refusal.action}
            self.stdout.write(json.dumps({"error": error}, indent=2, ensure_ascii=False))
        self.stderr.write(str(refusal))
        sys.exit(1)


class Unfinished:
    """An answer that is printed in full although the order did not succeed: exit status 1."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer


def _with_status(answer: Any) -> tuple[Any, bool]:
    return (answer.answer, False) if isinstance(answer, Unfinished) else (answer, True)


def who() -> str:
    """Who ordered it, for the history."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"user {os.getuid()}"
    return f"{name} (command)"


def find(model: type[Row], name: str, **scope: Any) -> Row:
    row = model._default_manager.filter(name=name, **scope).first()
    if row is None:
        raise Refusal(f"There is no {model._meta.verbose_name} called “{name}”.", "MISSING")
    return row


def find_all(model: type[Row], names: Iterable[str]) -> list[Row]:
    return [find(model, name) for name in names]


def wait_until(settled: Callable[[], bool], seconds: float) -> None:
    """Return when ``settled()`` is true; a Refusal when it does not become so in time."""
    end = time.monotonic() + seconds
    while not settled():
        if time.monotonic() > end:
            raise Refusal("It is not done yet; the work goes on.", "TIMEOUT", "Look at the status later.")
        time.sleep(POLL_SECONDS)


def add_wait(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--wait", action="store_true", help="Return when the work is done; status 1 if some of it failed."
    )
    parser.add_argument(
        "--timeout", type=float, default=86400.0, metavar="SECONDS", help="Wait no longer than this."
    )


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows of equal keys as lines of aligned columns."""
    if not rows:
        return []
    heads = [key for key, value in rows[0].items() if not isinstance(value, (list, dict))]
    cells = [[head.replace("_", " ").upper() for head in heads]]
    cells += [["" if row[head] is None else str(row[head]) for head in heads] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
