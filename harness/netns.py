"""Makes a topology real: the only module that creates network namespaces.

Namespaces have no name and are held by file descriptors of this process, so they vanish with it,
`kill -9` included, and two runs never meet; who lives in one when its block ends is killed. The namespace that
the process was started in is never changed. A namespace belongs to a thread: building is for the main one, and what
starts a program here has the calling thread live here meanwhile.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.residents import evict
from harness.topology import family_of
from harness.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.topology import End, Node, Topology

__all__ = ["Namespace", "Net", "build", "dying_with_owner"]

CLONE_NEWNET: Final = 0x40000000
IFA_F_NODAD: Final = 0x02
NUD_PERMANENT: Final = 0x80
LINKS_UP_WITHIN_S: Final = 5.0
# A veth end that has the same index as its peer (in another namespace) passes for hardware, and what happens to its
# carrier is then told of only once a second (linkwatch_urgent_event in net/core/link_watch.c).
FIRST_INDEX: Final = 100
_NS: Final = "/proc/thread-self/ns/net"
_LIBC = ctypes.CDLL(None, use_errno=True)


def dying_with_owner(argv: Sequence[str]) -> list[str]:
    """The command of a program that is killed at the end of this process, or of the thread that starts it.

    Its environment comes to it through a shell, which adds PWD.
    """
    # The owner may have died before setpriv had its say.
    return ["setpriv", "--pdeathsig", "KILL", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid()), *argv]


class Namespace:
    """One live network namespace."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread lives in this namespace meanwhile; sockets made here stay here."""
        home = os.open(_NS, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self.fd)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 60,
        check: bool = True,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end; it dies with this process.

        Raises CalledProcessError (unless `check` is off) and TimeoutExpired.
        """
        with self.entered():
            return subprocess.run(
                dying_with_owner(argv),
                check=check,
                timeout=timeout_s,
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                env=None if env is None else dict(env),
            )

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program here; it dies with this process. `options` are Popen's."""
        with self.entered():
            return subprocess.Popen(dying_with_owner(argv), **options)

    def spawn(self, role: str, spec: Mapping[str, Any]) -> Worker:
        """Start a harness worker here and wait until it is ready; WorkerError if it is not."""
        return self.start(role, spec).await_ready()

    def start(self, role: str, spec: Mapping[str, Any]) -> Worker:
        """Start a harness worker here, without waiting until it is ready."""
        return Worker.start(role, spec, where=self.name, namespace=self.fd)

    def counters(self) -> dict[str, int]:
        """The kernel's UDP counters here, e.g. `UdpInDatagrams`, `Udp6NoPorts`, `UdpRcvbufErrors`."""
        found = _udp4_counters(self._read("snmp"))
        for line in self._read("snmp6").splitlines():
            name, value = line.split()
            if name.startswith("Udp6"):
                found[name] = int(value)
        return found

    def moved(self, before: Mapping[str, int]) -> dict[str, int]:
        """By how much each counter has moved since `before`; those that have not are left out."""
        return {name: value - before[name] for name, value in self.counters().items() if value != before[name]}

    def _read(self, name: str) -> str:
        """A file of /proc/net as seen from here, without moving the calling thread."""
        texts: list[str] = []

        def read() -> None:
            _setns(self.fd)
            texts.append(Path(f"/proc/thread-self/net/{name}").read_text(encoding="ascii"))

        thread = threading.Thread(target=read, name=f"read {name} in {self.name}")
        thread.start()
        thread.join()
        return texts[0]


class Net:
    """The namespaces of one topology, by node name."""

    def __init__(self, topology: Topology, namespaces: Mapping[str, Namespace]) -> None:
        self.topology = topology
        self._namespaces = namespaces

    def __getitem__(self, name: str) -> Namespace:
        return self._namespaces[name]

    def __iter__(self) -> Iterator[Namespace]:
        return iter(self._namespaces.values())


