from __future__ import annotations

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from providers_app import connections
from providers_app.models import Inventory, Provider
from rasweb.admin import Observed, site


@admin.register(Provider, site=site)
class Providers(Observed):
    """Settings and secrets are changed on the pages, where they are tried first. In use: not deleted."""

    list_display = ("name", "kind", "enabled", "reachability", "last_seen_at", "error_code")
    list_filter = ("kind", "enabled", "reachability")
    search_fields = ("name",)
    editable = ("bandwidth_limit", "max_copies")
    hidden = ("sealed_secrets",)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.has_module_permission(request)

    def delete_model(self, request: HttpRequest, obj: Provider) -> None:
        connections.delete(obj)


@admin.register(Inventory, site=site)
class Inventories(Observed):
    """What was read at the last check; it goes with its provider and comes back with the next check."""

    list_display = ("provider", "read_at")

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.has_module_permission(request)
