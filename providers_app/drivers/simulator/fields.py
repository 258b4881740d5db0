"""The settings of a simulator host."""

from __future__ import annotations

from providers_app.drivers.setting import Field
from providers_app.drivers.simulator import faults

FIELDS = (
    Field(
        "path",
        "Folder",
        help="Where the simulator keeps its state, below one of the allowed roots. Made when it is missing.",
        required=True,
    ),
    Field(
        "vms", "Sample VMs", help="How many VMs to invent when the host is added.", type="integer", default=2
    ),
    Field("size_mib", "Disk size in MiB", help="Of each sample VM.", type="integer", default=16),
    Field(
        "networks",
        "Virtual switches",
        help="Names of the virtual switches of this host, separated by commas. Empty: any name will do.",
    ),
    Field(
        "faults", "Faults", help=f"What goes wrong: {faults.GRAMMAR}. Also read from a file “faults” there."
    ),
    Field("password", "Password", help="Anything will do; with “wrong” the simulator refuses.", secret=True),
)
