"""Log lines: a record is one line; whatever follows it, a traceback or a hostile name, is indented."""

from __future__ import annotations

import logging
import re
import time

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class Formatter(logging.Formatter):
    """``time level logger message``, in UTC, without control characters."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s")

    def converter(self, seconds: float | None) -> time.struct_time:
        return time.gmtime(seconds)

    def format(self, record: logging.LogRecord) -> str:
        return _CONTROL.sub("?", super().format(record)).replace("\n", "\n    ")
