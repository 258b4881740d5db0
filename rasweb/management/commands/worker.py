from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from rasweb import workers


class Command(BaseCommand):
    requires_system_checks = ["rasweb"]
    help = "Run the worker set: the queue's processes, the reconciler and the health checks. Ends on SIGTERM."

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(workers.run())
