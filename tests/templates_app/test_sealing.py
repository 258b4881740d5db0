"""A sealing whose engine gets into trouble."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from templates_app import lanes, sealing
from templates_app.models import Event, Template
from templates_app.states import TemplatePhase
from tests.product import wait_for
from tests.templates_app.conftest import engine


def freeze_engine() -> None:
    os.kill(wait_for(engine, what="the engine"), signal.SIGSTOP)


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
