"""What a scenario must show, as pure verdicts over its record: pass, fail, or inconclusive when it proves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.ledger import ANSWERED_BLUE, ANSWERED_GREEN, Ledger, StreamLedger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from harness.scenario import Record, Scenario

__all__ = ["CONTROLS", "has_faults", "judge", "outlasted", "owed", "tcp_faults"]

CONTROLS = ("flush", "pinned", "outside_only", "nth", "paused")  # what must lose, to show that a loss would be seen

NS = 1_000_000_000
TOLERANCE = 0.2  # of the model rate x service time, as 8 of 40
ATOMIC_NS = 150_000_000  # a sender may be put aside for so long between a datagram's way out and its time stamp
HANDFUL = 8  # datagrams that a control may lose beside those that it has to
FOREVER = 1 << 62

Verdict = tuple[str, str]


def judge(record: Record) -> Verdict:
    """The verdict on a run and the reason in words."""
    account = record.ledger
    if account is None or record.problems:
        return "inconclusive", "; ".join(record.problems) or "there is no ledger"
    if why := _proves_nothing(record, account):
        return "inconclusive", why
    verdict, why = RULES[record.scenario.expect](record, account)
    swaps = len(record.commits_ms)  # a slow machine makes fewer than a scenario is named for
    return verdict, f"{why}; {swaps} swaps" if swaps > 1 else why


def _proves_nothing(record: Record, account: Ledger) -> str:
    """Why no verdict can be had from a run, "" when one can."""
    if account.totals["not_sent"]:
        return f"{account.totals['not_sent']} datagrams were never sent"
    if not record.scenario.swaps:
        return ""
    if not record.swaps_ns:
        return "nothing was swapped"
    if record.scenario.swap_command and (idle := [s for s in ("blue", "green") if not account.totals[f"answered_{s}"]]):
        said = f"; it said: {record.said}" if record.said else "; it said nothing"
        return f"the swap command brought no traffic to {' and '.join(idle)}{said}"
    if outlasted(record):
        return "the last swap ended after the streams, or just before: what it moved was not counted"
    return ""


def outlasted(record: Record) -> bool:
    """Whether the last swap, or what a control stops after it, ended too late for the streams to show its effect."""
    account = record.ledger
    if account is None or not record.swaps_ns or record.scenario.expect == "drain":
        return False
    last_ns = max(int(stream.due_ns[-1]) for stream in account.streams)
    # Where somebody's own command led only those datagrams tell that `_astray` looks at.
    counted_ns = ATOMIC_NS if record.scenario.swap_command else NS // 20
    ended_ns = record.stopped_ns if record.scenario.expect == "pinned" else record.swaps_ns[-1][1]
    return ended_ns + counted_ns > last_ns


def _zero(record: Record, account: Ledger) -> Verdict:
    """Nothing lost but by a bad link, nothing from the wrong address, nothing twice, and both backends answered."""
    if account.totals["receiver_dropped"]:
        return "inconclusive", f"{account.totals['receiver_dropped']} datagrams found a full receive buffer"
    by_link = _by_link(record)
    if why := _too_many(by_link, account):
        return "inconclusive", why
    rest = {name: number - by_link.get(name, 0) for name, number in account.totals.items()}
    bad = {n: c for n, c in rest.items() if c and not n.startswith("answered")}
    if bad or account.strays:
        return "fail", ", ".join(f"{number} {name}" for name, number in bad.items()) or f"{account.strays} strays"
    if why := _without_effect(record, account):
        return "inconclusive", why
    if record.pushes and (record.pushes["lost"] or record.pushes["misaddressed"] or record.pushes["duplicate"]):
        return "fail", f"pushes: {record.pushes}"
    if record.scenario.backend == "push" and (not record.pushes["received"] or record.pushes["receiver_dropped"]):
        return "inconclusive", f"pushes: {record.pushes}"
    if broken := tcp_faults(record):
        return "fail", f"TCP: {broken}"
    if record.tcp and not (record.tcp["kept"] and record.tcp["new_after_swap"]):
        return "inconclusive", f"TCP: {record.tcp}"
    if astray := _astray(record, account):
        return "fail", astray
    told = account.scheduled - sum(by_link.values())
    pushed = f", {record.pushes['received']} pushes" if record.pushes else ""
    tcp = f", {record.tcp['opened']} TCP connections, none reset" if record.tcp else ""
    link = f"; {_of_the_link(record, account)}" if record.link else ""
    return "pass", f"0 of {told} lost (below {3 / told:.1e} at 95 %){pushed}{tcp}{link}"


def _by_link(record: Record) -> dict[str, int]:
    """How many datagrams a bad link has dropped by its own count, under the fate that they have in the ledger."""
    return {f"lost_{way}": did["dropped"] for way, did in record.link.items()}


def _too_many(by_link: dict[str, int], account: Ledger) -> str:
    """Where a link says that it dropped more than is missing from those who cross it; "" where it does not."""
    crossing = [stream.counts() for stream in account.streams if stream.plan.side == "outside"]
    for fate, dropped in by_link.items():
        if dropped > (missing := sum(counts[fate] for counts in crossing)):
            return f"the link dropped {dropped}, but only {missing} from outside are {fate}"
    return ""


def _without_effect(record: Record, account: Ledger) -> str:
    """What a bad link or a swap was to do and did not, in words; "" when each did its part."""
    scenario = record.scenario
    if scenario.loss_percent and not all(_by_link(record).values()):
        return f"the link was to lose datagrams each way: {_of_the_link(record, account)}"
    if scenario.reorder_percent and not (account.out_of_order and all(did["overtook"] for did in record.link.values())):
        return f"the link was to reorder datagrams each way: {_of_the_link(record, account)}"
    if not scenario.swaps:
        return ""
    if not (account.totals["answered_blue"] and account.totals["answered_green"]):
        return "only one backend answered: the swap moved nothing"
    # A drain may leave old flows where they are until they end; a cut leaves none.
    if scenario.udp == "cut" and (unmoved := [stream for stream in account.streams if not _has_moved(stream)]):
        return f"only one backend answered datagrams from {_origin(unmoved[0])}: no swap moved them"
    return ""


def _of_the_link(record: Record, account: Ledger) -> str:
    """What a bad link did, in words."""
    requests, replies = (f"{did['dropped']} of {did['dropped'] + did['passed']}" for did in record.link.values())
    whose = "the link" if record.scenario.swaps else "the link, without a swap,"
    lost = f"{whose} lost {requests} requests and {replies} replies"
    if not record.scenario.reorder_percent:
        return lost
    early_requests, early_replies = (did["overtook"] for did in record.link.values())
    early = f"{early_requests} requests and {early_replies} replies overtook others"
    return f"{lost}, {early}, {account.out_of_order} replies came out of order"


def tcp_faults(record: Record) -> dict[str, int]:
    """What may become of no TCP connection, counted; empty when there is nothing of the kind."""
    names = ("broken", "moved", "on_old_set", "unanswered")
    return {name: record.tcp[name] for name in names if record.tcp.get(name)}


def owed(scenario: Scenario) -> float:
    """How many replies the old backend owes at any moment, by the model: rate x service time, for all sides."""
    return scenario.rate_per_s * len(scenario.sides) * scenario.service_ms / 1000


def has_faults(record: Record) -> bool:
    """Whether anything was lost or doubled, or went astray, that no full buffer of the harness or bad link explains.

    What could not be sent counts: a rule that drops in OUTPUT refuses the send.
    """
    account = record.ledger
    if account is None:
        return False
    lost = account.lost - account.totals["receiver_dropped"] - sum(_by_link(record).values())
    pushes = any(record.pushes.get(name) for name in ("lost", "misaddressed", "duplicate"))
    stray = account.strays or _astray(record, account)
    return bool(lost or account.totals["duplicate"] or stray or pushes or tcp_faults(record))


def _astray(record: Record, account: Ledger) -> str:
    """What a set answered after the cut that took it out of use, in words; "" when there is nothing of the kind."""
    if record.scenario.udp == "drain" or record.scenario.storm_swaps or not record.swaps_ns:
        return ""
    under_way_ns = int(record.scenario.delay_ms * 1_000_000)  # what is sent so long before a swap may come after it
    untils = [begin - under_way_ns for begin, _ in record.swaps_ns[1:]] + [FOREVER]
    for number, ((_, end_ns), until_ns) in enumerate(zip(record.swaps_ns, untils, strict=True)):
        old = ANSWERED_BLUE if number % 2 == 0 else ANSWERED_GREEN
        for stream in account.streams:
            between = (stream.sent_ns > end_ns + ATOMIC_NS) & (stream.sent_ns < until_ns)
            if wrong := int((stream.fate[between] == old).sum()):
                return f"{wrong} datagrams from {_origin(stream)} reached the old set after swap {number + 1}"
    return ""


def _has_moved(stream: StreamLedger) -> bool:
    """Whether both backends answered this stream: others may move while one stays."""
    return all((stream.fate == fate).any() for fate in (ANSWERED_BLUE, ANSWERED_GREEN))


def _origin(stream: StreamLedger) -> str:
    return f"{stream.plan.side}, IPv{stream.plan.family}"


def _flush(record: Record, account: Ledger) -> Verdict:
    """A flush loses what the old backend still owed: rate x service time, and more after a burst of its sender's."""
    counts, lost = account.totals, account.lost
    model = _sent_before_last_lost(account, record.scenario.service_ms) if lost else round(owed(record.scenario))
    if lost != counts["lost_down"] + counts["misaddressed"]:
        return "fail", f"lost otherwise than in replies: {_losses(account)}"
    if abs(lost - model) > max(8.0, TOLERANCE * model):
        return "inconclusive", f"{lost} lost, the model says {model}: the control does not show its effect"
    return "pass", f"{lost} replies in flight lost their translation (model: rate x service time = {model})"


