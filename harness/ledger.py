"""What became of every datagram: each scheduled one gets exactly one fate, so the fates add up.

Pure: arrays in, values out; opens nothing, asks no clock. A count that cannot be is raised, never
repaired: it means that the harness is wrong, and then nothing it says can be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "LOST",
    "BackendLog",
    "ImpossibleCountError",
    "Ledger",
    "Plan",
    "StreamLedger",
    "account",
    "reconcile",
]

Ints: TypeAlias = NDArray[np.int64]
Bytes: TypeAlias = NDArray[np.uint8]
Records: TypeAlias = NDArray[np.void]

FATES: Final = (
    "answered_blue",
    "answered_green",
    "lost_up",
    "lost_down",
    "misaddressed",
    "misdelivered",
    "corrupted",
    "receiver_dropped",
    "not_sent",
)
LOST: Final = tuple(fate for fate in FATES if not fate.startswith("answered") and fate != "not_sent")
(
    ANSWERED_BLUE,
    ANSWERED_GREEN,
    LOST_UP,
    LOST_DOWN,
    MISADDRESSED,
    MISDELIVERED,
    CORRUPTED,
    RECEIVER_DROPPED,
    NOT_SENT,
) = range(len(FATES))

# The flags of `records`, and who stamped a reply in `wire`; tests hold them equal.
FLAG_WRONG_SOURCE: Final = 1
FLAG_WRONG_FLOW: Final = 2
FLAG_CORRUPT: Final = 4
FLAG_FOREIGN: Final = 8
FLAG_PUSHED: Final = 16
BLUE: Final = 1
GREEN: Final = 2

NS: Final = 1_000_000_000
LATE_NS: Final = 1_000_000
SWAP_WINDOW_NS: Final = NS


class ImpossibleCountError(Exception):
    """The records contradict each other."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One stream's schedule: datagram `seq` is due at t0 + phase + seq / rate."""

    id: int
    side: str
    family: int
    rate_per_s: int
    count: int
    kind: Literal["echo", "sink", "push"] = "echo"
    phase_ns: int = 0

    def due_ns(self, t0_ns: int) -> Ints:
        """When each datagram is due, CLOCK_REALTIME ns; the senders' own arithmetic."""
        due: Ints = t0_ns + self.phase_ns + np.arange(self.count, dtype=np.int64) * NS // self.rate_per_s
        return due


@dataclass(frozen=True, slots=True)
class BackendLog:
    """What one backend process saw: `records.read_seen` of its log."""

    who: int
    seen: Records


