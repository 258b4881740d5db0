"""What a host tells by itself: that its VMs, networks or pools changed, or that it is lost.

libvirt calls back in whichever thread is at hand, even one that waits for an answer of another host: a callback only
puts a word into a queue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any

from providers_app.drivers.errors import Unreachable

from . import connection, uri
from .errors import NO_SUPPORT, code_of, errors

KEEPALIVE = (2, 3)  # a host that fell silent is noticed after eight seconds
_TICK = 1.0


def watch(settings: Mapping[str, Any], tell: Callable[[], None], ended: Event) -> None:
    """Tell of each change until ``ended`` is set; Unreachable when the host is lost."""
    where = uri.label(settings)
    link = connection.connect_patiently(uri.build(settings), where, KEEPALIVE)
    news: SimpleQueue[bool] = SimpleQueue()
    with errors("its events", where), ExitStack() as leaving:
        leaving.callback(_quietly, link.close)
        _subscribe(link, news, leaving)
        tell()
        while not ended.is_set():
            with suppress(Empty):
                if not news.get(timeout=_TICK):
                    raise Unreachable(f"The host {where} closed the connection, or fell silent.")
                tell()


def _subscribe(link: Any, news: SimpleQueue[bool], leaving: ExitStack) -> None:
    """Have True put into ``news`` for each change, False when the connection is lost.

    A connection that still has subscribers is never really closed: each leaves before.
    """
    import libvirt

    def changed(*_: Any) -> None:
        news.put(True)

    link.registerCloseCallback(lambda *_: news.put(False), None)
    leaving.callback(_quietly, link.unregisterCloseCallback)
    for subject, event in (
        ("domain", libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE),
        ("domain", libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE),
        ("network", libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE),
        ("storagePool", libvirt.VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE),  # not its refresh: each check makes one
    ):
        try:
            number = getattr(link, f"{subject}EventRegisterAny")(None, event, changed, None)
        except libvirt.libvirtError as error:
            if subject == "domain" or code_of(error) != NO_SUPPORT:
                raise
        else:
            leaving.callback(_quietly, getattr(link, f"{subject}EventDeregisterAny"), number)


def _quietly(call: Callable[..., Any], *args: Any) -> None:
    import libvirt

    with suppress(libvirt.libvirtError):
        call(*args)
