"""Namespaces vanish with their owner, never collide, and carry every datagram when nothing is swapped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import ledger, pushes, records, wire
from harness.calibrate import pace
from harness.netns import build
from harness.pace import rarity
from harness.topology import BRIDGED, FAMILIES, OUTSIDE_AND_HOST, PRESETS, SIDES, Topology
from tests.loads import PORT, account_for, backend_spec, counted, eased, stream_spec

if TYPE_CHECKING:
    from harness.topology import Side

pytestmark = pytest.mark.netns


@pytest.mark.parametrize("topology", PRESETS.values(), ids=lambda topology: topology.name)
@pytest.mark.parametrize("pattern", ["long", "fresh"])
def test_without_a_swap_nothing_is_lost_on_any_side_in_any_family(topology: Topology, pattern: str, logs: Path) -> None:
    with build(topology) as net:
        streams: dict[str, list[dict[str, Any]]] = {"outside": [], "host": []}
        number = 0
        for side in SIDES:
            for family in FAMILIES:
                spec = stream_spec(logs, topology, side, family, number=number, pattern=pattern)
                streams[topology.node_of(side)].append({**spec, "connected": family == 4})
                number += 1
        streams = eased(streams)
        count = counted(streams)
        before = {one.name: one.counters() for one in net}
        result = account_for(net, logs, streams, backend_spec(logs, service_ms=20))
        assert result.totals["answered_blue"] == result.scheduled == count["outside"] + count["host"]
        assert result.totals["duplicate"] == result.strays == 0
        # Half of them are of either family; the host has its own clients' and, echoing, those of all.
        for node, both in (("outside", count["outside"]), ("host", 2 * count["host"] + count["outside"])):
            ours = {f"{udp}{way}Datagrams": both // 2 for udp in ("Udp", "Udp6") for way in ("In", "Out")}
            assert ledger.reconcile(node, net[node].moved(before[node]), ours) == []


@pytest.mark.parametrize("size", [64, 4000, 8192])
def test_scapy_and_plain_senders_lose_nothing_at_any_size(size: int, logs: Path) -> None:
    topology = OUTSIDE_AND_HOST
    with build(topology) as net:
        streams: dict[str, list[dict[str, Any]]] = {"outside": [], "host": []}
        number = 0
        for side in SIDES:
            for family in FAMILIES:
                for sender in ("scapy", "socket"):
                    streams[topology.node_of(side)].append(
                        stream_spec(
                            logs,
                            topology,
                            side,
                            family,
                            number=number,
                            sender=sender,
                            payload=size,
                            count=200,
                            rate_per_s=400,
                            first_port=20_000 + 10 * number,
                        )
                    )
                    number += 1
        streams = eased(streams)
        result = account_for(net, logs, streams, backend_spec(logs, service_ms=5))
        assert result.totals["answered_blue"] == result.scheduled == sum(counted(streams).values())


def test_four_thousand_datagrams_from_each_side_at_two_thousand_a_second(logs: Path) -> None:
    topology = OUTSIDE_AND_HOST
    sides: tuple[Side, ...] = ("outside", "inside")
    with build(topology) as net:
        streams = {
            topology.node_of(side): [stream_spec(logs, topology, side, 4, number=number, rate_per_s=2000, count=4000)]
            for number, side in enumerate(sides)
        }
        streams = eased(streams)
        result = account_for(net, logs, streams, backend_spec(logs))
        assert result.totals["answered_blue"] == result.scheduled == sum(counted(streams).values())


def test_what_a_small_buffer_had_no_room_for_is_told_from_what_the_network_lost(logs: Path) -> None:
    with build(OUTSIDE_AND_HOST) as net:
        fast = stream_spec(logs, OUTSIDE_AND_HOST, "outside", 4, number=1, rate_per_s=2000, count=1000)
        (spec,) = eased({"outside": [fast]})["outside"]
        spec["count"] = max(spec["count"], 100)
        backend = net["host"].spawn("backend", backend_spec(logs, rcvbuf=4096))
        client = net["outside"].spawn(
            "client",
            {"run": 9, "capacity": 5000, "linger_ms": 600, "log": str(logs / "c"), "streams": [spec]},
        )
        t0_ns = time.time_ns() + 20_000_000
        client.go(t0_ns)
        backend.pause(max(300, 50_000 // spec["rate_per_s"]))  # more datagrams than the buffer holds
        client.result(timeout_s=30)
        drops = {one["family"]: one["drops"] for one in backend.stop()["drops"]}
        result = ledger.account(
            [ledger.Plan(1, "outside", 4, spec["rate_per_s"], spec["count"])],
            t0_ns=t0_ns,
            sent={1: records.read_sent(spec["sent_log"])},
            received=[records.read_received(logs / "c")],
            backends=[ledger.BackendLog(wire.BLUE, records.read_seen(logs / "blue"))],
            backend_drops=drops,
        )
        assert result.totals["receiver_dropped"] == drops[4] > 0
        assert result.totals["lost_up"] == result.totals["lost_down"] == 0


def test_a_push_backend_reaches_its_clients_unasked(logs: Path) -> None:
    with build(OUTSIDE_AND_HOST) as net:
        spec = stream_spec(logs, OUTSIDE_AND_HOST, "outside", 6, number=1, rate_per_s=20, count=20)
        streams = {"outside": [spec]}
        rarer = rarity(200 * spec["flows"], pace())
        backend = backend_spec(logs, kind="push", push_rate_per_s=200 / rarer)
        result = account_for(net, logs, streams, backend)
        assert result.totals["answered_blue"] == 20
        log = ledger.BackendLog(wire.BLUE, records.read_seen(logs / "blue"))
        pushed = pushes.account([log], [records.read_received(logs / "outside")])
        assert pushed["received"] >= 600 / rarer
        # Those pushed after the client had closed its sockets are all that may be missing.
        assert pushed["misaddressed"] == pushed["duplicate"] == 0


def test_tcp_connections_are_answered_and_counted(logs: Path) -> None:
    # Who waits for an answer asks less often on a slow machine, and gets longer.
    seconds = max(1.0, 250 * pace().lone_exchange_s / pace().cpus)
    with build(OUTSIDE_AND_HOST) as net:
        listen = [{"protocol": "tcp", "family": family, "port": PORT} for family in FAMILIES]
        with net["host"].spawn("backend", backend_spec(logs, listen=listen)) as backend:
            client = net["outside"].spawn(
                "tcp",
                {
                    "run": 9,
                    "family": 6,
                    "address": OUTSIDE_AND_HOST.target("outside", 6),
                    "port": PORT,
                    "connections": 4,
                    "rate_per_s": 50,
                    "new_every_ms": 20,
                    "duration_ms": round(1000 * seconds),
                },
            )
            client.go(time.time_ns())
            report = client.result(timeout_s=10 + seconds)
            assert backend.stop()["seen"] == report["answers"] > 200
        assert report["resets"] == report["timeouts"] == report["refused"] == 0


def test_containers_behind_the_bridge_reach_each_other_and_the_client(logs: Path) -> None:
    with build(BRIDGED) as net, net["blue"].spawn("backend", backend_spec(logs)) as backend:
        for number, family in enumerate(FAMILIES):
            for node in ("outside", "host", "green"):
                spec = stream_spec(logs, BRIDGED, "outside", family, number=number, count=20)
                spec |= {"address": BRIDGED.address("blue", family), "source": ""}
                common = {"run": 9, "capacity": 100, "linger_ms": 100, "log": str(logs / "c")}
                client = net[node].spawn("client", {**common, "streams": [spec]})
                client.go(time.time_ns())
                assert client.result(timeout_s=10)["received"] == 20, (node, family)
        backend.stop()


OWNER = """
import sys, time
from harness.netns import build
from harness.topology import OUTSIDE_AND_HOST
with build(OUTSIDE_AND_HOST) as net:
    spec = {"who": 1, "run": 1, "listen": [{"family": 4, "port": 1000}], "log": sys.argv[1], "capacity": 10}
    worker = net["host"].spawn("backend", spec)
    program = net["host"].popen(["sleep", "600"])
    print(worker.pid, program.pid, flush=True)
    time.sleep(600)
