"""Whether a local client may take an internal port as its source port, and be mistaken for a backend's reply."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swapper.model import Service

__all__ = ["unreserved"]


def unreserved(service: Service) -> tuple[str, str]:
    """What is wrong in words, and the command that mends it; both empty when nothing is.

    Empty too on a host without IPv4, or one that hides its sysctls.
    """
    try:
        low, high = map(int, _sysctl("ip_local_port_range").split())
        reserved = _sysctl("ip_local_reserved_ports")
    except OSError:
        return "", ""
    internal = {t.port for p in service.ports for t in (p.blue, p.green) if t.on_host and low <= t.port <= high}
    exposed = ",".join(map(str, sorted(internal - _ports(reserved))))
    if not exposed:
        return "", ""
    found = (
        f"internal ports {exposed} lie in ip_local_port_range {low}-{high}, "
        "where a local client may take one as its source port"
    )
    return found, f"sysctl -w net.ipv4.ip_local_reserved_ports={reserved + ',' if reserved else ''}{exposed}"


def _sysctl(name: str) -> str:
    return Path(f"/proc/sys/net/ipv4/{name}").read_text(encoding="ascii").strip()


def _ports(ranges: str) -> set[int]:
    """The ports of a list like `8080,9148-9150` (ip_local_reserved_ports in the kernel's ip-sysctl)."""
    ends = (part.split("-") for part in ranges.split(",") if part)
    return {port for first, *last in ends for port in range(int(first), int((last or [first])[0]) + 1)}
