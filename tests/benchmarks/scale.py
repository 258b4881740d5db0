"""``python -m tests.benchmarks.scale``: what thousands of waiting targets cost a controller, on SQLite and PostgreSQL.

Each measurement is a process of its own on a database of its own: rows as they are in the middle of a distribution, the
real reconciler, the real beat of running copies in as many processes as there are engines, the real pages.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from typing import Any

from tests.product import ROOT
from tests.rasweb.servers import PostgresServer

TEMPLATES, ENGINES = 4, 5
SIZES = ((20, 5), (2000, 50))
GIB = 1 << 30


def main() -> None:
    options = _options()
    if options.one:
        print(json.dumps(Controller(*options.one).measure(options.seconds)))
        return
    rows = [apart(database, size, options.seconds) for database in ("SQLite", "PostgreSQL") for size in SIZES]
    print(json.dumps(rows, indent=2) if options.json else table(rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8, help="of progress in each measurement (8)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=2, type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def apart(database: str, size: tuple[int, int], seconds: float) -> dict[str, Any]:
    """Measure in a process of its own, on a database of its own that is gone afterwards."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rasweb-bench-"))
        url = f"sqlite:///{folder}/rasweb.sqlite3"
        if database == "PostgreSQL":
            server = PostgresServer().start()
            stack.callback(server.stop)
            url = server.url
        argv = [sys.executable, "-m", __spec__.name, "--one", *map(str, size), "--seconds", str(seconds)]
        known = {name: value for name, value in os.environ.items() if not name.startswith("RASWEB_")}
        env = known | {"RASWEB_DATA_DIR": folder, "RASWEB_DATABASE_URL": url, "RASWEB_DEBUG": "yes"}
        done = subprocess.run(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, check=True, timeout=600)
        found: dict[str, Any] = json.loads(done.stdout)
        return {"database": database, "waiting": size[0], "running": size[1]} | found


def table(rows: list[dict[str, Any]]) -> str:
    """One column for each measurement."""
    heads = [f"{row['database']} {row['waiting']}+{row['running']}" for row in rows]
    lines = [f"{'ms wall / own CPU (queries)':<34}" + "".join(f"{head:>24}" for head in heads)]
    for name in rows[0]["work"]:
        cells = [row["work"][name] for row in rows]
        texts = [
            f"{1000 * cell['seconds']:.1f} / {1000 * cell['cpu']:.1f} ({cell['queries']})" for cell in cells
        ]
        lines.append(f"{name:<34}" + "".join(f"{text:>24}" for text in texts))
    lines += [
        f"{name:<34}" + "".join(f"{row['progress'][name]:>24}" for row in rows)
        for name in rows[0]["progress"]
    ]
    return "\n".join(lines)


