from __future__ import annotations

from django.contrib import admin

from rasweb.admin import Observed, site
from templates_app.models import (
    DistributionTarget,
    Event,
    GuestVM,
    PublishedImage,
    RecreateItem,
    RecreateRun,
    Template,
    TemplateVersion,
)


@admin.register(Template, site=site)
class Templates(Observed):
    list_display = (
        "name",
        "phase",
        "source_provider",
        "source_vm",
        "clone_method",
        "current_version",
        "changed_at",
    )
    list_filter = ("phase", "clone_method")
    search_fields = ("name", "source_vm")
    editable = ("max_concurrent",)


@admin.register(TemplateVersion, site=site)
class Versions(Observed):
    list_display = ("template", "number", "created_by", "sealed_at", "retired_at")
    search_fields = ("template__name", "note")
    editable = ("note",)


@admin.register(DistributionTarget, site=site)
class Targets(Observed):
    list_display = ("template", "provider", "desired", "phase", "attempt", "error_code", "changed_at")
    list_filter = ("phase", "desired", "error_code")
    search_fields = ("template__name", "provider__name")


@admin.register(PublishedImage, site=site)
class Images(Observed):
    list_display = ("name", "target", "version", "size", "verified_at")
    search_fields = ("name", "digest")


@admin.register(GuestVM, site=site)
class Guests(Observed):
    list_display = ("name", "template", "provider", "version", "phase", "power", "error_code")
    list_filter = ("phase", "power")
    search_fields = ("name", "template__name", "provider__name")


@admin.register(RecreateRun, site=site)
class Runs(Observed):
    list_display = ("template", "version", "phase", "created_at", "changed_at")
    list_filter = ("phase",)


@admin.register(RecreateItem, site=site)
class Items(Observed):
    list_display = ("guest_name", "run", "phase", "text")
    list_filter = ("phase",)


@admin.register(Event, site=site)
class Events(Observed):
    list_display = ("at", "subject", "from_phase", "to_phase", "by", "code")
    list_filter = ("kind", "code")
    search_fields = ("subject", "template_name", "provider_name", "note", "by")
