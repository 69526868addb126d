"""What every dataplane promises, on every engine and in memory: one suite for all of them."""

from __future__ import annotations

import re
import select
import socket
import subprocess
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from harness.netns import build
from swapper.child import in_child
from swapper.dataplane import iptables, open_dataplane, stay_ipset
from swapper.dataplane.base import Draining
from swapper.dataplane.classic import ClassicIptables
from swapper.dataplane.iptables import IptablesEngine, IptablesLegacy, IptablesNft
from swapper.dataplane.memory import Memory
from swapper.dataplane.zones_ipt import ZonesIptables
from swapper.dataplane.zones_nft import ZonesNft
from swapper.errors import KernelRefusedError
from swapper.model import DataplaneName, Engine, Family, PortSet, Service, Swap, UdpMode
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from swapper.dataplane import Dataplane

BLUE, GREEN = PortSet.BLUE, PortSet.GREEN
REAL = [pytest.param(case, id=f"{case[0]}-{case[1]}", marks=pytest.mark.root) for case in support.REAL]
# As where libxtables is newer than python-iptables knows: iptables 1.8.11 and later.
REAL += [
    pytest.param((*case, "restored"), id=f"{case[0]}-{case[1]}-restored", marks=pytest.mark.root)
    for case in support.REAL
    if case[1] is Engine.IPTABLES_LEGACY
]
ALL = [pytest.param((DataplaneName.MEMORY, Engine.MEMORY), id="memory"), *REAL]
ZONES = [param for param in REAL if "zones" in str(param.id)]
LEGACY = [param for param in REAL if "legacy" in str(param.id)]
IPTABLES = [param for param in REAL if "iptables" in str(param.id)]
NOT_STATELESS = [param for param in ALL if "stateless" not in str(param.id)]

every = pytest.mark.parametrize("dataplane", ALL, indirect=True)
every_real = pytest.mark.parametrize("dataplane", REAL, indirect=True)
every_zones = pytest.mark.parametrize("dataplane", ZONES, indirect=True)
every_iptables = pytest.mark.parametrize("dataplane", IPTABLES, indirect=True)
every_legacy = pytest.mark.parametrize("dataplane", LEGACY, indirect=True)
every_draining = pytest.mark.parametrize("dataplane", NOT_STATELESS, indirect=True)
every_set = pytest.mark.parametrize("active", list(PortSet))


@pytest.fixture
def dataplane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dataplane]:
    """The dataplane, in a fresh namespace in which the test then runs."""
    name, engine, *restored = request.param
    if restored:
        monkeypatch.setattr(IptablesLegacy, "_knows_libxtables", lambda *_: False)
    if name is DataplaneName.MEMORY:
        yield Memory()
        return
    with build(support.LONELY) as net, net["host"].entered():
        yield open_dataplane(name, engine)


@pytest.fixture
def game(dataplane: Dataplane) -> Service:
    return support.game(dataplane.name, dataplane.engine)


@pytest.fixture
def chat(dataplane: Dataplane) -> Service:
    return support.chat(dataplane.name, dataplane.engine)


def listing(dataplane: Dataplane) -> str:
    """All that the kernel holds, or the fake."""
    return repr(vars(dataplane)) if isinstance(dataplane, Memory) else support.listing()


def another(dataplane: Dataplane) -> Dataplane:
    """The same dataplane, opened again: it knows only what the kernel says."""
    return dataplane if isinstance(dataplane, Memory) else open_dataplane(dataplane.name, dataplane.engine)


def is_on(dataplane: Dataplane, service: Service, active: PortSet) -> bool:
    seen = another(dataplane).observe(service)
    assert seen.faults == ()
    return seen.active is active


@every
@every_set
def test_install_then_observe_is_intact_on_that_set(dataplane: Dataplane, game: Service, active: PortSet) -> None:
    assert dataplane.observe(game).active is None
    dataplane.install(game, active)
    assert is_on(dataplane, game, active)


@every
def test_install_twice_changes_nothing(dataplane: Dataplane, game: Service, chat: Service) -> None:
    dataplane.install(game, BLUE)
    dataplane.install(chat, GREEN)
    before = listing(dataplane)
    another(dataplane).install(game, BLUE)
    assert listing(dataplane) == before