class Controller:
    """A database in the middle of a distribution."""

    def __init__(self, waiting: int, running: int) -> None:
        os.environ["DJANGO_SETTINGS_MODULE"] = "rasweb.settings"
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        self.waiting, self.running = waiting, running
        self.furnish()

    def furnish(self) -> None:
        """Templates that wait on every host, and one that is copied to some of them."""
        from django.contrib.auth.models import User
        from django.utils import timezone

        from providers_app.models import Inventory, Provider

        hosts = max(self.running, self.waiting // TEMPLATES) + 2
        now = timezone.now()
        Provider.objects.bulk_create(
            Provider(
                name=f"host-{number:04}",
                kind="directory",
                host_id=str(number),
                reachability="online",
                last_seen_at=now,
                online_since=now,
                max_copies=1000,
            )
            for number in range(hosts)
        )
        self.hosts = list(Provider.objects.order_by("pk"))
        Inventory.objects.bulk_create(Inventory(provider=host, read_at=now) for host in self.hosts)
        self.moving = self.template("moving", 1000)
        self.engines = [
            self.targets(self.moving, self.hosts[1 + engine : 1 + self.running : ENGINES], engine)
            for engine in range(ENGINES)
        ]
        for number in range(TEMPLATES):
            template = self.template(f"waiting-{number}", 1)
            self.targets(template, self.hosts[1 : 1 + self.waiting // TEMPLATES])
            self.targets(template, self.hosts[-1:], ENGINES + number)
            self.targets(
                self.template(f"installed-{number}", 1),
                self.hosts[1 : 1 + self.waiting // TEMPLATES],
                done=True,
            )
        User.objects.create_superuser("ada")

    def template(self, name: str, concurrent: int) -> Any:
        from templates_app.models import DistributionTarget, Template, TemplateVersion

        template = Template.objects.create(
            name=name, source_provider=self.hosts[0], source_vm="golden", max_concurrent=concurrent
        )
        disk = {
            "name": "disk0",
            "format": "raw",
            "size": 40 * GIB,
            "allocated": 10 * GIB,
            "digest": "ab" * 32,
        }
        version = TemplateVersion.objects.create(
            template=template, number=1, disks=[disk | {"manifest": f"{'ab' * 32}.manifest"}]
        )
        Template.objects.filter(pk=template.pk).update(current_version=version, phase="ready")
        template.refresh_from_db()
        DistributionTarget.objects.create(
            template=template,
            provider=self.hosts[0],
            phase="installed",
            wanted_version=version,
            installed_version=version,
            verified_at=version.sealed_at,
        )
        return template

    def targets(
        self, template: Any, hosts: list[Any], engine: int | None = None, *, done: bool = False
    ) -> list[Any]:
        """Targets that wait, that an engine copies to, or that are done."""
        from django.utils import timezone

        from templates_app.models import DistributionTarget

        held: dict[str, Any] = {}
        if engine is not None:
            held = {
                "phase": "copying",
                "owner": f"elsewhere/{engine}",
                "reading_from": self.hosts[0],
                "copying_version": template.current_version,
                "started_at": timezone.now(),
            }
        if done:
            held = {
                "phase": "installed",
                "installed_version": template.current_version,
                "verified_at": timezone.now(),
            }
        return DistributionTarget.objects.bulk_create(
            DistributionTarget(
                template=template,
                provider=host,
                wanted_version=template.current_version,
                bytes_total=10 * GIB,
                claim=None if engine is None else uuid.uuid4(),
                **held,
            )
            for host in hosts
        )

    def measure(self, seconds: float) -> dict[str, Any]:
        from django.db import connection

        from templates_app import places
        from templates_app.pages import frame
        from templates_app.reconciler import Reconciler

        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
        reconciler = Reconciler()
        keys = {("distributiontarget", target.pk) for targets in self.engines for target in targets}
        crew = places.Crew(self.hosts[0], self.moving.sealed_version, ())
        work: dict[str, Callable[[], object]] = {
            "reconciler pass": reconciler.run,
            "who waits for an engine": places.waiting_templates,
            "who may go along": lambda: places.claim_more(crew),
            "frame: templates": lambda: frame("templates", keys),
            "frame: template": lambda: frame(f"template:{self.moving.pk}", keys),
            "frame: activity": lambda: frame("activity", keys),
            "frame: every page": lambda: frame("chrome", keys),
            "page: overview": lambda: self.get("/"),
            "page: templates": lambda: self.get("/templates/"),
            "page: template": lambda: self.get(f"/templates/{self.moving.pk}/"),
            "page: waiting template": lambda: self.get(f"/templates/{self.moving.pk + 1}/"),
            "page: activity": lambda: self.get("/activity/"),
            "page: providers": lambda: self.get("/providers/"),
        }
        reconciler.run()
        return {"work": {name: timed(do) for name, do in work.items()}, "progress": self.progress(seconds)}

    def get(self, path: str) -> None:
        from django.contrib.auth.models import User
        from django.test import Client

        client = Client(SERVER_NAME="localhost")
        client.force_login(User.objects.get())
        response = client.get(path)
        if response.status_code != 200:
            raise RuntimeError(f"{path}: {response.status_code}")

    def progress(self, seconds: float) -> dict[str, Any]:
        """The beats of all engines at once, one process for each, while the reconciler runs beside them."""
        from django.db import connections

        from templates_app.reconciler import Reconciler

        connections.close_all()
        pipes = [_forked(lambda targets=targets: beats(targets, seconds)) for targets in self.engines]
        reconciler, passes = Reconciler(), []
        reconciler.run()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            reconciler.run()
            passes.append(time.monotonic() - began)
            time.sleep(max(0.0, 1.0 - passes[-1]))
        told = [json.load(pipe) for pipe in pipes]
        taken = sorted(beat for one in told for beat in one["beats"])
        written = sum(len(one["beats"]) for one in told) * max(1, self.running // ENGINES)
        return {
            "progress writes a second": round(written / seconds),
            "ms of a beat, median": round(1000 * median(taken), 1),
            "ms of a beat, longest": round(1000 * taken[-1], 1),
            "ms of CPU for a target's second": round(1000 * sum(one["cpu"] for one in told) / written, 2),
            "beats that met a lock": sum(one["faults"] for one in told),
            "reconciler pass meanwhile": round(1000 * median(passes), 1),
        }


def timed(work: Callable[[], object], rounds: int = 5) -> dict[str, Any]:
    """The least that some rounds took after a first one, in wall and own processor time, and the queries of one."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    work()
    taken, used = [], []
    for _ in range(rounds):
        began, spent = time.perf_counter(), time.process_time()
        work()
        taken.append(time.perf_counter() - began)
        used.append(time.process_time() - spent)
    with CaptureQueriesContext(connection) as queries:
        work()
    return {"seconds": min(taken), "cpu": min(used), "queries": len(queries)}


class Quiet:
    """An engine that is never told anything which it would have to do."""

    def limit(self, rate: int, lane: str | None = None) -> None: ...
    def cancel(self, lane: str) -> None: ...


def beats(targets: list[Any], seconds: float) -> dict[str, Any]:
    """Follow copies to these targets as the parent of an engine does, with progress in each second."""
    from django.db import DatabaseError

    from templates_app.copying import Copy
    from templates_app.models import DistributionTarget
    from templates_app.transfer.events import LaneProgress

    rows = DistributionTarget.objects.filter(pk__in=[target.pk for target in targets])
    mine = list(rows.select_related("template", "provider", "wanted_version", "reading_from"))
    copy = Copy(mine[0].reading_from, mine[0].wanted_version, [(target, {}) for target in mine])
    copy._engine = Quiet()  # type: ignore[assignment]  # no bytes move here
    taken: list[float] = []
    faults, used, end = 0, time.process_time(), time.monotonic() + seconds
    while time.monotonic() < end:
        done = len(taken) << 20
        spent = {"write": float(len(taken)), "source": 0.1 * len(taken)}
        copy._progress = {
            str(target.pk): LaneProgress("copying", done, 10 * GIB, 1e8, spent) for target in mine
        }
        began = time.monotonic()
        try:
            copy._beat()
        except DatabaseError:
            faults += 1
        taken.append(time.monotonic() - began)
        time.sleep(max(0.0, 1.0 - taken[-1]))
    return {"beats": taken, "faults": faults, "cpu": time.process_time() - used}


def _forked(work: Callable[[], dict[str, Any]]) -> Any:
    """Do ``work`` in a process of its own; return where its answer can be read, once it is done."""
    reader, writer = os.pipe()
    if not os.fork():
        os.write(writer, json.dumps(work()).encode())
        os._exit(0)
    os.close(writer)
    return os.fdopen(reader)


if __name__ == "__main__":
    main()