@dataclass(frozen=True, slots=True)
class StreamLedger:
    """One stream's datagrams, by seq: when due, when sent, their fate, when answered (0: never)."""

    plan: Plan
    due_ns: Ints
    sent_ns: Ints
    fate: Bytes
    answered_ns: Ints
    duplicates: int

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which datagrams reached their end: answered, or for one-way streams, seen."""
        return self.fate <= ANSWERED_GREEN

    @property
    def out_of_order(self) -> int:
        """How many were answered only after one that was sent later; RFC 4737, 3.3 calls these reordered."""
        came = self.answered_ns[self.answered]
        first_of_later = np.minimum.accumulate(came[::-1])[::-1]
        return int(np.count_nonzero(came[:-1] > first_of_later[1:]))

    @property
    def reached_per_s(self) -> float:
        """The rate that its sender reached: what it sent, in the time from the first slot to the end of the last."""
        if not self.sent_ns.any():
            return 0.0
        took_ns = int(self.sent_ns.max()) - int(self.due_ns[0]) + NS // self.plan.rate_per_s
        return int(np.count_nonzero(self.sent_ns)) * NS / took_ns

    def counts(self) -> dict[str, int]:
        """How many met each fate, and duplicates beside."""
        numbers = np.bincount(self.fate, minlength=len(FATES))
        return {
            **{name: int(n) for name, n in zip(FATES, numbers, strict=True)},
            "duplicate": self.duplicates,
        }


@dataclass(frozen=True, slots=True)
class Ledger:
    """The account of one run."""

    streams: tuple[StreamLedger, ...]
    strays: int
    blackout_ms: float
    rtt_us: Mapping[str, float]
    late_p99_us: float
    late_slots: int
    totals: Mapping[str, int] = field(default_factory=dict)

    @property
    def scheduled(self) -> int:
        """How many datagrams there were to send."""
        return sum(stream.plan.count for stream in self.streams)

    @property
    def lost(self) -> int:
        """Every scheduled datagram that was not answered properly."""
        return self.scheduled - self.totals["answered_blue"] - self.totals["answered_green"]

    @property
    def out_of_order(self) -> int:
        """How many were answered only after one of the same stream that was sent later."""
        return sum(stream.out_of_order for stream in self.streams)

    @property
    def asked_per_s(self) -> int:
        """The rate of all streams together, as scheduled."""
        return sum(stream.plan.rate_per_s for stream in self.streams)

    @property
    def reached_per_s(self) -> float:
        """The rate of all streams together, as their senders reached it."""
        return sum(stream.reached_per_s for stream in self.streams)

    def of(self, family: int) -> Ledger:
        """The streams of one family alone, with their fates; all else stays that of the whole run."""
        streams = tuple(stream for stream in self.streams if stream.plan.family == family)
        return replace(self, streams=streams, totals=_totals(streams))

    def to_json(self) -> dict[str, int]:
        """The `ledger` object of a scenario result."""
        return {"sent": self.scheduled - self.totals["not_sent"], **self.totals}


def account(
    plans: Sequence[Plan],
    *,
    t0_ns: int,
    sent: Mapping[int, Ints],
    received: Sequence[Records],
    backends: Sequence[BackendLog],
    client_drops: Mapping[int, int] | None = None,
    backend_drops: Mapping[int, int] | None = None,
    swaps_ns: Sequence[int] = (),
) -> Ledger:
    """One fate for each scheduled datagram.

    `sent`: send times by stream id; `received`: the clients' logs; `backends`: every backend process's
    log. `client_drops` (by stream id) and `backend_drops` (by family) are what socket buffers had no
    room for; which datagrams those were nobody knows, so the first lost ones get the label.
    Raises ImpossibleCountError where the records contradict each other.
    """
    book = _Book(plans, t0_ns, sent)
    for log in backends:
        book.enter_seen(log)
    for records in received:
        book.enter_received(records)
    fate = book.fates()
    _attribute(book, fate, client_drops or {}, backend_drops or {})
    streams = tuple(book.stream(number, fate) for number in range(len(plans)))
    totals = _totals(streams)
    if sum(totals[name] for name in FATES) != book.total:
        raise ImpossibleCountError(f"{book.total} scheduled, but the fates are {totals}")
    late = np.concatenate([_lateness(stream) for stream in streams] or [np.zeros(0, np.int64)])
    return Ledger(
        streams=streams,
        strays=book.strays,
        blackout_ms=max((_blackout_ms(stream, swaps_ns) for stream in streams), default=0.0),
        rtt_us=_quantiles_us(streams),
        late_p99_us=float(np.percentile(late, 99)) / 1000 if len(late) else 0.0,
        late_slots=int(np.count_nonzero(late > LATE_NS)),
        totals=totals,
    )


def _totals(streams: Iterable[StreamLedger]) -> dict[str, int]:
    totals = dict.fromkeys((*FATES, "duplicate"), 0)
    for stream in streams:
        for name, number in stream.counts().items():
            totals[name] += number
    return totals


class _Book:
    """All streams laid end to end, so that each record is one index."""

    def __init__(self, plans: Sequence[Plan], t0_ns: int, sent: Mapping[int, Ints]) -> None:
        self.plans = plans
        self.total = sum(plan.count for plan in plans)
        self.base = np.full(1 << 16, -1, np.int64)
        self.size = np.zeros(1 << 16, np.int64)
        at = 0
        for plan in plans:
            if self.base[plan.id] >= 0:
                raise ImpossibleCountError(f"two streams are numbered {plan.id}")
            if len(sent[plan.id]) != plan.count:
                raise ImpossibleCountError(
                    f"stream {plan.id}: {plan.count} scheduled, a send log of {len(sent[plan.id])}"
                )
            self.base[plan.id], self.size[plan.id] = at, plan.count
            at += plan.count
        empty = [np.zeros(0, np.int64)]
        self.sent = np.concatenate([np.asarray(sent[plan.id], np.int64) for plan in plans] or empty)
        self.due = np.concatenate([plan.due_ns(t0_ns) for plan in plans] or empty)
        self.one_way = np.repeat([plan.kind != "echo" for plan in plans], [plan.count for plan in plans])
        self.family = np.repeat(np.array([plan.family for plan in plans], np.uint8), [plan.count for plan in plans])
        self.seen_by = np.zeros(self.total, np.uint8)
        self.times_seen = np.zeros(self.total, np.int32)
        self.corrupt_up = np.zeros(self.total, np.bool_)
        self.first_seen_ns = np.zeros(self.total, np.int64)
        self.receipts = np.zeros(self.total, np.int32)
        self.answered_by = np.zeros(self.total, np.uint8)
        self.answered_ns = np.zeros(self.total, np.int64)
        self.flawed = np.zeros(self.total, np.uint8)
        self.strays = 0

    def enter_seen(self, log: BackendLog) -> None:
        """A backend's log; ImpossibleCountError if it saw what was never sent."""
        if log.who not in {BLUE, GREEN}:
            raise ImpossibleCountError(f"a log of backend {log.who}, which is neither blue nor green")
        seen = _where(log.seen, (log.seen["flags"] & FLAG_PUSHED) == 0)
        sound = _where(seen, (seen["flags"] & (FLAG_FOREIGN | FLAG_CORRUPT)) == 0)
        self.strays += int(np.count_nonzero(seen["flags"] & FLAG_FOREIGN))
        at = self._places(sound, f"backend {log.who} saw")
        self.seen_by[at] |= log.who
        self.times_seen += _occurrences(at, self.total)
        # Backwards, so that the first of several sightings is the one that stays.
        back, came_ns = at[::-1], sound["recv_ns"][::-1]
        known = self.first_seen_ns[back]
        earlier = (known == 0) | (came_ns < known)
        self.first_seen_ns[back[earlier]] = came_ns[earlier]
        # What it read in a damaged header may be anything; only what fits is entered.
        self.corrupt_up[self._plausible(seen[(seen["flags"] & FLAG_CORRUPT) != 0])] = True

    def enter_received(self, records: Records) -> None:
        """A client's log; ImpossibleCountError if it answers what was never sent or never seen."""
        records = _where(records, (records["flags"] & FLAG_PUSHED) == 0)
        flags = records["flags"]
        self.strays += int(np.count_nonzero(flags & FLAG_FOREIGN))
        damaged = records[(flags & (FLAG_CORRUPT | FLAG_FOREIGN)) == FLAG_CORRUPT]
        at = self._plausible(damaged)
        self.flawed[at] |= FLAG_CORRUPT
        self.receipts += _occurrences(at, self.total)
        readable = _where(records, (flags & (FLAG_CORRUPT | FLAG_FOREIGN)) == 0)
        at = self._places(readable, "a client got a reply to")
        self.receipts += _occurrences(at, self.total)
        who = readable["who"]
        unlogged = (self.seen_by[at] & who == 0) | (who == 0)
        if unlogged.any():
            first = readable[unlogged][0]
            raise ImpossibleCountError(
                f"{int(unlogged.sum())} replies by backends that have no log of them, "
                f"first: stream {first['stream']} seq {first['seq']} by {first['who']}"
            )
        for flag in (FLAG_WRONG_SOURCE, FLAG_WRONG_FLOW):
            self.flawed[at[(readable["flags"] & flag) != 0]] |= flag
        proper = readable["flags"] == 0
        # Backwards, so that the first of several replies is the one that stays.
        at, good = at[proper][::-1], _where(readable, proper)[::-1]
        self.answered_by[at] = good["who"]
        self.answered_ns[at] = good["recv_ns"]

    def fates(self) -> Bytes:
        """The fate of every datagram, before drops are attributed."""
        fate = np.full(self.total, LOST_UP, np.uint8)
        fate[(self.seen_by != 0) & ~self.one_way] = LOST_DOWN
        fate[self.corrupt_up & (self.seen_by == 0)] = CORRUPTED
        fate[(self.flawed & FLAG_CORRUPT) != 0] = CORRUPTED
        fate[(self.flawed & FLAG_WRONG_FLOW) != 0] = MISDELIVERED
        fate[(self.flawed & FLAG_WRONG_SOURCE) != 0] = MISADDRESSED
        by = np.where(self.one_way, np.where(self.seen_by & BLUE, BLUE, self.seen_by), self.answered_by)
        fate[by == BLUE] = ANSWERED_BLUE
        fate[by == GREEN] = ANSWERED_GREEN
        fate[self.sent == 0] = NOT_SENT
        return fate

    def stream(self, number: int, fate: Bytes) -> StreamLedger:
        """One stream's part of the book."""
        plan = self.plans[number]
        part = slice(int(self.base[plan.id]), int(self.base[plan.id]) + plan.count)
        one_way = plan.kind != "echo"
        # Either way counts: a request that two backends saw is one too many, even when one reply was lost.
        times = (self.times_seen if one_way else np.maximum(self.times_seen, self.receipts))[part]
        return StreamLedger(
            plan=plan,
            due_ns=self.due[part],
            sent_ns=self.sent[part],
            fate=fate[part],
            answered_ns=(self.first_seen_ns if one_way else self.answered_ns)[part],
            duplicates=int(np.maximum(times - 1, 0).sum()),
        )

    def _places(self, records: Records, did: str) -> Ints:
        base = self.base[records["stream"]]
        at: Ints = base + records["seq"]
        wrong = (base < 0) | (records["seq"] >= self.size[records["stream"]])
        wrong[~wrong] = self.sent[at[~wrong]] == 0
        if wrong.any():
            first = records[wrong][0]
            raise ImpossibleCountError(
                f"{did} {int(wrong.sum())} datagrams that were never sent, "
                f"first: stream {first['stream']} seq {first['seq']}"
            )
        return at

    def _plausible(self, records: Records) -> Ints:
        base = self.base[records["stream"]]
        fits = (base >= 0) & (records["seq"] < self.size[records["stream"]])
        at: Ints = (base + records["seq"])[fits]
        at = at[self.sent[at] != 0]
        self.strays += len(records) - len(at)
        return at


