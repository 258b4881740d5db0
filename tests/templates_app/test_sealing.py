"""A sealing whose engine gets into trouble."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from templates_app import lanes, sealing
from templates_app.models import Event, Template
from templates_app.states import TemplatePhase
from tests.product import children, wait_for


def freeze_engine() -> None:
    def engine() -> int:
        mine = children(os.getpid())
        return next((pid for pid in mine if b"templates_app.transfer" in _command(pid)), 0)

    os.kill(wait_for(engine, what="the engine"), signal.SIGSTOP)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_an_engine_that_falls_silent_is_ended_and_sealing_begins_again(
    ordered: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lanes, "ENGINE_SILENT_SECONDS", 0.5)
    freezing = threading.Thread(target=freeze_engine)
    freezing.start()
    sealing.create(ordered.pk)
    freezing.join()
    template = Template.objects.get(pk=ordered.pk)
    assert (template.phase, template.claim) == (TemplatePhase.CREATING, None)
    assert Event.objects.filter(note="Stopped; another worker begins again.").exists()
    monkeypatch.undo()
    sealing.create(ordered.pk)
    assert Template.objects.get(pk=ordered.pk).phase == TemplatePhase.READY
