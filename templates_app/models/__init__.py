from templates_app.models.event import Event
from templates_app.models.guest import GuestVM, ItemPhase, Power, RecreateItem, RecreateRun
from templates_app.models.target import DistributionTarget, PublishedImage
from templates_app.models.template import CloneMethod, DiskVersion, Template, TemplateVersion
from templates_app.models.work import Work

__all__ = [
    "CloneMethod",
    "DiskVersion",
    "DistributionTarget",
    "Event",
    "GuestVM",
    "ItemPhase",
    "Power",
    "PublishedImage",
    "RecreateItem",
    "RecreateRun",
    "Template",
    "TemplateVersion",
    "Work",
]