"""


def _gone(pid: int, *, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("late_s", [0, 0.5])
def test_everything_vanishes_when_the_owner_is_killed(logs: Path, tmp_path: Path, late_s: float) -> None:
    slow = tmp_path / "setpriv"
    slow.write_text(f'#!/bin/sh\nsleep {late_s}\nexec {shutil.which("setpriv")} "$@"\n')
    slow.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[2])}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(logs / "blue")],
        stdout=subprocess.PIPE,
        env=os.environ | path,
    )
    try:
        assert owner.stdout is not None
        children = [int(pid) for pid in owner.stdout.readline().split()]
        owner.stdout.close()
        assert len(children) == 2
    finally:
        owner.kill()
        owner.wait()
    # Held by descriptors and members only: with all of them gone, so is the namespace.
    assert [pid for pid in children if not _gone(pid, within_s=5)] == []


def test_two_networks_at_once_do_not_meet(logs: Path) -> None:
    with build(OUTSIDE_AND_HOST) as one, build(OUTSIDE_AND_HOST) as other:
        streams = {"outside": [stream_spec(logs, OUTSIDE_AND_HOST, "outside", 4, number=1, count=200)]}
        quiet = other["host"].counters()
        result = account_for(one, logs, streams, backend_spec(logs))
        assert result.totals["answered_blue"] == 200
        assert other["host"].counters() == quiet


def test_building_leaves_the_namespace_of_the_caller_alone() -> None:
    before = (Path("/proc/thread-self/ns/net").readlink(), Path("/proc/net/dev").read_text().count("\n"))
    with build(BRIDGED) as net, net["host"].entered():
        assert Path("/proc/thread-self/ns/net").readlink() != before[0]
    after = (Path("/proc/thread-self/ns/net").readlink(), Path("/proc/net/dev").read_text().count("\n"))
    assert after == before
