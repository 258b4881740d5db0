"""Static files: gathered, hashed and compressed into the data folder when they have changed."""

from __future__ import annotations

import hashlib
import os
from importlib.metadata import version

import django
from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command


def collect() -> bool:
    """Gather them if needed; return whether it was. Nothing to do in debug mode, which serves the sources."""
    if settings.DEBUG:
        return False
    stamp = settings.DATA_DIR / "static.stamp"
    wanted = fingerprint()
    if stamp.exists() and stamp.read_text() == wanted:
        return False
    stamp.unlink(missing_ok=True)
    call_command("collectstatic", interactive=False, clear=True, verbosity=0)
    stamp.write_text(wanted)
    return True


def fingerprint() -> str:
    """Changes with any source file's path, size or time, and with the tools that prepare them."""
    found = hashlib.sha256(f"{django.__version__} {version('whitenoise')}".encode())
    for finder in get_finders():
        for name, storage in sorted(finder.list([]), key=lambda pair: pair[0]):
            state = os.stat(storage.path(name))
            found.update(f"{storage.path(name)}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return found.hexdigest()
