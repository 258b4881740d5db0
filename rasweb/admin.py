"""The Django admin: our own site with our own models, users and roles; no queue, no state, no bulk delete."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from rasweb import access


class Site(admin.AdminSite):
    site_header = site_title = "rasweb"
    index_title = _("Raw data")
    enable_nav_sidebar = True

    def has_permission(self, request: HttpRequest) -> bool:
        return access.at_least(request.user, access.ADMINISTRATOR)


site = Site()
site.disable_action("delete_selected")


class Administered(admin.ModelAdmin):
    """Open to every Administrator, whatever Django's own permissions say."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return access.at_least(request.user, access.ADMINISTRATOR)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.has_module_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_module_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.has_module_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.has_module_permission(request)


class Observed(Administered):
    """Rows that workers move: to be looked at. Only ``editable`` may be written, and nothing else is with it."""

    editable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return [field.name for field in self.opts.fields if field.name not in self.hidden]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return [name for name in self.get_fields(request, obj) if name not in self.editable]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(self.editable) and self.has_module_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        """Write the changed columns alone: workers write the others at the same time."""
        if form.changed_data:
            obj.save(update_fields=form.changed_data)
            if hasattr(obj, "announce"):
                obj.announce()


@admin.register(User, site=site)
class Users(Administered, UserAdmin):
    list_display = ("username", "email", "is_active", "is_superuser", "last_login")
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        (_("Person"), {"fields": ("first_name", "last_name", "email")}),
        (_("Roles"), {"fields": ("is_active", "is_superuser", "groups")}),
        (_("Dates"), {"fields": ("last_login", "date_joined")}),
    )
    readonly_fields = ("last_login", "date_joined")


@admin.register(Group, site=site)
class Groups(Observed, GroupAdmin):
    """The three roles, to be looked at; who has which is set with the user."""

    hidden = ("permissions",)