def _sent_before_last_lost(account: Ledger, service_ms: float) -> int:
    """How many were sent in the service time up to the last datagram that was lost."""
    sent_ns = np.concatenate([stream.sent_ns for stream in account.streams])
    last_ns = sent_ns[~np.concatenate([stream.answered for stream in account.streams])].max()
    return int(((sent_ns > last_ns - service_ms * 1e6) & (sent_ns <= last_ns)).sum())


def _pinned(record: Record, account: Ledger) -> Verdict:
    """Without a flush every long flow is served by the old set, and is lost when that stops."""
    if account.totals["answered_green"]:
        return "inconclusive", f"{account.totals['answered_green']} datagrams reached the new set without a flush"
    if why := _not_served(record, account.streams):
        return "inconclusive", why
    due = np.concatenate([stream.due_ns for stream in account.streams])
    after = int((due > record.stopped_ns).sum())
    if not after or account.lost < after:
        return "inconclusive", f"{account.lost} lost, but {after} were due after the old set had stopped"
    return "pass", f"every flow stayed on the old set; {account.lost} of {account.scheduled} lost once it stopped"


def _outside_only(record: Record, account: Ledger) -> Verdict:
    """Without the OUTPUT rules clients inside the host are not served at all, and those outside are."""
    outside = [stream for stream in account.streams if stream.plan.side == "outside"]
    if why := _not_served(record, outside):
        return "inconclusive", f"nor was the outside served: {why}"
    inside = [stream for stream in account.streams if stream.plan.side != "outside"]
    if served := sum(int(stream.answered.sum()) for stream in inside):
        return "inconclusive", f"{served} datagrams from inside the host were served without OUTPUT rules"
    if not inside:
        return "inconclusive", "nobody inside the host asked"
    return "pass", f"none of {sum(stream.plan.count for stream in inside)} datagrams from inside the host was served"


