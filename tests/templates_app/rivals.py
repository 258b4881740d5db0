"""An order and a worker that meet at one target, on the database of the environment: ``meet`` tells what came of it."""

from __future__ import annotations

import json
import threading

from django.db import connection, transaction

from providers_app.models import Provider
from templates_app import distribution
from templates_app.gate import order
from templates_app.models import DistributionTarget, TemplateVersion
from templates_app.states import Phase
from tests.product import wait_for
from tests.templates_app.test_places import installed, wait_on

SECONDS = 10.0


def meet() -> None:
    """Order another version while a worker takes the target to copy the former one."""
    source, other = (Provider.objects.create(name=name, kind="directory", host_id=name) for name in "ab")
    template = installed("win11", source)
    target = wait_on(template, other)
    newer = TemplateVersion.objects.create(template=template, number=2)
    worker = Worker(DistributionTarget.objects.get(pk=target.pk))
    try:
        with order(template) as fresh:
            worker.start()
            worker.moved.wait(1)  # it can not, where the order keeps it from writing its history
            distribution.want_version(fresh, newer, "test")
    except Exception as error:
        worker.faults.append(str(error))
    worker.join(SECONDS)
    target.refresh_from_db()
    newest = target.wanted_version == newer
    print(json.dumps({"faults": worker.faults, "phase": target.phase, "newest": newest}))


class Worker(threading.Thread):
    """Takes a target in a transaction that ends when somebody waits for it."""

    def __init__(self, target: DistributionTarget) -> None:
        super().__init__(daemon=True)
        self.moved = threading.Event()
        self.faults: list[str] = []
        self._target = target

    def run(self) -> None:
        try:
            with transaction.atomic():
                self._target.take(Phase.CHECKING)
                self.moved.set()
                wait_for(_somebody_waits, SECONDS, "the order")
        except Exception as error:
            self.faults.append(str(error))
        finally:
            connection.close()


def _somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])
