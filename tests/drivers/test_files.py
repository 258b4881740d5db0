"""Names and small files below one root, and what errors of the system become."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers_app.drivers import DriverError, Missing, NoSpace, Refused, Unreachable, files
from providers_app.drivers.files import Folder, Root
from providers_app.drivers.oserrors import fault


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Root]:
    with Root(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY), str(tmp_path)) as opened:
        yield opened


@pytest.fixture(params=["with all calls", "with plain calls only"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system, and one that lacks whatever may be lacking."""
    if request.param == "with all calls":
        return

    def do(call: Any, *args: Any, **kwargs: Any) -> Any:
        if call in (files._renameat2, os.link) or (
            call is os.open and args[1] & os.O_TMPFILE == os.O_TMPFILE
        ):
            raise OSError(errno.EOPNOTSUPP, "not here")
        return call(*args, **kwargs)

    monkeypatch.setattr(files, "do", do)


@pytest.mark.usefixtures("system")
def test_a_small_file_is_made_once(folder: Root) -> None:
    folder.create("note", b"first")
    with pytest.raises(FileExistsError):
        folder.create("note", b"second")
    assert folder.read("note") == b"first"
    folder.replace("note", b"third")
    assert (folder.read("note"), folder.names()) == (b"third", ["note"])


@pytest.mark.usefixtures("system")
def test_a_rename_never_replaces(folder: Root) -> None:
    folder.create("one", b"1")
    folder.create("other", b"2")
    folder.make_folder("full")
    folder.make_folder("empty")
    for old, new in (("one", "other"), ("full", "empty"), ("one", "empty"), ("full", "one")):
        with pytest.raises(FileExistsError):
            folder.rename(old, new)
    folder.rename("one", "third")
    folder.rename("full", "fuller")
    assert folder.names() == ["empty", "fuller", "other", "third"]
    assert folder.read("third") == b"1"


def test_two_names_are_exchanged_or_left(folder: Root) -> None:
    folder.create("one", b"1")
    folder.create("other", b"2")
    assert folder.exchange("one", "other")
    assert (folder.read("one"), folder.read("other")) == (b"2", b"1")
    with pytest.raises(FileNotFoundError):
        folder.exchange("one", "missing")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0"])
def test_a_name_is_never_a_path(folder: Root, name: str) -> None:
    assert folder.stat(name) is None
    for call in (folder.folder, folder.open, folder.read):
        with pytest.raises(FileNotFoundError):
            call(name)


def test_links_are_not_followed(folder: Root, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").symlink_to("/etc")
    with pytest.raises(OSError, match="symbolic"):
        folder.open("link")
    with pytest.raises(NotADirectoryError):
        folder.folder("folder")


def test_a_pipe_is_never_waited_for(folder: Root, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="symbolic"):
        folder.read("pipe")


def test_an_endless_small_file_is_refused(folder: Root, tmp_path: Path) -> None:
    (tmp_path / "huge").write_bytes(bytes(files.SMALL + 1))
    with pytest.raises(OSError, match="too large"):
        folder.read("huge")


def test_an_endless_folder_is_refused(folder: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_ENTRIES", 2)
    for name in "abc":
        folder.create(name, b"")
    with pytest.raises(OSError, match="too large"):
        folder.names()


def test_the_lock_lets_one_in_at_a_time(folder: Root) -> None:
    inside = threading.Event()

    def other() -> None:
        with folder.lock("lock"):
            inside.set()

    with folder.lock("lock"):
        thread = threading.Thread(target=other)
        thread.start()
        assert not inside.wait(0.03)
        with pytest.raises(TimeoutError), folder.lock("lock", seconds=0.0):
            pass
    assert inside.wait(5)
    thread.join()


def test_the_same_name_in_another_folder_is_another(folder: Root) -> None:
    folder.make_folder("inner")
    with folder.folder("inner") as inner, folder.again() as again:
        inner.create("x", b"inner")
        assert again.stat("x") is None
        again.create("x", b"outer")
        inner.clear()
        assert (inner.names(), folder.names()) == ([], ["inner", "x"])


@given(st.text())
def test_whatever_a_host_says_can_be_shown_and_stored(text: str) -> None:
    shown = files.shown(text)
    assert shown.isprintable()
    assert len(shown) <= 1000
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – ünï", "plain – ünï"),
        ("a\tb\x00", r"a\tb\x00"),
        ("\u202ex\udcff", r"\u202ex\udcff"),
        ("x" * 101, "x" * 99 + "…"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert files.shown(text) == shown


ERRORS: dict[int, tuple[type[DriverError], str]] = {
    errno.ENOSPC: (NoSpace, "NO_SPACE"),
    errno.EDQUOT: (NoSpace, "NO_SPACE"),
    errno.EACCES: (Refused, "PERMISSION"),
    errno.EPERM: (Refused, "PERMISSION"),
    errno.EROFS: (Refused, "PERMISSION"),
    errno.ENOENT: (Missing, "MISSING"),
    errno.ESTALE: (Unreachable, "UNREACHABLE"),
    errno.EIO: (Unreachable, "UNREACHABLE"),
    errno.ENOTCONN: (Unreachable, "UNREACHABLE"),
    errno.EHOSTDOWN: (Unreachable, "UNREACHABLE"),
    errno.ETIMEDOUT: (Unreachable, "TIMEOUT"),
    errno.ELOOP: (Refused, "PREREQUISITE"),
    errno.ENOTDIR: (Refused, "PREREQUISITE"),
    errno.EEXIST: (Refused, "PATH_CONFLICT"),
    errno.ENOLCK: (Refused, "PREREQUISITE"),
    errno.EMFILE: (DriverError, "FAILED"),
}


@pytest.mark.parametrize("number", ERRORS)
def test_an_error_of_the_system_becomes_ours(number: int) -> None:
    family, code = ERRORS[number]
    said = fault(OSError(number, os.strerror(number), "/controller/secret/path"), "the image x", "/srv/host")
    assert (type(said), said.code) == (family, code)
    assert "/srv/host" in said.text
    assert "the image x" in said.text or "it" in said.text
    assert "secret" not in said.text + said.action
    assert said.text.endswith(".")
    assert said.action.endswith(".")


def test_trying_again_makes_sense_only_for_some() -> None:
    permanent = {number: fault(OSError(number, "x"), "x", "/h").permanent for number in ERRORS}
    assert {number for number, never in permanent.items() if not never} == {
        errno.ESTALE,
        errno.EIO,
        errno.ENOTCONN,
        errno.EHOSTDOWN,
        errno.ETIMEDOUT,
        errno.EMFILE,
    }


def test_closing_a_folder_twice_is_safe(tmp_path: Path) -> None:
    folder = Folder(os.open(tmp_path, os.O_RDONLY))
    folder.close()
    folder.close()
