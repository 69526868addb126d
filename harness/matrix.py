"""Every dataplane, engine and knob as scenarios, with the negative controls that show that a loss would be seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from harness.calibrate import held
from harness.expect import CONTROLS, has_faults, outlasted
from harness.scenario import Record, Scenario, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from harness.switch import SwitchFactory

__all__ = [
    "PLANES",
    "Outcome",
    "controls",
    "demo",
    "full",
    "links",
    "play",
    "quick",
    "settled",
    "soak",
    "storms",
    "verdict",
]

Verdict = Literal["pass", "fail", "inconclusive"]
PLANES: tuple[tuple[str, str], ...] = (
    ("zones", "nftables"),
    ("zones", "iptables-nft"),
    ("zones", "iptables-legacy"),
    ("stateless", "nftables"),
)
# The legacy engine is slower to begin: its swap has to end while the streams still run.
SECONDS = {"nftables": 2.0, "iptables-nft": 2.0, "iptables-legacy": 3.0}
PERIOD_S = {"nftables": 0.6, "iptables-nft": 0.65, "iptables-legacy": 1.0}  # of many swaps in a row
SWAPPING: dict[str, Any] = {"rate_per_s": 1200, "stop_old_after_s": 0.1}
BAD_LINK: dict[str, dict[str, Any]] = {
    "lossy": {"delay_ms": 20, "loss_percent": 1, "pattern": "both", "sides": ("outside",)},
    # Few streams, so that many datagrams of each are under way to be overtaken.
    "reordering": {"delay_ms": 20, "reorder_percent": 5, "sides": ("outside",), "connected": True},
}
LATE_US = 5_000  # a sender later than this makes a control's model meaningless
TRIES = 3
LONGER_S = 2.0  # of streams at each further try, so that a swap on a busy machine ends before they do


@dataclass(frozen=True, slots=True)
class Outcome:
    """One scenario of a matrix with its record; `tries` counts runs that proved nothing before it."""

    scenario: Scenario
    record: Record
    tries: int = 1


def controls(engine: str = "iptables-nft") -> list[Scenario]:
    """Scenarios that must lose: the ledger has to find exactly what was taken away."""
    classic = replace(_plane("classic", engine), sides=("outside",), families=(4,), expect="flush")
    return [
        replace(classic, name=f"classic {engine} targeted flush", service_ms=20),
        replace(classic, name=f"classic {engine} flush all", service_ms=20, flush="all"),
        replace(classic, name=f"classic {engine} no flush", flush="none", expect="pinned", sides=("outside", "inside")),
        replace(
            classic,
            name=f"classic {engine} no output chain",
            output_chain=False,
            expect="outside_only",
            flush="none",
            sides=("outside", "inside", "loopback"),
        ),
        Scenario(name="every 50th dropped", drop_every=50, expect="nth"),
        Scenario(name="receiver paused", pause_ms=300, expect="paused", sides=("outside",), families=(4,)),
    ]


def demo() -> list[Scenario]:
    """The story in a dozen runs: every technique from every side, and what each one loses."""
    zero = [replace(_plane(dataplane, engine), service_ms=20, pattern="both") for dataplane, engine in PLANES]
    drain = Scenario(
        name="zones nftables drain", engine="nftables", udp="drain", pattern="both", expect="drain", seconds=5
    )
    return [*controls(), *zero, drain]


def quick() -> list[Scenario]:
    """Each dataplane once with long and fresh flows, every topology once, and the controls."""
    return [
        *demo(),
        Scenario(name="zones nftables routed", engine="nftables", topology="routed", service_ms=5),
        Scenario(name="zones nftables bridged", engine="nftables", topology="bridged", service_ms=5),
        Scenario(name="zones nftables tcp", engine="nftables", tcp=True),
    ]


def full(*, netem: bool) -> list[Scenario]:
    """Everything that is promised, each scenario from all sides and both families at once; bad links where netem is."""
    scenarios = [*controls(), *controls("iptables-legacy")[:4]]
    for dataplane, engine in PLANES:
        plane = _plane(dataplane, engine)
        name = plane.name
        scenarios += [
            replace(plane, name=f"{name} {service_ms} ms", pattern="both", service_ms=service_ms)
            for service_ms in (0, 5, 20)
        ]
        scenarios += [
            replace(plane, name=f"{name} 20 swaps", swaps=20, seconds=20 * PERIOD_S[engine], **SWAPPING),
            replace(plane, name=f"{name} fragments", payload=4096, rate_per_s=400, service_ms=5),
            replace(plane, name=f"{name} push", backend="push"),
            replace(plane, name=f"{name} sink", backend="sink"),
            replace(plane, name=f"{name} tcp beside others", tcp=True, others=True),
        ]
        if dataplane == "zones":
            scenarios += [
                replace(plane, name=f"{name} bridged", topology="bridged", service_ms=5),
                replace(plane, name=f"{name} drain", udp="drain", pattern="both", expect="drain", seconds=6),
            ]
    scenarios += [
        Scenario(name="zones nftables scapy", engine="nftables", sender="scapy", rate_per_s=300, service_ms=5),
        Scenario(name="zones nftables routed", engine="nftables", topology="routed", service_ms=5),
        *storms(),
        *(links() if netem else []),
    ]
    return scenarios


def _plane(dataplane: str, engine: str) -> Scenario:
    """The scenario that all others of a dataplane are variations of."""
    return Scenario(name=f"{dataplane} {engine}", dataplane=dataplane, engine=engine, seconds=SECONDS[engine])


def storms() -> list[Scenario]:
    """A thousand swaps in four seconds, in one process, under load."""
    return [
        Scenario(
            name=f"{dataplane} storm",
            dataplane=dataplane,
            engine="nftables",
            sides=("outside", "loopback"),
            storm_swaps=1000,
            seconds=5,
            service_ms=20,
        )
        for dataplane in ("zones", "stateless")
    ]


def links() -> list[Scenario]:
    """A link that loses and one that reorders: what each does without a swap, then every dataplane's swap on it."""
    scenarios = []
    for kind, bad in BAD_LINK.items():
        scenarios.append(Scenario(name=f"no swap {kind} link", swaps=0, service_ms=5, **bad))
        planes = [_plane(*names) for names in PLANES]
        scenarios += [replace(plane, name=f"{plane.name} {kind} link", service_ms=5, **bad) for plane in planes]
    return scenarios


