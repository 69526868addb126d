"""Internal ports are closed to the outside, open to the host's own probes, and the public path serves both."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.netns import build
from harness.sockets import af
from harness.topology import BRIDGED, FAMILIES, OUTSIDE_AND_HOST, SIDES
from swapper.dataplane import open_dataplane
from swapper.model import DataplaneName, Engine, PortSet, Service, Swap
from tests import support

if TYPE_CHECKING:
    from harness.netns import Net
    from harness.topology import Family

pytestmark = pytest.mark.root

GIVE_UP_S = 20
every_real = pytest.mark.parametrize(("name", "engine"), support.REAL, ids=support.IDS)
every_family = pytest.mark.parametrize("family", FAMILIES, ids=["v4", "v6"])
bridging = [case for case in support.REAL if case[0] is not DataplaneName.STATELESS]


def host_service(name: DataplaneName, engine: Engine, *, protect: bool = True) -> Service:
    return Service("game", support.HOST_PORTS, dataplane=name, engine=engine, protect=protect)


def install(net: Net, service: Service, active: PortSet = PortSet.BLUE) -> None:
    assert service.engine is not None
    with net["host"].entered():
        open_dataplane(service.dataplane, service.engine).install(service, active)


class Sockets(ExitStack):
    """Sockets in namespaces, closed together."""

    def udp(self, net: Net, node: str, family: Family, port: int = 0) -> socket.socket:
        with net[node].entered():
            made = self.enter_context(socket.socket(af(family), socket.SOCK_DGRAM))
        made.bind(("", port))
        made.settimeout(GIVE_UP_S)
        return made

    def tcp(self, net: Net, node: str, family: Family, port: int = 0) -> socket.socket:
        with net[node].entered():
            made = self.enter_context(socket.socket(af(family), socket.SOCK_STREAM))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(GIVE_UP_S)
        if port:
            made.bind(("", port))
            made.listen()
        return made


def answered(backend: socket.socket, client: socket.socket, where: tuple[str, int], said: bytes = b"?") -> Any:
    """Ask; the next datagram that the backend hears must be that one. Where the answer came from."""
    client.sendto(said, where)
    heard, sender = backend.recvfrom(64)
    assert heard == said
    backend.sendto(b"!", sender)
    return client.recvfrom(64)[1][:2]


@every_real
@every_family
def test_an_outsider_is_served_by_the_public_port_alone(name: DataplaneName, engine: Engine, family: Family) -> None:
    with build(OUTSIDE_AND_HOST) as net, Sockets() as sockets:
        install(net, host_service(name, engine))
        address = OUTSIDE_AND_HOST.target("outside", family)
        backend = sockets.udp(net, "host", family, 1001)
        client = sockets.udp(net, "outside", family)
        client.sendto(b"by the internal port", (address, 1001))
        # Datagrams keep their order on a veth, so what the backend hears first tells what became of the other one.
        assert answered(backend, client, (address, 1000)) == (address, 1000)
        assert select.select([backend], [], [], 0)[0] == []

        listener = sockets.tcp(net, "host", family, 8081)
        refused = sockets.tcp(net, "outside", family)
        refused.setblocking(False)
        assert refused.connect_ex((address, 8081)) != 0
        served = sockets.tcp(net, "outside", family)
        served.connect((address, 8080))
        accepted, peer = listener.accept()
        with accepted:
            assert peer[:2] == served.getsockname()[:2]
            accepted.sendall(b"!")
            assert served.recv(1) == b"!"
        assert select.select([listener], [], [], 0)[0] == []
        assert select.select([], [refused], [], 0)[1] == []


@every_real
@every_family
@pytest.mark.parametrize("protect", [True, False], ids=["protected", "open"])
def test_the_host_s_own_probes_are_answered_from_the_internal_port(
    name: DataplaneName, engine: Engine, family: Family, protect: bool
) -> None:
    with build(OUTSIDE_AND_HOST) as net, Sockets() as sockets:
        install(net, host_service(name, engine, protect=protect))
        for side in SIDES[1:]:
            address = OUTSIDE_AND_HOST.target(side, family)
            for port in (1001, 1002):
                with sockets.udp(net, "host", family, port) as backend:
                    probe = sockets.udp(net, "host", family)
                    assert answered(backend, probe, (address, port)) == (address, port)
            with sockets.udp(net, "host", family, 1001) as backend:
                client = sockets.udp(net, "host", family)
                assert answered(backend, client, (address, 1000)) == (address, 1000)
            with sockets.tcp(net, "host", family, 8081) as listener:
                prober = sockets.tcp(net, "host", family)
                prober.connect((address, 8081))
                listener.accept()[0].close()


@every_real
@every_family
def test_without_protection_outsiders_reach_the_internal_port(
    name: DataplaneName, engine: Engine, family: Family
) -> None:
    with build(OUTSIDE_AND_HOST) as net, Sockets() as sockets:
        install(net, host_service(name, engine, protect=False))
        address = OUTSIDE_AND_HOST.target("outside", family)
        backend = sockets.udp(net, "host", family, 1001)
        assert answered(backend, sockets.udp(net, "outside", family), (address, 1001)) == (address, 1001)
        assert answered(backend, sockets.udp(net, "outside", family), (address, 1000)) == (address, 1000)
        listener = sockets.tcp(net, "host", family, 8081)
        client = sockets.tcp(net, "outside", family)
        client.connect((address, 8081))
        listener.accept()[0].close()


@pytest.mark.parametrize(("name", "engine"), bridging, ids=[f"{name}-{engine}" for name, engine in bridging])
@every_family
@pytest.mark.parametrize("side", SIDES)
def test_clients_of_every_side_reach_a_bridged_backend(
    name: DataplaneName, engine: Engine, family: Family, side: Any
) -> None:
    service = replace(host_service(name, engine), ports=support.BRIDGED_PORTS)
    with build(BRIDGED) as net, Sockets() as sockets:
        install(net, service)
        address = BRIDGED.target(side, family)
        public = (address, 1020)
        clients = BRIDGED.node_of(side)
        blue = sockets.udp(net, "blue", family, 1021)
        green = sockets.udp(net, "green", family, 1021)
        if (side, family) == ("loopback", 6):
            loopback_six(sockets.udp(net, clients, family), blue, public)
            return
        if side == "outside":
            inside_of_bridge = (BRIDGED.address("blue", family), 1021)
            sockets.udp(net, clients, family).sendto(b"around the public port", inside_of_bridge)
        assert answered(blue, sockets.udp(net, clients, family), public) == public
        with net["host"].entered():
            dataplane = open_dataplane(name, engine)
            dataplane.observe(service)
            dataplane.apply(Swap(service, PortSet.GREEN))
        assert answered(green, sockets.udp(net, clients, family), public) == public
        assert select.select([blue], [], [], 0)[0] == []


def loopback_six(client: socket.socket, backend: socket.socket, public: tuple[str, int]) -> None:
    """The backend hears a client on ::1, and its answer never comes back: IPv6 has no `route_localnet`.

    Over IPv6 such a client has to use an address of the host. If this fails, the kernel has learnt it: serve it.
    """
    client.sendto(b"?", public)
    heard, sender = backend.recvfrom(64)
    assert (heard, sender[0]) == (b"?", BRIDGED.node("host").bridge_addresses[1].partition("/")[0])
    backend.sendto(b"!", sender)
    assert select.select([client], [], [], 1)[0] == []
