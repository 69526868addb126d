"""What has to be installed or running here, and what this process may do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from swapper import dataplane as dataplanes
from swapper.dataplane import iptables, libnftables
from swapper.doctor.findings import Level, Problem
from swapper.errors import MissingError
from swapper.model import BackendKind, Engine, Service, UdpMode
from swapper.operations import has_net_admin

if TYPE_CHECKING:
    from swapper.config import Config

__all__ = ["permissions", "tools"]

INSTALL = {
    Engine.NFTABLES: libnftables.INSTALL,
    Engine.IPTABLES_NFT: iptables.INSTALL,
    Engine.IPTABLES_LEGACY: f"{iptables.INSTALL} && pip install 'portswap[legacy]'",
}


def permissions(_config: Config) -> Iterator[Problem]:
    """Whether netfilter may be programmed."""
    if not has_net_admin():
        yield Problem(Level.FAIL, "this process lacks CAP_NET_ADMIN, which all commands need", "sudo swapper doctor")


def tools(config: Config) -> Iterator[Problem]:
    """What the services' engines, drains and backends need."""
    services = config.services.values()
    for service in services:
        yield from _engine(service)
    kinds = {service.backend for service in services}
    if BackendKind.DOCKER in kinds:
        yield from _docker()
    if BackendKind.PROCESS in kinds and Path("/run/systemd/system").exists() and not shutil.which("systemd-run"):
        yield Problem(Level.WARN, "systemd runs here, but systemd-run is missing", "apt-get install -y systemd")
    if not shutil.which("conntrack"):
        yield Problem(Level.OK, "the conntrack tool is not here: Swapper does without", "apt-get install -y conntrack")


def _engine(service: Service) -> Iterator[Problem]:
    try:
        engine = dataplanes.for_service(service).engine
        if engine is Engine.IPTABLES_LEGACY:
            iptables.iptc()  # opening does without it, committing does not
    except MissingError as error:
        wanted = service.engine or dataplanes.ENGINES[service.dataplane][0]
        yield Problem(Level.FAIL, f"{service.name}: {error}", INSTALL[wanted])
        return
    if service.udp is UdpMode.DRAIN and engine is not Engine.NFTABLES and not shutil.which("ipset"):
        yield Problem(Level.FAIL, f"{service.name}: a drain on {engine} needs ipset", "apt-get install -y ipset")


def _docker() -> Iterator[Problem]:
    from swapper.engine import client

    try:
        client()
    except MissingError as error:
        mend = "pip install 'portswap[docker]'" if "SDK" in str(error) else "systemctl start docker"
        yield Problem(Level.FAIL, str(error), mend)
