"""The settings of a directory host."""

from __future__ import annotations

from providers_app.drivers.setting import Field

FIELDS = (
    Field(
        "path",
        "Folder",
        help="The absolute path of the host's folder, below one of the allowed roots. It must exist.",
        required=True,
    ),
    Field(
        "networks",
        "Virtual switches",
        help="Names of the virtual switches of this host, separated by commas. Empty: any name will do.",
    ),
)
