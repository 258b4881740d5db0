"""``manage.py demo``: a few hosts of one's own to try everything on."""

from __future__ import annotations

import json
import os
import random
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from providers_app import connections
from providers_app.models import Provider
from rasweb.refusals import Refusal

HOSTS = ("hv-ams-01", "hv-ams-02", "hv-fra-01")
SIMULATOR = "sim-lab-01"
SOURCE_VM = "win11-golden"
IMAGE_SIZE = 384 << 20
DATA_RUNS = 36
RUN_SIZE = 6 << 20
BANDWIDTH = 12 << 20


class Command(BaseCommand):
    help = "Make three directory hosts, a simulator host and a source VM below the first allowed root."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--first", action="store_true", help="Only where no demo was made and no provider exists."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", verbosity=0, interactive=False)
        made = Path(settings.DATA_DIR) / "demo-made"
        if options["first"] and (made.exists() or Provider.objects.exists()):
            return
        root = Path(settings.ALLOWED_ROOTS[0])
        try:
            make_source(root / HOSTS[0] / "vms" / SOURCE_VM)
            for name in HOSTS:
                self._add(name, "directory", root / name)
            self._add(SIMULATOR, "simulator", root / SIMULATOR)
        except Refusal as refusal:
            raise CommandError(str(refusal)) from refusal
        except OSError as error:
            raise CommandError(f"The demo can not be made: {error.filename}: {error.strerror}.") from error
        made.touch()
        self.stdout.write(
            f"Made a demo: hosts {', '.join((*HOSTS, SIMULATOR))}, source VM {SOURCE_VM} on {HOSTS[0]}."
        )

    @staticmethod
    def _add(name: str, kind: str, path: Path) -> None:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not Provider.objects.filter(name=name).exists():
            connections.add(name, kind, {"path": str(path)}, limits={"bandwidth_limit": BANDWIDTH})


def make_source(folder: Path) -> None:
    """A VM with one raw disk: runs of data between holes, different in every demo. One that is there stays."""
    if (folder / "disk0.raw").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    definition = {"memory_mib": 4096, "vcpus": 2, "network": "default"}
    (folder / "vm.json").write_text(json.dumps(definition, indent=2) + "\n")
    unfinished = folder / "disk0.new"
    with unfinished.open("wb") as disk:
        disk.truncate(IMAGE_SIZE)
        slots = random.sample(range(IMAGE_SIZE // RUN_SIZE), DATA_RUNS)
        for slot in sorted(slots):
            disk.seek(slot * RUN_SIZE)
            disk.write(os.urandom(RUN_SIZE))
    unfinished.rename(folder / "disk0.raw")
