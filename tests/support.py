"""What the tests of the swap core share: every dataplane, two services, and the whole listing of a namespace."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from harness.topology import Node, Topology
from swapper.dataplane import ENGINES
from swapper.model import DataplaneName, Engine, PortMap, Protocol, Service, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

MEASURED = logging.getLogger("measured")  # shown by --log-cli-level=INFO
LONELY = Topology("lonely", (Node("host"),), ())
REAL = [(name, engine) for name, engines in ENGINES.items() for engine in engines]
IDS = [f"{name}-{engine}" for name, engine in REAL]
# The interpreter and the libraries that no command can do without; what they take where README's figures were measured.
BARE = (sys.executable, "-c", "import click, ctypes, dataclasses, ipaddress, json, pathlib, socket, tomllib")
BARE_MS = 50.0
FLAVOURS = ("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy")

HOST_PORTS = (
    PortMap(Protocol.UDP, 1000, Target(1001), Target(1002)),
    PortMap(Protocol.UDP, 1010, Target(1011), Target(1012)),
    PortMap(Protocol.TCP, 8080, Target(8081), Target(8082)),
)
BLUE_BEHIND = (ip_address("172.30.0.2"), ip_address("fd00:30::2"))
GREEN_BEHIND = (ip_address("172.30.0.3"), ip_address("fd00:30::3"))
BRIDGED_PORTS = (
    PortMap(Protocol.UDP, 1020, Target(1021, BLUE_BEHIND), Target(1021, GREEN_BEHIND)),
    PortMap(Protocol.TCP, 8090, Target(8091, BLUE_BEHIND), Target(8091, GREEN_BEHIND)),
)


def slowness() -> float:
    """By which factor this machine is, now, slower than that of README's figures; 1 where it is not."""
    # Whatever else the machine does can only add.
    return slower(min(bare_ms() for _ in range(9)))


def slower(taken_ms: float) -> float:
    """The same where what BARE takes was measured otherwise: beside what is judged, since a machine's pace changes."""
    return max(1.0, taken_ms / BARE_MS)


def bare_ms() -> float:
    """What BARE takes this time."""
    began = time.monotonic()
    subprocess.run(BARE, check=True)
    return (time.monotonic() - began) * 1e3


def game(name: DataplaneName, engine: Engine) -> Service:
    """A service with all that the dataplane can carry."""
    bridged = () if name is DataplaneName.STATELESS else BRIDGED_PORTS
    return Service("game", (*HOST_PORTS, *bridged), dataplane=name, engine=engine)


def chat(name: DataplaneName, engine: Engine) -> Service:
    """Another service beside it."""
    ports = (PortMap(Protocol.UDP, 2000, Target(2001), Target(2002)),)
    return Service("chat", ports, dataplane=name, engine=engine)


def moved(service: Service, **changes: int) -> Service:
    """The service with its first port's `public`, `blue` or `green` at another number."""
    first = service.ports[0]
    changed = replace(
        first,
        public=changes.get("public", first.public),
        blue=replace(first.blue, port=changes.get("blue", first.blue.port)),
        green=replace(first.green, port=changes.get("green", first.green.port)),
    )
    return replace(service, ports=(changed, *service.ports[1:]))


def listing() -> str:
    """Every rule, map, set and ipset of the namespace that the caller is in, without counters.

    The empty built-in chains that iptables makes by itself the first time it is used are left out.
    """
    nft = "".join(line for line in _output("nft", "-s", "list", "ruleset").splitlines(True) if not line.startswith("#"))
    nft = re.sub(r"\tchain [A-Z]+ \{\n\t\ttype [^\n]*policy accept;\n\t\}\n\n?", "", nft).replace("\n\n}", "\n}")
    blocks = [block for block in re.findall(r"table .*?\n\}\n", nft, re.DOTALL) if block.count("\n") > 2]
    for flavour in FLAVOURS:
        saved = re.sub(r"^#.*\n", "", _output(f"{flavour}-save"), flags=re.MULTILINE)
        saved = re.sub(r" ?\[\d+:\d+\]", "", saved)
        tables = re.findall(r"^\*.*?^COMMIT\n", saved, re.DOTALL | re.MULTILINE)
        blocks += [f"{flavour} {t}" for t in tables if re.search(r"^(-A|:.* (-|DROP)$)", t, re.MULTILINE)]
    blocks.append("".join(f"{line}\n" for line in sorted(_output("ipset", "save").splitlines())))
    return "\n".join(sorted(blocks))


def parted(text: str) -> tuple[list[str], list[str]]:
    """The lines of a listing that are Swapper's, and those that are not."""
    theirs: list[str] = []
    ours: list[str] = []
    for block in text.split("\n\n"):
        if block.startswith("table inet swapper_"):
            ours += block.splitlines()
            continue
        for line in block.splitlines():
            (ours if re.search(r"SWAPPER-|swapper-|\bSW-|sw-[a-z]+-[bg][46]", line) else theirs).append(line)
    return ours, theirs


def commands(*lines: str) -> None:
    """Run shell lines in the namespace that the caller is in."""
    subprocess.run(["sh", "-ec", "\n".join(lines)], check=True, capture_output=True, text=True)


def _output(*argv: str) -> str:
    return subprocess.run(list[str](argv), check=True, capture_output=True, text=True).stdout


def configuration(folder: Path, name: DataplaneName, engine: Engine | None, *, drain: bool = False) -> Path:
    """A configuration file for a service of host ports, with state and locks beside it."""
    udp = "drain" if drain and name is not DataplaneName.STATELESS else "cut"
    path = folder / f"swapper-{udp}.toml"
    path.write_text(
        f'state_dir = "{folder}/state"\nrun_dir = "{folder}/run"\n'
        f'[services.game]\ndataplane = "{name}"\n'
        + (f'engine = "{engine}"\n' if engine else "")
        + 'ports = [\n  { protocol = "udp", public = 1000, blue = 1001, green = 1002 },\n'
        '  { protocol = "tcp", public = 8080, blue = 8081, green = 8082 },\n]\n'
        f'[services.game.swap]\nudp = "{udp}"\ndrain_timeout = 2\n'
    )
    return path


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A file system of that size, such as `6m`, in memory."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "swapper-test", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