@every
@every_set
def test_swap_then_its_reverse_restores_the_mapping(dataplane: Dataplane, game: Service, active: PortSet) -> None:
    dataplane.install(game, active)
    dataplane.observe(game)
    before = listing(dataplane)
    swap = Swap(game, active.other)
    assert dataplane.apply(swap) >= 0
    assert is_on(dataplane, game, active.other)
    dataplane.apply(swap.reversed())
    assert is_on(dataplane, game, active)
    assert normal(dataplane, listing(dataplane)) == normal(dataplane, before)


def normal(dataplane: Dataplane, text: str) -> list[str]:
    """The classic recipe appends, so that order within a chain follows the swaps, and means nothing."""
    return sorted(text.splitlines()) if dataplane.name is DataplaneName.CLASSIC else text.splitlines()


@every
def test_the_script_is_what_moves_it(dataplane: Dataplane, game: Service) -> None:
    dataplane.install(game, BLUE)
    dataplane.observe(game)
    script = dataplane.script(Swap(game, GREEN))
    if isinstance(dataplane, Memory):
        assert "udp 1000 -> 1002\n" in script
        return
    run(dataplane, script)
    by_script = support.listing()
    assert is_on(dataplane, game, GREEN)
    run(dataplane, dataplane.script(Swap(game, BLUE)))
    dataplane.apply(Swap(game, GREEN))
    assert support.listing() == by_script


def run(dataplane: Dataplane, script: str) -> None:
    """Commit a script's text with the engine's own tool, as somebody at a shell would."""
    if dataplane.engine is Engine.NFTABLES:
        subprocess.run(["nft", "-f", "-"], input=script, check=True, text=True)
        return
    _, text4, text6 = re.split(r"^# IPv[46]\n", script, flags=re.MULTILINE)
    flavour = dataplane.engine.removeprefix("iptables-")
    for tool, text in ((f"iptables-{flavour}-restore", text4), (f"ip6tables-{flavour}-restore", text6)):
        subprocess.run([tool, "--noflush", "--wait", "5"], input=text, check=True, text=True)


@every
def test_a_swap_leaves_other_services_alone(dataplane: Dataplane, game: Service, chat: Service) -> None:
    dataplane.install(chat, BLUE)
    alone = listing(dataplane)
    dataplane.install(game, BLUE)
    dataplane.apply(Swap(game, GREEN))
    assert is_on(dataplane, chat, BLUE)
    assert is_on(dataplane, game, GREEN)
    assert dataplane.uninstall(game.name)
    assert is_on(dataplane, chat, BLUE)
    assert listing(dataplane) == alone


@every
def test_uninstall_leaves_what_was_before(dataplane: Dataplane, game: Service) -> None:
    before = listing(dataplane)
    assert not dataplane.uninstall(game.name)
    dataplane.install(game, BLUE)
    dataplane.apply(Swap(game, GREEN))
    assert another(dataplane).uninstall(game.name)
    assert listing(dataplane) == before
    assert another(dataplane).observe(game).active is None
    assert not another(dataplane).uninstall(game.name)


def nft_wrecks(table: str, switch: str) -> dict[str, list[str]]:
    return {
        "flush": ["nft flush ruleset"],
        "element-deleted": [f"nft delete element inet {table} {switch} '{{ 1000 }}'"],
        "element-of-tcp-deleted": [f"nft delete element inet {table} tcp_target '{{ 8080 }}'"],
        "element-altered": [
            f"nft 'delete element inet {table} {switch} {{ 1000 }}; add element inet {table} {switch} {{ 1000 : 9 }}'"
        ],
        "element-added": [f"nft add element inet {table} {switch} '{{ 7 : 9 }}'"],
        "protection-opened": [f"nft flush set inet {table} closed"],
        "rule-added": [f"nft insert rule inet {table} prerouting udp dport 9 drop"],
        "rules-flushed": [f"nft flush chain inet {table} output"],
        "chain-added": [f"nft add chain inet {table} theirs"],
        "dormant": [f"nft 'add table inet {table} {{ flags dormant; }}'"],
        "fingerprint-gone": [f"nft flush set inet {table} fingerprint"],
    }


