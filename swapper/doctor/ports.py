"""Who else has a hand on the services' ports: Docker's userland proxy, other listeners, and outsiders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from swapper import sockets
from swapper.doctor.findings import Level, Problem
from swapper.model import Protocol, Service

if TYPE_CHECKING:
    from swapper.config import Config

__all__ = ["exposure", "proxies"]


def proxies(config: Config) -> Iterator[Problem]:
    """Whether a process takes the datagrams of a public or an internal port."""
    proxied = set(_docker_proxies())
    for service in config.services.values():
        public = {(port.protocol, port.public) for port in service.ports}
        for protocol, number in sorted((public | _internal(service)) & proxied):
            found = f"{service.name}: docker-proxy stands before {protocol} port {number}"
            yield Problem(Level.WARN, found, "docker run --network host ...  # instead of -p")
        for protocol, number in sorted(public - proxied):
            if number in sockets.listening("self", protocol):
                listener = sockets.owner(protocol, number)
                found = (
                    f"{service.name}: {listener} listens on public {protocol} port {number}, "
                    "and has its traffic whenever the rules are away"
                )
                yield Problem(
                    Level.WARN, found, f"ss -lnp 'sport = :{number}'  # then stop it, or give it another port"
                )


def exposure(config: Config) -> Iterator[Problem]:
    """Whether outsiders reach an internal port, around the public one."""
    for service in config.services.values():
        if service.protect:
            continue
        for protocol in Protocol:
            numbers = {number for kind, number in _internal(service) if kind is protocol}
            for number in sorted(numbers & _open_to_all(protocol)):
                found = f"{service.name}: outsiders reach internal {protocol} port {number}: protect is off"
                mend = f"set protect = true in {config.path}, then: swapper apply {service.name}"
                yield Problem(Level.WARN, found, mend)


def _internal(service: Service) -> set[tuple[Protocol, int]]:
    return {(p.protocol, target.port) for p in service.ports for target in (p.blue, p.green) if target.on_host}


def _open_to_all(protocol: Protocol) -> set[int]:
    """Ports of sockets that are bound to no address."""
    listening = sockets.listening("self", protocol)
    return {one.port for one in sockets.read("self", protocol) if one.port in listening and not int(one.address, 16)}


def _docker_proxies() -> Iterator[tuple[Protocol, int]]:
    """The ports of this network namespace that a docker-proxy listens on."""
    here = Path("/proc/thread-self/ns/net").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if os.path.basename(words[0]) == "docker-proxy" and (process / "ns/net").readlink() == here:  # noqa: PTH119 - a word, not a path
                option = dict(pairwise(words))
                yield Protocol(option["-proto"]), int(option["-host-port"])