def soak() -> list[Scenario]:
    """Two hundred swaps in a row in one stream, the idle backend restarted between them."""
    return [
        Scenario(
            name=f"{dataplane} {engine} 200 swaps",
            dataplane=dataplane,
            engine=engine,
            swaps=200,
            unabridged=True,
            seconds=200 * PERIOD_S[engine],
            service_ms=20,
            **SWAPPING,
        )
        for dataplane, engine in PLANES
    ]


def play(
    scenarios: Sequence[Scenario], *, keep: Path | None = None, say: Callable[[str], None] = lambda _: None
) -> Iterator[Outcome]:
    """Run scenarios one after the other, slowed to the pace of this machine, each as `settled` does."""
    for number, asked in enumerate(scenarios, start=1):
        scenario = held(asked)
        say(f"[{number}/{len(scenarios)}] {scenario.name}" + ("" if scenario == asked else _slower(scenario, asked)))
        yield settled(scenario, keep=keep, say=say)


def settled(
    scenario: Scenario,
    *,
    keep: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    switch: SwitchFactory | None = None,
) -> Outcome:
    """Run a scenario until it proves something.

    A run that proves nothing because its sender was late, or the swap slower than its streams, is made again, up to
    three times; one that lost a datagram never is, unless it is a control, which has to lose.
    """
    for attempt in range(1, TRIES + 1):
        record = run(scenario, keep=keep, say=say, switch=switch)
        late = record.ledger is not None and record.ledger.late_p99_us > LATE_US
        telling = has_faults(record) and scenario.expect not in CONTROLS
        if record.verdict != "inconclusive" or not (late or outlasted(record)) or telling or attempt == TRIES:
            break
        say(f"  {record.why}; once more, for longer")
        scenario = replace(scenario, seconds=scenario.seconds + LONGER_S)
    return Outcome(scenario, record, attempt)


def _slower(scenario: Scenario, asked: Scenario) -> str:
    swaps = f", {scenario.swaps} swaps" if scenario.swaps > 1 else ""
    most = "at most " if scenario.curtailed else ""
    flows = f", {scenario.flows} flows" if scenario.flows != asked.flows else ""
    return f", as slow as this machine: {scenario.rate_per_s}/s for {most}{scenario.seconds:.1f} s{swaps}{flows}"


def verdict(outcomes: Sequence[Outcome]) -> Verdict:
    """The verdict on a whole matrix: a control that does not show its effect makes all of it inconclusive."""
    verdicts = [outcome.record.verdict for outcome in outcomes]
    if "fail" in verdicts:
        return "fail"
    return "pass" if verdicts and set(verdicts) == {"pass"} else "inconclusive"
