"""The end of a backend that no longer serves: what it still owes gets its time, then it is stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapper import sockets
from swapper.drain import Settling, Verdict
from swapper.model import Protocol

if TYPE_CHECKING:
    from swapper.model import PortSet
    from swapper.site import Site

__all__ = ["retire"]

POLL_S = 0.05


def retire(site: Site, port_set: PortSet) -> bool:
    """Stop the backend on a set once nothing waits in its sockets; whether one ran.

    New traffic goes elsewhere already. It is given until its receive queues have been empty for the settle time,
    in which the replies in flight leave, and its TCP connections are closed; at most for the drain's timeout.
    """
    if site.is_alive(port_set):
        _settle(site, port_set)
    return site.backends.stop(port_set)


def _settle(site: Site, port_set: PortSet) -> None:
    service, clock_s = site.service, site.host.clock_s
    ports = {p: {port.target(port_set).port for port in service.of(p)} for p in Protocol}
    pid = site.namespace_pid(port_set)
    began_s = clock_s()
    settling = Settling(service.recipe.settle_s, began_s + max(service.drain_timeout_s, service.recipe.settle_s))
    told_s = began_s
    while True:
        waiting = sum(sockets.waiting_bytes(pid, protocol, ports[protocol]) for protocol in Protocol)
        connected = sockets.connections(pid, ports[Protocol.TCP])
        now_s = clock_s()
        settling = settling.seen(busy=bool(waiting or connected), now_s=now_s)
        verdict = settling.verdict(now_s=now_s)
        if verdict is not Verdict.WAIT:
            break
        if now_s - told_s >= 1 and (waiting or connected):
            left_s = settling.deadline_s - now_s
            site.say(
                f"{service.name}: {connected} TCP connections, {waiting} bytes wait on {port_set}, "
                f"{left_s:.0f} s until it is stopped"
            )
            told_s = now_s
        site.host.sleep(POLL_S)
    if verdict is Verdict.EXPIRED:
        site.say(f"{service.name}: {connected} TCP connections on {port_set} are ended with it")
