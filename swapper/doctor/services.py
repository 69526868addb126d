"""Whether conntrack, the state and the kernel can carry the services through their next swap."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from swapper.doctor.findings import Level, Problem
from swapper.errors import MissingError, StateError, SwapperError
from swapper.operations import Host
from swapper.state import StateFile

if TYPE_CHECKING:
    from swapper.config import Config

__all__ = ["conntrack", "filled", "in_sync", "state"]

FULL, FILLING = 0.8, 0.5
SYSCTL = Path("/proc/sys/net/netfilter")


def conntrack(config: Config) -> Iterator[Problem]:
    """How full conntrack is, now and after a cut of every service."""
    if not (SYSCTL / "nf_conntrack_max").exists():
        return  # not loaded: nothing can be in it
    count, limit = (int((SYSCTL / f"nf_conntrack_{name}").read_text(encoding="ascii")) for name in ("count", "max"))
    yield from filled(count, limit, live=_live_flows(config))


def filled(count: int, limit: int, *, live: int) -> Iterator[Problem]:
    """What `count` entries of at most `limit` come to, when a cut gives `live` of them an entry in another zone."""
    mend = f"sysctl -w net.netfilter.nf_conntrack_max={max(2 * limit, 4 * count)}"
    if count > FILLING * limit:
        level = Level.FAIL if count > FULL * limit else Level.WARN
        yield Problem(level, f"conntrack holds {count} entries of at most {limit}; a full one drops new flows", mend)
    if count + live > limit:
        found = f"conntrack holds {count} entries of at most {limit}; a cut needs room for {live} more"
        yield Problem(Level.FAIL, found, mend)


def state(config: Config) -> Iterator[Problem]:
    """Whether mapped.txt can be trusted, and the folders of state and locks written."""
    file = StateFile(config.state_dir)
    try:
        file.read()
    except MissingError as error:
        yield Problem(Level.FAIL, str(error), "sudo swapper doctor")
    except StateError as error:
        yield Problem(Level.FAIL, str(error), f"mv {file.path} {file.path}.bad && swapper apply")
    for folder in (config.state_dir, config.run_dir):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir():
            yield Problem(Level.FAIL, f"{there} is no folder", f"mv {there} {there}.bad")
        elif not os.access(there, os.W_OK | os.X_OK):
            yield Problem(Level.FAIL, f"{there} cannot be written", "sudo swapper doctor")


def in_sync(config: Config) -> Iterator[Problem]:
    """Whether the kernel carries what is meant and configured."""
    host = Host(config)
    for service in config.services.values():
        report = host.status(service)
        if not report.in_sync:
            found = "; ".join(report.kernel.faults) or "the kernel does not carry the set that the state names"
            yield Problem(Level.FAIL, f"{service.name}: {found}", f"swapper apply {service.name}")


def _live_flows(config: Config) -> int:
    """The flows of all services; those of one that cannot be looked at are not known, and the others still are."""
    host, live = Host(config), 0
    for service in config.services.values():
        with suppress(SwapperError):
            live += sum(count or 0 for count in host.status(service).flows.values())
    return live