@contextmanager
def build(topology: Topology) -> Iterator[Net]:
    """The topology, alive for the length of the block; needs root and the main thread.

    Raises OSError or pyroute2's NetlinkError where the kernel refuses, RuntimeError on another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("namespaces are built by the main thread: a namespace belongs to a thread")
    with ExitStack() as undo:
        namespaces: dict[str, Namespace] = {}
        for node in topology.nodes:
            fd = _new_namespace()
            undo.callback(os.close, fd)
            namespaces[node.name] = Namespace(node.name, fd)
        undo.callback(evict, [namespace.fd for namespace in namespaces.values()])
        macs = _macs(topology)
        for index, link in enumerate(topology.links, FIRST_INDEX):
            with namespaces[link.a.node].entered(), _netlink() as ip:
                # Both ends placed in one request: a crash in between would strand one.
                peer = {"ifname": link.b.interface, "net_ns_fd": namespaces[link.b.node].fd}
                ip.link("add", ifname=link.a.interface, index=index, kind="veth", peer=peer)
        for node in topology.nodes:
            with namespaces[node.name].entered(), _netlink() as ip:
                _configure(ip, topology, node, macs)
        for node in topology.nodes:
            with namespaces[node.name].entered(), _netlink() as ip:
                _await_links(ip, node)
        yield Net(topology, namespaces)


def _configure(ip: Any, topology: Topology, node: Node, macs: Mapping[End, str]) -> None:
    _sysctls(node)
    ip.link("set", index=1, state="up")
    bridge = 0
    if node.bridge is not None:
        ip.link("add", ifname=node.bridge, kind="bridge", address=_bridge_mac(node))
        bridge = ip.link_lookup(ifname=node.bridge)[0]
        ip.link("set", index=bridge, state="up")
        _add_addresses(ip, bridge, node.bridge_addresses)
        _write_sysctl(f"ipv4/conf/{node.bridge}/route_localnet", 1)
    for link in topology.links:
        for end, peer in ((link.a, link.b), (link.b, link.a)):
            if end.node != node.name:
                continue
            index = ip.link_lookup(ifname=end.interface)[0]
            ip.link("set", index=index, address=macs[end], state="up")
            if end.bridged:
                ip.link("set", index=index, master=bridge)
                _pin(ip, bridge, peer.addresses, macs[peer])
                continue
            _add_addresses(ip, index, end.addresses)
            far = topology.node(peer.node)
            if peer.bridged:
                _pin(ip, index, far.bridge_addresses, _bridge_mac(far))
                _pin_siblings(ip, index, topology, end, macs)
            else:
                _pin(ip, index, peer.addresses, macs[peer])
    for route in topology.routes:
        if route.node == node.name:
            ip.route(
                "add",
                dst="default" if route.destination == "default" else route.destination,
                gateway=route.gateway,
                family=_af(route.gateway),
            )


def _await_links(ip: Any, node: Node) -> None:
    """Until every link carries packets: the kernel activates its queue some time after it was set up."""
    give_up_s = time.monotonic() + LINKS_UP_WITHIN_S
    while down := [
        link.get_attr("IFLA_IFNAME")
        for link in ip.get_links()
        if link["index"] != 1 and link.get_attr("IFLA_OPERSTATE") != "UP"
    ]:
        if time.monotonic() > give_up_s:
            raise RuntimeError(f"{node.name}: {', '.join(down)} did not come up within {LINKS_UP_WITHIN_S:.0f} s")
        time.sleep(0.002)


def _pin_siblings(ip: Any, index: int, topology: Topology, end: End, macs: Mapping[End, str]) -> None:
    """Neighbours behind the same bridge."""
    for link in topology.links:
        if link.b.bridged and link.a != end:
            _pin(ip, index, link.a.addresses, macs[link.a])


def _sysctls(node: Node) -> None:
    _write_sysctl("ipv4/ip_forward", int(node.forwards))
    _write_sysctl("ipv6/conf/all/forwarding", int(node.forwards))
    # Nobody advertises or solicits here; what is not traffic of a run would only blur the counters.
    for scope in ("all", "default"):
        _write_sysctl(f"ipv6/conf/{scope}/accept_ra", 0)
        _write_sysctl(f"ipv4/conf/{scope}/rp_filter", 0)


def _write_sysctl(name: str, value: int) -> None:
    Path(f"/proc/sys/net/{name}").write_text(f"{value}\n", encoding="ascii")


def _add_addresses(ip: Any, index: int, addresses: Sequence[str]) -> None:
    for text in addresses:
        address, _, prefix = text.partition("/")
        # Duplicate address detection would hold the address back for a second.
        flags = IFA_F_NODAD if family_of(address) == 6 else 0
        ip.addr("add", index=index, address=address, prefixlen=int(prefix), flags=flags)


def _pin(ip: Any, index: int, addresses: Sequence[str], mac: str) -> None:
    """Permanent neighbours: otherwise the first packets of a run measure ARP."""
    for text in addresses:
        address = text.partition("/")[0]
        ip.neigh("replace", dst=address, lladdr=mac, ifindex=index, state=NUD_PERMANENT, family=_af(address))


def _af(address: str) -> int:
    return int(socket.AF_INET6 if family_of(address) == 6 else socket.AF_INET)


def _macs(topology: Topology) -> dict[End, str]:
    return {end: f"02:00:00:00:01:{number:02x}" for number, end in enumerate(topology.ends(), 1)}


def _bridge_mac(node: Node) -> str:
    return f"02:00:00:00:02:{len(node.name):02x}"


def _udp4_counters(snmp: str) -> dict[str, int]:
    rows = [line.split()[1:] for line in snmp.splitlines() if line.startswith("Udp:")]
    return {f"Udp{name}": int(value) for name, value in zip(rows[0], rows[1], strict=True)}


@contextmanager
def _netlink() -> Iterator[Any]:
    from pyroute2 import IPRoute

    # Opened in the namespace that the thread is in: `netns=` would fork a child and could create one.
    with IPRoute() as ip:
        yield ip


def _new_namespace() -> int:
    home = os.open(_NS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.unshare(CLONE_NEWNET) != 0:
            raise _os_error("unshare(CLONE_NEWNET)")
        try:
            return os.open(_NS, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            _setns(home)
    finally:
        os.close(home)


def _setns(fd: int) -> None:
    if _LIBC.setns(fd, CLONE_NEWNET) != 0:
        raise _os_error("setns")


def _os_error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}")