def iptables_wrecks(engine: Engine) -> dict[str, list[str]]:
    four, six = f"{engine} -w", f"{engine.replace('iptables', 'ip6tables')} -w"
    return {
        "flush": [f"{tool} -t {table} -F" for tool in (four, six) for table in ("raw", "nat")],
        "flush-and-delete": [
            f"{tool} -t {table} {what}" for tool in (four, six) for table in ("raw", "nat") for what in ("-F", "-X")
        ],
        "flush-of-one-family": [f"{six} -t nat -F"],
        "jump-deleted": [f"{four} -t nat -D PREROUTING -j SWAPPER-DNAT"],
        "jump-twice": [f"{six} -t nat -A OUTPUT -j SWAPPER-DNAT-OUT"],
        "rule-deleted": [f"{four} -t nat -D SWAPPER-DNAT 1"],
        "protection-opened": [f"{six} -t raw -D SWAPPER-PRE 1"],
        "rule-added": [f"{four} -t nat -I SWAPPER-DNAT -p udp --dport 9 -j ACCEPT"],
    }


def wrecks(name: DataplaneName, engine: Engine) -> dict[str, list[str]]:
    """What others may do to a dataplane's rules between two commands, by name, as shell lines."""
    if engine is not Engine.NFTABLES:
        found = iptables_wrecks(engine)
        if name is DataplaneName.ZONES:
            found["switch-flushed"] = [f"{engine} -w -t raw -F SW-game"]
            found["switch-altered"] = [f"{engine} -w -t raw -I SW-game -p udp -j RETURN"]
            found["reply-rule-deleted"] = [f"{engine} -w -t raw -D SWAPPER-OUT 1"]
        return found
    if name is DataplaneName.STATELESS:
        return nft_wrecks("swapper_stateless", "internal")
    found = nft_wrecks("swapper_zones", "zone_of")
    found["reply-zone-deleted"] = ["nft delete element inet swapper_zones zone_of_reply '{ 1001 }'"]
    return found


WRECKS = [
    pytest.param(case, lines, id=f"{case[0]}-{case[1]}-{what}", marks=pytest.mark.root)
    for case in support.REAL
    for what, lines in wrecks(*case).items()
]


@pytest.mark.parametrize(("dataplane", "lines"), WRECKS, indirect=["dataplane"])
def test_what_others_break_shows_and_install_repairs_it(
    dataplane: Dataplane, lines: list[str], game: Service, chat: Service
) -> None:
    dataplane.install(game, BLUE)  # first, so that the first rule of each chain is its
    dataplane.install(chat, GREEN)
    before = normal(dataplane, support.listing())
    support.commands(*lines)
    assert another(dataplane).observe(game).faults
    another(dataplane).install(game, BLUE)
    another(dataplane).install(chat, GREEN)
    assert is_on(dataplane, game, BLUE)
    assert is_on(dataplane, chat, GREEN)
    assert sorted(support.listing().splitlines()) == sorted(before)


@every
@pytest.mark.parametrize("changes", [{"blue": 1051}, {"green": 1052}, {"public": 1050}, {"public": 1050, "blue": 1051}])
def test_a_changed_configuration_shows_and_leaves_nothing_stale(
    dataplane: Dataplane, game: Service, changes: dict[str, int]
) -> None:
    dataplane.install(game, BLUE)
    changed = support.moved(game, **changes)
    assert another(dataplane).observe(changed).faults
    another(dataplane).install(changed, BLUE)
    assert is_on(dataplane, changed, BLUE)
    for number in {1000, 1001, 1002} - {changed.ports[0].public, *(changed.ports[0].target(s).port for s in PortSet)}:
        assert not re.search(rf"\b{number}\b", listing(dataplane))


@every
def test_protection_and_ports_can_be_taken_away(dataplane: Dataplane, game: Service) -> None:
    dataplane.install(game, BLUE)
    fewer = replace(game, ports=game.ports[1:], protect=False)
    assert another(dataplane).observe(fewer).faults
    dataplane.install(fewer, BLUE)
    assert is_on(dataplane, fewer, BLUE)
    assert "1001" not in listing(dataplane)


@every_real
def test_a_port_may_move_from_one_service_to_another(dataplane: Dataplane, game: Service, chat: Service) -> None:
    dataplane.install(game, BLUE)
    dataplane.install(chat, BLUE)
    gives, takes = replace(game, ports=game.ports[1:]), replace(chat, ports=(*chat.ports, game.ports[0]))
    dataplane.install(takes, BLUE)
    dataplane.install(gives, BLUE)
    assert is_on(dataplane, takes, BLUE)
    assert is_on(dataplane, gives, BLUE)