def _where(records: Records, wanted: NDArray[np.bool_]) -> Records:
    """Those wanted; no copy in the usual case that all are."""
    return records if wanted.all() else records[wanted]


def _occurrences(at: Ints, total: int) -> NDArray[np.int32]:
    return np.bincount(at, minlength=total).astype(np.int32)


def _attribute(book: _Book, fate: Bytes, clients: Mapping[int, int], backends: Mapping[int, int]) -> None:
    """Give what buffers dropped its own fate; ImpossibleCountError if more was dropped than is lost."""
    for stream, dropped in clients.items():
        base = int(book.base[stream])
        part = fate[base : base + int(book.size[stream])]
        _relabel(part, np.flatnonzero(part == LOST_DOWN), dropped, f"the client of stream {stream}")
    for family, dropped in backends.items():
        lost = np.flatnonzero((fate == LOST_UP) & (book.family == family))
        _relabel(fate, lost, dropped, f"backends on IPv{family}")


def _relabel(fate: Bytes, lost: Ints, dropped: int, where: str) -> None:
    if dropped > len(lost):
        raise ImpossibleCountError(f"{where} dropped {dropped}, but only {len(lost)} are missing there")
    fate[lost[:dropped]] = RECEIVER_DROPPED


def _lateness(stream: StreamLedger) -> Ints:
    went = stream.sent_ns != 0
    late: Ints = (stream.sent_ns - stream.due_ns)[went]
    return late


