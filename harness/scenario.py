"""The story of one run: topology -> backends -> streams -> swap under load -> ledger -> verdict."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness import ledger
from harness.capture import captured, trim
from harness.expect import judge
from harness.netns import build
from harness.records import LogOverflowError
from harness.stage import Stage
from harness.switch import SwapperError, SwitchError
from harness.topology import FAMILIES, PRESETS, SIDES, Family, Side
from harness.workers import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.switch import SwitchFactory

__all__ = ["Record", "Scenario", "run"]

FLOWS_PER_STREAM = 12_500  # each stream of a side has its own range of source ports
WHOLE = 1400  # bytes of payload that surely travel in one packet: a link loses packets
Expect = Literal["zero", "flush", "pinned", "outside_only", "nth", "paused", "drain"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run, as a value. Rates are for each side, shared by its families; `connected` None means half and half."""

    name: str = "run"
    dataplane: str | None = "zones"  # None, as with the engine: what Swapper picks by itself
    engine: str | None = None
    topology: str = "outside-and-host"
    sides: tuple[Side, ...] = SIDES
    families: tuple[Family, ...] = FAMILIES
    pattern: Literal["long", "fresh", "both"] = "long"
    sender: Literal["socket", "scapy"] = "socket"
    connected: bool | None = None
    backend: Literal["echo", "sink", "push"] = "echo"
    rate_per_s: int = 2000
    flows: int = 16
    ports: int = 1  # public UDP ports of the service; one of them has all the traffic
    payload: int = 64
    push_rate_per_s: float = 50  # to each flow, where the backend pushes
    service_ms: float = 0
    seconds: float = 2.0
    swaps: int = 1
    curtailed: bool = False  # the streams end once the last swap has shown what it does: `seconds` are the most
    unabridged: bool = False  # a slow machine takes longer for it, and leaves out no swap and no datagram
    lead_s: float = 0  # before the first swap, where curtailed before each; 0: as long as between two
    stop_old_after_s: float = 0.3
    udp: Literal["cut", "drain"] = "cut"
    drain_timeout_s: float = 2.0
    idle_timeout_s: float = 10.0
    flush: Literal["none", "targeted", "all"] = "targeted"
    output_chain: bool = True
    tcp: bool = False
    tcp_rate_per_s: float = 50  # of requests on each connection that is kept
    tcp_new_every_ms: float = 20
    others: bool = False  # a default-drop firewall and Docker's chains on the host
    storm_swaps: int = 0  # that many swaps in-process, evenly over the run, instead of the command
    drop_every: int = 0
    pause_ms: int = 0
    delay_ms: float = 0  # these three in each direction of the link that clients outside come by, by netem
    loss_percent: float = 0
    reorder_percent: float = 0  # so many travel without the delay, and overtake others
    swap_command: str = ""  # somebody's own script instead of `swapper`; harness.switch says what it is told
    swap_timeout_s: float = 30.0  # for each call of it
    expect: Expect = "zero"

    def __post_init__(self) -> None:
        """Refuse what cannot be played: ValueError."""
        if self.swap_command and not shlex.split(self.swap_command):  # raises ValueError over an open quotation
            raise ValueError("the swap command is empty")
        each = self.streams_a_side
        if self.flows // each > FLOWS_PER_STREAM:
            raise ValueError(f"{self.flows} flows a side are more than {FLOWS_PER_STREAM} for each of {each} streams")
        if int(self.stream_rate_per_s * self.seconds) < 1:
            raise ValueError(f"{self.rate_per_s}/s for {self.seconds} s is no datagram for each of {each} streams")
        if not 0 <= self.lead_s < self.seconds:
            raise ValueError(f"no swap can begin {self.lead_s} s into streams of {self.seconds} s")
        if self.has_bad_link:
            self._check_link()
        elif not self.swaps:
            raise ValueError("without a swap there is only a bad link to show")

    @property
    def patterns(self) -> tuple[Literal["long", "fresh"], ...]:
        """Of its streams: long flows, a flow for each datagram, or some of either."""
        return ("long", "fresh") if self.pattern == "both" else (self.pattern,)

    @property
    def socket_kinds(self) -> tuple[bool, ...]:
        """Whether the sockets of its streams are connected, are not, or some of either."""
        if self.sender == "scapy":
            return (False,)
        return (True, False) if self.connected is None else (self.connected,)

    @property
    def streams_a_side(self) -> int:
        """How many streams share the rate and the flows of a side."""
        return len(self.families) * len(self.patterns) * len(self.socket_kinds)

    @property
    def stream_rate_per_s(self) -> int:
        """Of each stream, in datagrams."""
        return max(1, self.rate_per_s // self.streams_a_side)

    @property
    def stream_flows(self) -> int:
        """Of each stream."""
        return max(1, self.flows // self.streams_a_side)

    @property
    def period_s(self) -> float:
        """From one swap to the next, and from the last to the end."""
        return (self.seconds - self.lead_s) / max(1, self.swaps if self.lead_s else self.swaps + 1)

    def moments_s(self) -> list[float]:
        """When each swap begins, after the first slot."""
        return [(self.lead_s or self.period_s) + number * self.period_s for number in range(self.swaps)]

    @property
    def has_bad_link(self) -> bool:
        """Whether the link that clients outside come by delays, loses or reorders datagrams."""
        return bool(self.delay_ms or self.loss_percent or self.reorder_percent)

    def _check_link(self) -> None:
        """Without a swap too: such a scenario has a bad link."""
        if (self.udp, self.expect) != ("cut", "zero"):
            raise ValueError("on a bad link only a cut that loses nothing can be shown, no drain and no control")
        if self.reorder_percent and not self.delay_ms:
            raise ValueError("without a delay no datagram overtakes another")
        if "outside" not in self.sides:
            raise ValueError("a bad link is for clients outside, and there are none")
        if self.tcp or self.backend != "echo" or self.sender != "socket" or self.payload > WHOLE:
            raise ValueError(f"a bad link is for echoed datagrams of sockets, of at most {WHOLE} bytes")


@dataclass(slots=True)
class Record:
    """What one run recorded, with its account and verdict."""

    scenario: Scenario
    ledger: ledger.Ledger | None = None
    t0_ns: int = 0
    swaps_ns: list[tuple[int, int]] = field(default_factory=list)  # when each swap command began and ended
    stopped_ns: int = 0
    commits_ms: list[float] = field(default_factory=list)
    kernel: dict[str, dict[str, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)  # why the run proves nothing
    pushes: dict[str, int] = field(default_factory=dict)
    tcp: dict[str, int] = field(default_factory=dict)
    fresh_streams: frozenset[int] = frozenset()
    dropped_by_rule: int = 0
    link: dict[str, dict[str, int]] = field(default_factory=dict)  # what a bad one did, on the way "up" and "down"
    said: str = ""  # by the swap command, last
    exit_code: int = 0  # of `swapper`, where it refused
    load: float = 0.0
    verdict: str = "inconclusive"
    why: str = ""
    pcap: str = ""

    def to_json(self) -> dict[str, Any]:
        """The scenario result of CONTRACT, version 1."""
        account = self.ledger
        return {
            "version": 1,
            "verdict": self.verdict,
            "why": self.why,
            "scenario": asdict(self.scenario),
            "ledger": account.to_json() if account else {},
            "blackout_ms": round(account.blackout_ms, 3) if account else None,
            "rtt_us": {name: round(value, 1) for name, value in account.rtt_us.items()} if account else {},
            "sender": _sender(account) if account else {},
            "kernel": self.kernel,
            "commit_ms": self.commits_ms,
            "pushes": self.pushes,
            "tcp": self.tcp,
            "dropped_by_rule": self.dropped_by_rule,
            "link": self.link,
            "out_of_order": account.out_of_order if account else None,
            "said": self.said,
            "exit_code": self.exit_code,
            "pcap": self.pcap,
            "host": {"kernel": platform.release(), "cpus": os.cpu_count(), "load_1min": self.load},
        }


def run(
    scenario: Scenario,
    *,
    keep: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    switch: SwitchFactory | None = None,
) -> Record:
    """Run one scenario in namespaces of its own and account for every datagram; what breaks makes it inconclusive.

    `switch` moves the traffic instead of what the scenario names.

    On a verdict other than `pass` a capture trimmed to the swaps is left under `keep`. Needs root and the main thread.
    """
    topology = PRESETS[scenario.topology]
    record = Record(scenario, load=os.getloadavg()[0])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swapper-", dir=_fast_folder())))
        net = stack.enter_context(build(topology))
        if keep is not None:
            stack.enter_context(captured(net[topology.host], folder / "run.pcap"))
        try:
            stage = Stage(scenario, topology, net, folder, record, say, switch=switch)
            stage.play(stack)
            stage.account()
        except ledger.ImpossibleCountError as error:
            record.problems.append(f"the records contradict each other: {error}")
        except SwitchError as error:
            record.problems.append(str(error))
        except (LogOverflowError, WorkerError, subprocess.TimeoutExpired, OSError) as error:
            record.problems.append(f"the harness did not come to its end: {error}")
        except subprocess.CalledProcessError as error:
            said = (error.stderr or "").strip() or "no message"
            record.problems.append(f"{shlex.join(error.cmd)} ended with {error.returncode}: {said}")
            if isinstance(error, SwapperError):
                record.exit_code, record.said = error.returncode, said
        record.verdict, record.why = judge(record)
        if record.verdict != "pass" and keep is not None:
            _keep_capture(record, folder / "run.pcap", keep)
    return record


def _sender(account: ledger.Ledger) -> dict[str, float]:
    return {
        "asked_per_s": account.asked_per_s,
        "reached_per_s": round(account.reached_per_s, 1),
        "late_p99_us": round(account.late_p99_us, 1),
        "late_slots": account.late_slots,
    }


def _fast_folder() -> str | None:
    """Logs go to memory where there is some: a disk that waits makes slots late."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - only for a folder of mkdtemp


def _keep_capture(record: Record, capture: Path, keep: Path) -> None:
    moments = [moment for pair in record.swaps_ns for moment in pair]
    if not moments:
        return
    kept = trim(capture, keep / f"{record.scenario.name.replace(' ', '-').replace('/', '-')}.pcap", moments)
    if kept is not None:
        record.pcap = str(kept)
        record.why += f"; packets around the swap: {kept}"
