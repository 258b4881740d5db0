import logging

from rasweb.logs import Formatter


def line(message: str, *args, exc_info=None) -> str:
    record = logging.LogRecord("rasweb", logging.INFO, "file", 1, message, args, exc_info)
    return Formatter().format(record)


def test_a_hostile_name_can_not_forge_a_line():
    text = line("%s answers", "host\n2026-01-01T00:00:00.000Z INFO 1 rasweb: admin signed in\r\x1b[2J\u2028")
    assert [part[:4] for part in text.splitlines()[1:]] == ["    "]
    assert not {"\r", "\x1b", "\u2028"} & set(text)


def test_a_traceback_belongs_to_its_line():
    try:
        raise ValueError("no")
    except ValueError as error:
        text = line("failed", exc_info=(ValueError, error, error.__traceback__))
    first, *rest = text.splitlines()
    assert first.endswith("rasweb: failed")
    assert rest
    assert all(part.startswith("    ") for part in rest)