def zones() -> set[int]:
    """The conntrack zones that the rules of this namespace name."""
    text = support.listing()
    numbers = re.findall(r"\b(\d{5})\b", text)
    return {int(number) for number in numbers if 20480 <= int(number) <= 36863}


@every_zones
def test_the_same_targets_find_their_zones_again(dataplane: Dataplane, game: Service) -> None:
    dataplane.install(game, BLUE)
    before = zones()
    assert len(before) == 2
    with backends() as served:
        served.reached(served.client(), 1000)
        served.probed()
        support.commands(*wrecks(dataplane.name, dataplane.engine)["flush"])
        another(dataplane).install(game, BLUE)
    assert zones() == before


@every_zones
@pytest.mark.parametrize("port", [0, 1])
def test_new_targets_get_another_zone(dataplane: Dataplane, game: Service, port: int) -> None:
    dataplane.install(game, BLUE)
    before = zones()
    ports = list(game.ports)
    ports[port] = replace(ports[port], blue=replace(ports[port].blue, port=1099))
    another(dataplane).install(replace(game, ports=tuple(ports)), BLUE)
    assert len(zones()) == 2
    assert len(zones() & before) == 1


@every_zones
def test_services_never_share_a_zone(dataplane: Dataplane, game: Service) -> None:
    names = [f"game-{number}" for number in range(5)]
    for number, name in enumerate(names):
        shifted = support.moved(replace(game, name=name, ports=game.ports[:1]), public=3000 + 10 * number)
        shifted = support.moved(shifted, blue=3001 + 10 * number, green=3002 + 10 * number)
        dataplane.install(shifted, BLUE)
    assert len(zones()) == 2 * len(names)


class Backends:
    """Sockets on the internal ports, and clients on 127.0.0.1 and ::1."""

    def __init__(self, undo: ExitStack) -> None:
        self._undo = undo
        self._heard = {
            self._socket(family, port): port_set
            for family in (socket.AF_INET, socket.AF_INET6)
            for port, port_set in ((1001, BLUE), (1002, GREEN))
        }

    def client(self, family: int = socket.AF_INET) -> socket.socket:
        return self._socket(family, 0)

    def reached(self, client: socket.socket, public: int) -> PortSet:
        """The set whose backend hears a datagram from `client`, and whose answer comes from the public port."""
        where = (_loopback(client.family), public)
        client.sendto(b"?", where)
        ready, _, _ = select.select(list(self._heard), [], [], 10)
        (backend,) = ready
        _, sender = backend.recvfrom(64)
        backend.sendto(b"!", sender)
        assert select.select([client], [], [], 10)[0]
        assert client.recvfrom(64)[1][:2] == where
        return self._heard[backend]

    def probed(self) -> None:
        """A health probe asks blue's internal port, and is answered from it."""
        assert self.reached(self.client(), 1001) is BLUE

    def _socket(self, family: int, port: int) -> socket.socket:
        made = self._undo.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        made.bind((_loopback(family), port))
        return made


def _loopback(family: int) -> str:
    return "::1" if family == socket.AF_INET6 else "127.0.0.1"


class backends(ExitStack):  # noqa: N801 - used as a verb's object: `with backends() as served`
    """The backends of `game`'s first port, for the length of a block."""

    def __enter__(self) -> Any:
        super().__enter__()
        return Backends(self)


@every_real
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
def test_traffic_follows_the_mapping(dataplane: Dataplane, game: Service, family: int) -> None:
    dataplane.install(game, BLUE)
    with backends() as served:
        assert served.reached(served.client(family), 1000) is BLUE
        dataplane.apply(Swap(game, GREEN))
        assert served.reached(served.client(family), 1000) is GREEN
        served.probed()


@every_zones
def test_a_probe_is_no_live_flow(dataplane: Dataplane, game: Service) -> None:
    dataplane.install(game, BLUE)
    with backends() as served:
        served.probed()
        assert dataplane.flows(game) == {BLUE: 0, GREEN: 0}
        served.reached(served.client(), 1000)
        assert dataplane.flows(game) == {BLUE: 1, GREEN: 0}


def draining(dataplane: Dataplane, game: Service, **changes: float) -> Service:
    """`game` on blue with one live flow that a drain finds; the caller makes the flow on a real dataplane."""
    service = replace(game, udp=UdpMode.DRAIN, **changes)  # type: ignore[arg-type]  # durations by keyword
    if isinstance(dataplane, Memory):
        dataplane.live_flows = 1
    dataplane.install(service, BLUE)
    return service