def _not_served(record: Record, streams: Sequence[StreamLedger]) -> str:
    """Why these streams were not served while the old set ran, a handful aside; "" when they were."""
    before = [stream.due_ns < record.stopped_ns - ATOMIC_NS for stream in streams]
    due = sum(int(mask.sum()) for mask in before)
    lost = sum(int((mask & ~stream.answered).sum()) for mask, stream in zip(before, streams, strict=True))
    if not due:
        return "nothing was due well before the old set stopped"
    return f"{lost} of {due} datagrams were lost well before the old set stopped" if lost > HANDFUL else ""


def _nth(record: Record, account: Ledger) -> Verdict:
    """A rule that drops every Nth datagram is counted exactly."""
    if (
        not record.dropped_by_rule
        or account.lost != record.dropped_by_rule
        or account.lost != account.totals["lost_up"]
    ):
        return "inconclusive", f"the rule dropped {record.dropped_by_rule}, the ledger says {_losses(account)}"
    return "pass", f"the rule dropped {record.dropped_by_rule}, the ledger found exactly these"


def _paused(_: Record, account: Ledger) -> Verdict:
    """What a paused receiver's buffer dropped is attributed to it, and nothing else is missing."""
    dropped = account.totals["receiver_dropped"]
    if not dropped or account.lost != dropped:
        return "inconclusive", f"a receiver that did not read: {_losses(account)}"
    return "pass", f"{dropped} datagrams found the paused receiver's buffer full, all attributed to it"


