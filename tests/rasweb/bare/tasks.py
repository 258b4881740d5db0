"""Tasks that leave a trace in files of the data folder."""

import os
import time

from django.conf import settings

from rasweb import processes
from rasweb.pulse import stopping


def trace(name: str, text: str = "") -> None:
    with open(settings.DATA_DIR / name, "a") as file:
        file.write(f"{os.getpid()} {text}\n")


def look() -> None:
    trace("looked")


def mark(text: str) -> None:
    trace("marked", text)


def long(seconds: float) -> None:
    """Work that puts down what it holds when it is told to."""
    trace("began")
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stopping():
        time.sleep(0.05)
    trace("put down" if stopping() else "done")


def deaf(seconds: float) -> None:
    trace("began")
    time.sleep(seconds)


def with_child() -> None:
    trace("child", str(processes.start(["sleep", "60"]).pid))
    time.sleep(60)
