"""The processes and files of one run: what the story of a scenario is played on."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness import ledger, netem, others, pushes, records, specs
from harness.switch import switch_for
from harness.topology import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from harness.netns import Net
    from harness.scenario import Record, Scenario
    from harness.switch import SwitchFactory
    from harness.topology import Topology
    from harness.workers import Worker

__all__ = ["Stage", "sent_slots"]

NS: Final = 1_000_000_000
LEAD_NS: Final = 150_000_000  # between the order to go and the first slot


class Stage:
    """The processes and files of one run."""

    def __init__(
        self,
        scenario: Scenario,
        topology: Topology,
        net: Net,
        folder: Path,
        record: Record,
        say: Callable[[str], None],
        *,
        switch: SwitchFactory | None = None,
    ) -> None:
        self.scenario, self.topology, self.net, self.folder = scenario, topology, net, folder
        self.record, self.say = record, say
        self.run_id = random.getrandbits(31)
        self.host = net[topology.host]
        self.switch = switch(self.host, folder) if switch else switch_for(scenario, topology, self.host, folder)
        self.backends: dict[str, Worker] = {}
        self.backend_logs: list[tuple[str, Path]] = []
        self.finals: list[tuple[str, dict[str, Any]]] = []
        self.streams: dict[str, list[dict[str, Any]]] = {}
        self.client_reports: dict[str, dict[str, Any]] = {}
        self.active = "blue"

    def play(self, stack: ExitStack) -> None:
        """From the first rule to the last datagram."""
        self._settle_others()
        for backend in [self.launch(port_set, stack) for port_set in ("blue", "green")]:
            backend.await_ready()
        clients = self._clients(stack)
        stack.callback(self.switch.end)
        self.switch.begin()
        self._disturb()
        self._impair()
        tcp = self._tcp_clients(stack)  # these connect as soon as they are up
        for client in [*clients.values(), *tcp]:
            client.await_ready()
        before = {one.name: one.counters() for one in self.net}
        t0_ns = self.record.t0_ns = time.time_ns() + LEAD_NS
        for worker in [*clients.values(), *tcp]:
            worker.go(t0_ns)
        self._swap_under_load(t0_ns, stack)
        end_ns = self._curtail(clients, tcp) if self.scenario.curtailed else t0_ns + int(self.scenario.seconds * NS)
        if self.scenario.backend == "push":
            # A push that leaves after its client has gone would count as lost: the backends end first.
            _sleep_until(end_ns + int(specs.linger_ms(self.scenario) / 3000 * NS))
            for port_set in list(self.backends):
                self.retire(port_set)
        allowed_s = self.scenario.seconds + self.scenario.drain_timeout_s + 30
        self.client_reports = {node: worker.result(timeout_s=allowed_s) for node, worker in clients.items()}
        self._note_slots()
        for worker in tcp:
            self._count_tcp(worker.result(timeout_s=allowed_s)["connections"])
        for port_set in list(self.backends):
            self.retire(port_set)
        self.record.kernel = {one.name: one.moved(before[one.name]) for one in self.net}
        self._read_drop_rule()
        self._read_link()

    def _curtail(self, clients: dict[str, Worker], tcp: list[Worker]) -> int:
        """End the streams soon after the last swap; when they end."""
        end_ns = time.time_ns() + int(specs.tail_s(self.scenario) * NS)
        for client in clients.values():
            client.offer(f"until {end_ns}")
        _sleep_until(end_ns)
        for client in tcp:
            client.offer("stop")
        return end_ns

    def _note_slots(self) -> None:
        """What was not due before its stream ended was never scheduled."""
        for node, specs_of_node in self.streams.items():
            slots = {one["id"]: one["slots"] for one in self.client_reports[node]["streams"]}
            for spec in specs_of_node:
                spec["count"] = slots[spec["id"]]

    def _count_tcp(self, connections: list[dict[str, Any]]) -> None:
        """Add up what became of TCP connections; which backend answers one is decided when it opens."""
        tcp, swapped_ns = self.record.tcp, self.record.swaps_ns[-1][1]
        names = ("opened", "kept", "new_after_swap", "broken", "moved", "on_old_set", "unanswered")
        tcp.update({name: tcp.get(name, 0) for name in names})
        for one in connections:
            new = one["opened_ns"] > swapped_ns
            tcp["opened"] += 1
            tcp["kept"] += one["kept"]
            tcp["new_after_swap"] += new
            tcp["broken"] += one["end"] not in ("open", "done")
            tcp["moved"] += len(one["who"]) > 1
            tcp["on_old_set"] += new and one["who"] not in ([], [specs.WHO[self.active]])
            tcp["unanswered"] += not one["who"]

    def account(self) -> None:
        """Read every log; the ledger; and whether the kernel's counters say the same."""
        streams = [spec for group in self.streams.values() for spec in group]
        received = {node: records.read_received(self.folder / f"received-{node}") for node in self.streams}
        seen = [(port_set, _datagrams(records.read_seen(path))) for port_set, path in self.backend_logs]
        drops: dict[int, int] = {}
        for _, final in self.finals:
            for one in final["drops"]:
                drops[one["family"]] = drops.get(one["family"], 0) + one["drops"]
        kind: Any = {"echo": "echo", "sink": "sink", "push": "push"}[self.scenario.backend]
        client_drops = {one["id"]: one["drops"] for r in self.client_reports.values() for one in r["streams"]}
        logs = [ledger.BackendLog(specs.WHO[port_set], array) for port_set, array in seen]
        self.record.ledger = ledger.account(
            [
                ledger.Plan(s["id"], s["side"], s["family"], s["rate_per_s"], s["count"], kind, s["phase_ns"])
                for s in streams
            ],
            t0_ns=self.record.t0_ns,
            sent={spec["id"]: sent_slots(spec) for spec in streams},
            received=list(received.values()),
            backends=logs,
            client_drops=client_drops if kind == "echo" else None,
            backend_drops=drops,
            swaps_ns=[begin for begin, _ in self.record.swaps_ns],
        )
        if kind == "push":
            self.record.pushes = pushes.account(logs, list(received.values()), client_drops=sum(client_drops.values()))
        self.record.fresh_streams = frozenset(spec["id"] for spec in streams if spec["pattern"] == "fresh")
        self._reconcile(streams, received, seen)

    def launch(self, port_set: str, stack: ExitStack) -> Worker:
        """Start a backend on a port set, with a log of its own; it is not ready yet."""
        path = self.folder / f"{port_set}-{len(self.backend_logs)}"
        node = self._node(port_set)
        spec = specs.backend(self.scenario, self.topology, port_set, run=self.run_id, log=path)
        self.backend_logs.append((port_set, path))
        backend = self.backends[port_set] = stack.enter_context(self.net[node].start("backend", spec))
        return backend

    def retire(self, port_set: str) -> None:
        """Stop a backend in good order and keep its final report."""
        self.finals.append((port_set, self.backends.pop(port_set).stop()))

    def _swap_under_load(self, t0_ns: int, stack: ExitStack) -> None:
        scenario = self.scenario
        if scenario.storm_swaps:
            self._storm(t0_ns)
            return
        for number, after_s in enumerate(scenario.moments_s()):
            ready_ns = time.time_ns() + int((scenario.lead_s or scenario.period_s) * NS)
            at_ns = t0_ns + int(after_s * NS)
            _sleep_until(min(at_ns, ready_ns) if scenario.curtailed and number else at_ns)
            if scenario.pause_ms:
                self.backends[self.active].pause(scenario.pause_ms)
                _sleep_until(time.time_ns() + 2 * scenario.pause_ms * 1_000_000)
            old, begin = self.active, time.time_ns()
            self.active = "green" if old == "blue" else "blue"
            commit_ms = self.switch.swap(self.active)
            self.record.said = self.switch.said
            self.record.swaps_ns.append((begin, time.time_ns()))
            self.record.commits_ms.append(commit_ms)
            self.say(f"swap {number + 1} of {scenario.swaps}: {old} -> {self.active}")
            _sleep_until(time.time_ns() + int(scenario.stop_old_after_s * NS))
            if scenario.tcp:
                continue  # its connections stay on the old backend until they end
            self.retire(old)
            self.record.stopped_ns = time.time_ns()
            if scenario.swaps > 1:
                self.launch(old, stack).await_ready()

    def _storm(self, t0_ns: int) -> None:
        """Swap as fast as the scenario says, in one process beside the traffic, through swapper's public API."""
        scenario = self.scenario
        _sleep_until(t0_ns + NS // 2)
        until_s, config = t0_ns / NS + scenario.seconds - 0.5, self.folder / "swapper.toml"
        begin = time.time_ns()
        done = self.host.run(
            [sys.executable, "-m", "harness.storm", str(config), str(scenario.storm_swaps), f"{until_s:.3f}"],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        self.record.commits_ms = json.loads(done.stdout)["commit_ms"]
        self.record.swaps_ns.append((begin, time.time_ns()))

    def _clients(self, stack: ExitStack) -> dict[str, Worker]:
        self.streams = specs.streams(self.scenario, self.topology, self.folder)
        workers = {}
        for node, streams in self.streams.items():
            expected = sum(spec["count"] for spec in streams)
            spec = {
                "run": self.run_id,
                "log": str(self.folder / f"received-{node}"),
                "capacity": expected * 2 + 100_000,
                "linger_ms": specs.linger_ms(self.scenario),
                "streams": streams,
            }
            workers[node] = stack.enter_context(self.net[node].start("client", spec))
        return workers

    def _tcp_clients(self, stack: ExitStack) -> list[Worker]:
        if not self.scenario.tcp:
            return []
        return [
            stack.enter_context(
                self.net[self.topology.node_of(side)].start(
                    "tcp",
                    specs.tcp_client(self.scenario, self.topology, side, family, run=self.run_id),
                )
            )
            for side in self.scenario.sides
            for family in self.scenario.families
        ]

    def _node(self, port_set: str) -> str:
        return specs.listens(self.scenario, self.topology, port_set)[0]

    def _settle_others(self) -> None:
        """Put a closed firewall and Docker's chains on the host, before Swapper comes to it."""
        if self.scenario.others:
            closed = others.firewall(specs.INTERNAL.values(), specs.TCP_INTERNAL.values())
            self.host.run(["nft", "-f", "-"], stdin=closed)
            self.host.run(["iptables-nft-restore", "--noflush", "--wait", "5"], stdin=others.DOCKER)

    def _disturb(self) -> None:
        """A foreign rule that drops exactly every Nth datagram, for the negative control."""
        if self.scenario.drop_every:
            script = (
                "table inet disturbance { counter dropped { }; chain prerouting { "
                "type filter hook prerouting priority -350; "
                f"udp dport {specs.PUBLIC} numgen inc mod {self.scenario.drop_every} 0 "
                "counter name dropped drop; }; }"
            )
            self.host.run(["nft", "-f", "-"], stdin=script)

    def _read_drop_rule(self) -> None:
        if self.scenario.drop_every:
            done = self.host.run(["nft", "-j", "list", "counter", "inet", "disturbance", "dropped"])
            objects = json.loads(done.stdout)["nftables"]
            self.record.dropped_by_rule = next(o["counter"]["packets"] for o in objects if "counter" in o)

    def _impair(self) -> None:
        """A bad link between the clients outside and what they reach."""
        if self.scenario.has_bad_link:
            link = self.topology.outside_link()
            for end in (link.a, link.b):
                netem.impair(self.net[end.node], end.interface, self.scenario)

    def _read_link(self) -> None:
        if self.scenario.has_bad_link:
            link = self.topology.outside_link()
            for way, end in (("up", link.a), ("down", link.b)):
                self.record.link[way] = netem.read(self.net[end.node], end.interface)

    def _reconcile(self, streams: list[dict[str, Any]], received: dict[str, Any], seen: list[tuple[str, Any]]) -> None:
        """The kernel counts datagrams too; where it disagrees with the logs, the run proves nothing."""
        ours: dict[str, Counter[str]] = {name: Counter() for name in self.record.kernel}

        def add(node: str, family: int, what: str, number: int) -> None:
            ours[node][f"Udp{'' if family == 4 else '6'}{what}"] += number

        for node, group in self.streams.items():
            drops = {one["id"]: one["drops"] for one in self.client_reports[node]["streams"]}
            for spec in group:
                sent = int((records.read_sent(spec["sent_log"]) != 0).sum())
                add(node, spec["family"], "OutDatagrams", 0 if spec["sender"] == "scapy" else sent)
                add(node, spec["family"], "RcvbufErrors", drops[spec["id"]])
            for spec in streams:
                add(node, spec["family"], "InDatagrams", int((received[node]["stream"] == spec["id"]).sum()))
        for port_set, array in seen:
            for family in FAMILIES:
                mine = array[array["family"] == family]
                add(self._node(port_set), family, "OutDatagrams", int((mine["replied_ns"] != 0).sum()))
                add(self._node(port_set), family, "InDatagrams", int(((mine["flags"] & records.PUSHED) == 0).sum()))
        for port_set, final in self.finals:
            for one in final["drops"]:
                add(self._node(port_set), one["family"], "RcvbufErrors", one["drops"])
        for node, counts in ours.items():
            if node == self.topology.host and not self.switch.in_kernel:
                continue  # what a proxy receives and sends is in the kernel's counters too
            self.record.problems += ledger.reconcile(node, self.record.kernel[node], counts)
        if self.record.link:
            self._reconcile_link(ours[self.topology.outside])

    def _reconcile_link(self, outside: Counter[str]) -> None:
        """Whatever the clients outside sent or got, and nothing else, must have come to the link's ends."""
        up, down = self.record.link["up"], self.record.link["down"]
        crossed = {"sent": up["passed"] + up["dropped"], "received": down["passed"]}
        counts = {
            "sent": outside["UdpOutDatagrams"] + outside["Udp6OutDatagrams"],
            "received": outside["UdpInDatagrams"] + outside["Udp6InDatagrams"],
        }
        self.record.problems += ledger.reconcile("the link", crossed, counts)


def _datagrams(seen: Any) -> Any:
    """A backend's log without what came over TCP."""
    return seen[seen["stream"] != specs.TCP_STREAM]


def sent_slots(spec: dict[str, Any]) -> Any:
    """When each slot of a stream was sent; ImpossibleCountError if more of them were than it says it had."""
    sent_ns, slots = records.read_sent(spec["sent_log"]), spec["count"]
    if sent_ns[slots:].any():
        raise ledger.ImpossibleCountError(f"stream {spec['id']}: sent more than the {slots} slots that it had")
    return sent_ns[:slots]


def _sleep_until(when_ns: int) -> None:
    while (ahead := when_ns - time.time_ns()) > 0:
        time.sleep(ahead / NS)
