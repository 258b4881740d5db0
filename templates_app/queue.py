"""The way into the queue. Messages are hints and carry a key only: losing or doubling one changes nothing."""

from __future__ import annotations

import logging

from django.db import transaction
from django_q.tasks import async_task

log = logging.getLogger(__name__)


def soon(task: str, pk: int) -> None:
    """Ask a worker, after commit, to look at one row. ``task`` is a function of :mod:`templates_app.tasks`."""
    transaction.on_commit(lambda: send(task, pk), robust=True)


def send(task: str, pk: int) -> None:
    async_task(f"templates_app.tasks.{task}", pk, group=task)