def _drain(record: Record, account: Ledger) -> Verdict:
    """Old flows stay on the old set until idle or the deadline, new ones go to the new set, and nothing is lost.

    The moments of the commit and of the final cut are read from the datagrams themselves: each is atomic, so all
    flows of a kind change sides at once. Only on the iptables engines does each family have a commit of its own, and
    is the deadline a time of day, which is written down before they begin.
    """
    verdict, why = _zero(record, account)
    if verdict != "pass":
        return verdict, why
    fresh = [stream for stream in account.streams if stream.plan.id in record.fresh_streams]
    old = [stream for stream in account.streams if stream.plan.id not in record.fresh_streams]
    commit_ns = min([_sent(fresh, ANSWERED_GREEN).min(initial=FOREVER), record.swaps_ns[0][1]])
    cut_ns = _sent(old, ANSWERED_GREEN).min(initial=FOREVER)
    by_family = (record.scenario.engine or "").startswith("iptables")
    commits_ns = int(record.commits_ms[0] * 1e6) if by_family else 0
    if (late := _sent(fresh, ANSWERED_BLUE).max(initial=0) - commit_ns) > commits_ns + ATOMIC_NS:
        return "fail", f"a new flow reached the old set {late / 1e6:.0f} ms after the commit"
    if (late := _sent(old, ANSWERED_BLUE).max(initial=0) - cut_ns) > ATOMIC_NS:
        return "fail", f"a datagram reached the old set {late / 1e6:.0f} ms after the final cut"
    # Committed between the last new flow that went to the old set and the first that did not: the rarer, the longer.
    seen_ns = min(commit_ns, _sent(fresh, ANSWERED_BLUE).max(initial=record.swaps_ns[0][0]))
    began_ns = max(record.swaps_ns[0][0], seen_ns - commits_ns)
    if cut_ns - began_ns < record.scenario.drain_timeout_s * NS - ATOMIC_NS:
        return "fail", f"old flows were cut {(cut_ns - began_ns) / NS:.2f} s after the swap, before the deadline"
    stayed_s = (min(cut_ns, int(_sent(old, ANSWERED_BLUE).max(initial=0))) - (commit_ns if fresh else began_ns)) / NS
    return "pass", f"{why}; old flows stayed for {stayed_s:.1f} s, new ones moved at once"


def _sent(streams: list[StreamLedger], fate: int) -> NDArray[np.int64]:
    """When the datagrams with that fate were sent."""
    empty = [np.zeros(0, np.int64)]
    return np.concatenate([stream.sent_ns[stream.fate == fate] for stream in streams] or empty)


def _losses(account: Ledger) -> str:
    return (
        ", ".join(f"{n} {c}" for n, c in account.totals.items() if c and not n.startswith("answered")) or "nothing lost"
    )


RULES = {
    "zero": _zero,
    "flush": _flush,
    "pinned": _pinned,
    "outside_only": _outside_only,
    "nth": _nth,
    "paused": _paused,
    "drain": _drain,
}