@every_draining
def test_a_drain_lets_old_flows_stay_until_it_is_cut(dataplane: Dataplane, game: Service) -> None:
    service = draining(dataplane, game)
    if isinstance(dataplane, Memory):
        dataplane.apply(Swap(service, GREEN, UdpMode.DRAIN))
        assert dataplane.observe(service).draining == Draining(BLUE, 1)
        dataplane.cut(service)
        assert dataplane.observe(service).draining is None
        return
    with backends() as served:
        old = served.client(), served.client(socket.AF_INET6)
        assert [served.reached(client, 1000) for client in old] == [BLUE, BLUE]
        dataplane.apply(Swap(service, GREEN, UdpMode.DRAIN))
        assert is_on(dataplane, service, GREEN)
        assert another(dataplane).observe(service).draining == Draining(BLUE, 2)
        assert dataplane.staying(service) == 2
        assert [served.reached(client, 1000) for client in old] == [BLUE, BLUE]
        assert served.reached(served.client(), 1000) is GREEN
        assert served.reached(served.client(socket.AF_INET6), 1000) is GREEN
        dataplane.cut(service)
        assert dataplane.staying(service) == 0
        assert another(dataplane).observe(service).draining is None
        assert [served.reached(client, 1000) for client in old] == [GREEN, GREEN]
    assert is_on(dataplane, service, GREEN)
    dataplane.cut(service)


@pytest.mark.parametrize("dataplane", [p for p in ZONES if "nftables" in str(p.id)], indirect=True)
def test_a_packet_between_the_old_rules_of_a_drain_and_the_new_map_stays(dataplane: Dataplane, game: Service) -> None:
    """Such packets there are while the kernel commits: it looks for a chain's rules first and into maps later."""
    assert isinstance(dataplane, ZonesNft)
    service = draining(dataplane, game)
    swap = Swap(service, GREEN, UdpMode.DRAIN)
    with backends() as served:
        old = served.client(), served.client(socket.AF_INET6)
        assert [served.reached(client, 1000) for client in old] == [BLUE, BLUE]
        dataplane._stay.learn(swap, dataplane._zones[service.name][BLUE])
        dataplane._nft.run(dataplane._switch(swap))
        assert [served.reached(client, 1000) for client in old] == [BLUE, BLUE]


@every_draining
@pytest.mark.parametrize("mode", list(UdpMode))
def test_a_swap_back_during_a_drain(dataplane: Dataplane, game: Service, mode: UdpMode) -> None:
    service = draining(dataplane, game)
    if isinstance(dataplane, Memory):
        dataplane.apply(Swap(service, GREEN, UdpMode.DRAIN))
        dataplane.apply(Swap(service, BLUE, UdpMode.CUT))
        assert dataplane.observe(service).draining is None
        return
    before = normal(dataplane, support.listing())
    with backends() as served:
        old = served.client()
        assert served.reached(old, 1000) is BLUE
        dataplane.apply(Swap(service, GREEN, UdpMode.DRAIN))
        assert served.reached(old, 1000) is BLUE
        another_one = another(dataplane)
        another_one.observe(service)
        another_one.apply(Swap(service, BLUE, mode))
        assert is_on(dataplane, service, BLUE)
        assert served.reached(old, 1000) is BLUE
        assert served.reached(served.client(), 1000) is BLUE
        another_one.cut(service)
    assert normal(dataplane, support.listing()) == before


@pytest.mark.parametrize("dataplane", ZONES, indirect=True)
def test_what_a_dead_command_left_of_a_drain_is_inert_after_the_deadline(dataplane: Dataplane, game: Service) -> None:
    service = draining(dataplane, game, drain_timeout_s=1.5)
    dataplane.apply(Swap(service, GREEN))
    on_green = support.listing()
    dataplane.apply(Swap(service, BLUE))
    with backends() as served:
        old = served.client()
        assert served.reached(old, 1000) is BLUE
        dataplane.apply(Swap(service, GREEN, UdpMode.DRAIN))
        await_none(dataplane, service)
        assert served.reached(old, 1000) is GREEN
    later = another(dataplane)
    assert later.observe(service).intact
    later.cut(service)
    assert support.listing() == on_green


