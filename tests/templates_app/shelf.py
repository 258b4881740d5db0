"""A template that is distributed to three hosts: made once in each test process, then put where a test wants it."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from datetime import datetime
from pathlib import Path

from django.apps import apps
from django.core import serializers
from django.db import transaction
from django.utils import timezone

from providers_app.drivers import open_driver
from providers_app.models import Installation, Provider
from templates_app.models import PublishedImage

_APPS = ("providers_app", "templates_app")


class Shelf:
    """Rows and folders of an installation, as one test had them; another gets copies of both."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows = ""
        self._made_in = ""
        self._made_at = timezone.now()

    def __bool__(self) -> bool:
        return bool(self._rows)

    def take(self, root: Path) -> None:
        """Keep all rows of our apps, and all that lies below ``root``."""
        _copy(root, self._folder)
        models = [model for label in _APPS for model in apps.get_app_config(label).get_models()]
        rows = [row for model in models for row in model._default_manager.order_by("pk")]
        self._rows = serializers.serialize("json", rows)
        self._made_in, self._made_at = str(root), timezone.now()

    def put(self, root: Path) -> None:
        """Fill an empty database and the folder ``root``, as if all had happened a moment ago.

        What is on the hosts was proven: the copies of it count as proven too.
        """
        _copy(self._folder, root)
        since = timezone.now() - self._made_at
        found = defaultdict(list)
        for row in serializers.deserialize("json", self._rows.replace(self._made_in, str(root))):
            for field in row.object._meta.concrete_fields:
                at = getattr(row.object, field.attname)
                if isinstance(at, datetime):
                    setattr(row.object, field.attname, at + since)
            found[type(row.object)].append(row.object)
        with transaction.atomic():  # rows may come before those they point to
            Installation.objects.all().delete()
            for model, rows in found.items():
                model._default_manager.bulk_create(rows)
        for provider in Provider.objects.all():
            address = provider.address()
            with open_driver(address.kind, address.settings) as host:
                for image in host.survey().images:
                    known = PublishedImage.objects.get(target__provider=provider, name=image.name)
                    host.confirm(image.name, known.version.template.mark(), image.stamp)
                    PublishedImage.objects.filter(pk=known.pk).update(stamp=image.stamp)


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", "--sparse=always", f"{source}/.", target], check=True)