def _quantiles_us(streams: Sequence[StreamLedger]) -> dict[str, float]:
    """From the scheduled time, not the sent one: a late sender must not hide a wait."""
    rtts = [(one.answered_ns - one.due_ns)[one.answered] for one in streams if one.plan.kind == "echo"]
    rtt = np.concatenate(rtts or [np.zeros(0, np.int64)])
    if not len(rtt):
        return {"p50": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0}
    values = np.percentile(rtt, [50, 99, 99.9, 100]) / 1000
    return {name: float(value) for name, value in zip(("p50", "p99", "p999", "max"), values, strict=True)}


def _blackout_ms(stream: StreamLedger, swaps_ns: Sequence[int]) -> float:
    """The longest time without an answered datagram around a swap, beyond the stream's interval."""
    if not swaps_ns or not stream.plan.count:
        return 0.0
    interval = NS // stream.plan.rate_per_s
    first, last = int(stream.due_ns[0]), int(stream.due_ns[-1])
    # The schedule's two ends count as answered: silence until the end is a blackout too.
    marks = np.concatenate([[first - interval], stream.due_ns[stream.answered], [last + interval]])
    begins, gaps = marks[:-1], np.diff(marks)
    longest = 0
    for swap in swaps_ns:
        near = (begins <= swap + SWAP_WINDOW_NS) & (begins + gaps >= swap - SWAP_WINDOW_NS)
        longest = max(longest, int(gaps[near].max(initial=0)) - interval)
    return max(longest, 0) / 1e6


def reconcile(where: str, moved: Mapping[str, int], ours: Mapping[str, int]) -> list[str]:
    """Where the kernel's counters moved by something else than our own counts; empty if they agree."""
    return [
        f"{where}: {name} moved by {moved.get(name, 0)}, the logs say {expected}"
        for name, expected in ours.items()
        if moved.get(name, 0) != expected
    ]
