"""The settings of a libvirt host: closed parts, never an address as a text of its own."""

from __future__ import annotations

from providers_app.drivers.setting import Field

DEFAULT_SOCKET = "/run/libvirt/libvirt-sock"
SHUTDOWN_SECONDS = 60

FIELDS = (
    Field(
        "transport",
        "Connection",
        help="How the host is reached. Plain TCP has to be allowed for the installation.",
        type="choice",
        required=True,
        default="local",
        choices=(("local", "This machine"), ("ssh", "SSH"), ("tls", "TLS"), ("tcp", "TCP, not encrypted")),
    ),
    Field("host", "Host", help="Name or address of the host; not for this machine itself."),
    Field("port", "Port", help="Empty for the usual one.", type="integer"),
    Field("user", "User", help="The account on the host, for SSH."),
    Field(
        "socket",
        "Socket",
        help="Path of libvirt's socket on this machine, below one of the allowed folders.",
        default=DEFAULT_SOCKET,
    ),
    Field(
        "pool",
        "Storage pool",
        help="Name of the storage pool for images and guest disks; of the type dir, fs or netfs.",
        required=True,
        default="default",
    ),
    Field(
        "network",
        "Virtual switch",
        help="Network or bridge that all guest VMs of this host get. Empty: that of the template.",
    ),
    Field(
        "shutdown_seconds",
        "Seconds to shut down",
        help="How long a guest VM may take to shut down by itself before it is switched off.",
        type="integer",
        default=SHUTDOWN_SECONDS,
    ),
)
