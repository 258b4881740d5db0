"""Keys of the installation: given by the administrator, or made once and kept in the data folder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from cryptography.fernet import Fernet

FERNET_LIST = "one or more keys of 32 bytes in URL-safe base64, parted by commas"
_SECRET_LENGTH = 50


def secret(text: str) -> str:
    """``text`` if it is long enough to sign with."""
    if len(text) < _SECRET_LENGTH:
        raise ValueError("too short")
    return text


def fernet_list(text: str) -> list[str]:
    """The Fernet keys in a list parted by commas; ValueError if one of them is none."""
    keys = [key.strip() for key in text.split(",")]
    for key in keys:
        Fernet(key)
    return keys


def new_secret() -> str:
    return secrets.token_urlsafe(_SECRET_LENGTH)


def new_fernet() -> str:
    return Fernet.generate_key().decode()


def kept(path: Path, make: Callable[[], str]) -> str:
    """The text in ``path``; the first of all starting processes makes it, readable by its owner only."""
    if not path.exists():
        draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(make() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