def await_none(dataplane: Dataplane, service: Service) -> None:
    """Return when the kernel itself has ended the drain."""
    give_up = time.monotonic() + 30
    while another(dataplane).observe(service).draining is not None:
        assert time.monotonic() < give_up
        time.sleep(0.05)


@pytest.mark.parametrize("dataplane", [param for param in ZONES if param in IPTABLES], indirect=True)
def test_both_families_name_one_deadline_however_long_it_takes_to_write_them(
    dataplane: Dataplane, game: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataplane.install(game, BLUE)
    clock = Mock(wraps=datetime)
    clock.now.side_effect = [datetime(2037, 1, 1, second=second, tzinfo=UTC) for second in range(10)]
    monkeypatch.setattr(stay_ipset, "datetime", clock)
    script = dataplane.script(Swap(game, GREEN, UdpMode.DRAIN))
    first, second = re.findall(r"--datestop (\S+)", script)
    assert first == second


@every_draining
def test_install_and_uninstall_end_a_drain(dataplane: Dataplane, game: Service) -> None:
    before = listing(dataplane) if not isinstance(dataplane, Memory) else ""
    service = draining(dataplane, game)
    installed = normal(dataplane, listing(dataplane))
    dataplane.apply(Swap(service, GREEN, UdpMode.DRAIN))
    another(dataplane).install(service, BLUE)
    if not isinstance(dataplane, Memory):
        assert normal(dataplane, support.listing()) == installed
    dataplane.observe(service)
    dataplane.apply(Swap(service, GREEN, UdpMode.DRAIN))
    assert another(dataplane).uninstall(service.name)
    if not isinstance(dataplane, Memory):
        assert support.listing() == before


def test_memory_refuses_and_nothing_moves() -> None:
    memory = Memory()
    service = support.game(memory.name, memory.engine)
    memory.install(service, BLUE)
    memory.refusing = True
    with pytest.raises(KernelRefusedError):
        memory.apply(Swap(service, GREEN))
    assert memory.observe(service).active is BLUE


@pytest.mark.parametrize("dataplane", [p for p in REAL if str(p.id).endswith("nftables")], indirect=True)
def test_a_transaction_that_nftables_refuses_moves_nothing(dataplane: Dataplane, game: Service) -> None:
    dataplane.install(game, BLUE)
    dataplane.observe(game)
    support.commands(
        "nft delete element inet "
        + ("swapper_zones" if "zones" in dataplane.name else "swapper_stateless")
        + " tcp_target '{ 8080 }'"
    )
    before = support.listing()
    with pytest.raises(KernelRefusedError, match="nothing moved"):
        dataplane.apply(Swap(game, GREEN))
    assert support.listing() == before
    support.commands("nft flush ruleset")
    with pytest.raises(KernelRefusedError, match="nothing moved"):
        dataplane.apply(Swap(game, GREEN))
    assert "swapper" not in support.listing()


@pytest.mark.root
@pytest.mark.parametrize(
    "dataplane", [pytest.param((DataplaneName.STATELESS, Engine.NFTABLES), id="stateless")], indirect=True
)
def test_nat_and_with_it_conntrack_is_there_only_while_a_service_has_tcp(
    dataplane: Dataplane, game: Service, chat: Service
) -> None:
    dataplane.install(chat, BLUE)
    support.commands("nft add element inet swapper_stateless seen4 '{ 10.0.0.1 . 2001 . 999 }'")
    alone = support.listing()
    assert "type nat" not in alone
    dataplane.install(game, BLUE)
    assert "type nat" in support.listing()
    assert "10.0.0.1 . 2001 . 999" in support.listing()  # a probe of the other service is still under way
    assert is_on(dataplane, chat, BLUE)
    dataplane.install(replace(game, ports=game.ports[:2]), BLUE)
    assert "type nat" not in support.listing()
    dataplane.install(game, BLUE)
    dataplane.uninstall(game.name)
    assert "10.0.0.1 . 2001 . 999" in support.listing()
    assert re.sub(r" expires \d+ms|expires \d+s\d+ms", "", support.listing()) == re.sub(
        r" expires \d+ms|expires \d+s\d+ms", "", alone
    )


@pytest.mark.parametrize("dataplane", [p for p in REAL if str(p.id).endswith("nftables")], indirect=True)
def test_rules_of_another_version_are_not_intact(dataplane: Dataplane, game: Service) -> None:
    dataplane.install(game, BLUE)
    table = "swapper_zones" if "zones" in dataplane.name else "swapper_stateless"
    (marker,) = re.findall(r'0x00000001 comment "(\w+ \w+)"', support.listing())
    older = f"{int(marker[:8], 16) ^ 1:08x}{marker[8:]}"
    support.commands(
        f"nft 'flush set inet {table} fingerprint; add element inet {table} fingerprint {{ 1 comment \"{older}\" }}'"
    )
    seen = another(dataplane).observe(game)
    assert (seen.active, seen.intact) == (BLUE, False)
    another(dataplane).install(game, BLUE)
    assert is_on(dataplane, game, BLUE)


class RefusesSix:
    """An engine whose IPv6 commits the kernel refuses."""

    def __init__(self, real: IptablesEngine) -> None:
        self.engine = real.engine
        self.read, self.rehearse = real.read, real.rehearse
        self._commit = real.commit

    def commit(self, family: Family, text: str) -> None:
        if family == 6:
            raise KernelRefusedError("iptables refused the commit, nothing of it was applied:\nIPv6 is broken")
        self._commit(family, text)


@every_iptables
@pytest.mark.parametrize("mode", list(UdpMode))
def test_a_commit_that_one_family_refuses_moves_neither(dataplane: Dataplane, game: Service, mode: UdpMode) -> None:
    service = replace(game, udp=mode)
    dataplane.install(service, BLUE)
    before = normal(dataplane, support.listing())
    engine = RefusesSix(IptablesNft() if dataplane.engine is Engine.IPTABLES_NFT else IptablesLegacy())
    broken: Any = (ZonesIptables if dataplane.name is DataplaneName.ZONES else ClassicIptables)(engine)
    broken.observe(service)
    with pytest.raises(KernelRefusedError, match="IPv6 is broken"):
        broken.apply(Swap(service, GREEN, mode))
    assert normal(dataplane, support.listing()) == before


@pytest.mark.parametrize("dataplane", [p for p in IPTABLES if "zones" in str(p.id)], indirect=True)
def test_a_cut_that_one_family_refuses_moves_nothing_back_and_can_be_repeated(
    dataplane: Dataplane, game: Service
) -> None:
    service = draining(dataplane, game)
    dataplane.observe(service)
    dataplane.apply(Swap(service, GREEN, UdpMode.DRAIN))
    engine = RefusesSix(IptablesNft() if dataplane.engine is Engine.IPTABLES_NFT else IptablesLegacy())
    broken = ZonesIptables(engine)
    broken.observe(service)
    with pytest.raises(KernelRefusedError, match="IPv6 is broken"):
        broken.cut(service)
    assert is_on(dataplane, service, GREEN)
    again = another(dataplane)
    again.observe(service)
    again.cut(service)
    assert is_on(dataplane, service, GREEN)
    assert "sw-game" not in support.listing()


@every_legacy
def test_a_legacy_commit_is_tried_again_while_another_program_commits_in_between(
    dataplane: Dataplane, game: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disturbed_once(commit: Callable[..., str]) -> Callable[..., str]:
        said = iter(["RuntimeError: Resource temporarily unavailable"])
        return lambda *told: next(said, "") or commit(*told)

    monkeypatch.setattr(iptables, "in_child", disturbed_once(in_child))
    monkeypatch.setattr(iptables, "_restored", disturbed_once(iptables._restored))
    dataplane.install(game, BLUE)
    assert is_on(dataplane, game, BLUE)


@pytest.mark.root
def test_python_iptables_commits_wherever_it_knows_this_libxtables(monkeypatch: pytest.MonkeyPatch) -> None:
    restore = Mock(wraps=iptables._restored)
    monkeypatch.setattr(iptables, "_restored", restore)
    said = subprocess.run(["iptables-legacy", "--version"], check=True, capture_output=True, text=True).stdout
    version = tuple(map(int, re.findall(r"\d+", said)))
    with build(support.LONELY) as net, net["host"].entered():
        open_dataplane(DataplaneName.ZONES, Engine.IPTABLES_LEGACY).install(
            support.game(DataplaneName.ZONES, Engine.IPTABLES_LEGACY), BLUE
        )
    assert restore.called == (version >= (1, 8, 11))
