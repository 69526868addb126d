"""The ledger, which is all arrays, says the same as a model that takes one datagram after the other."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness import ledger, records, wire
from harness.ledger import BackendLog, Plan, account

T0 = 1_700_000_000_000_000_000
COUNTS = {3: 4, 9: 3}  # datagrams by stream
PLACES = [(stream, seq) for stream, count in COUNTS.items() for seq in range(count)]
SEEN: Any = np.dtype(list(records.SEEN_FIELDS.items()))
RECEIVED: Any = np.dtype(list(records.RECEIVED_FIELDS.items()))


class Entry(NamedTuple):
    """A line of a log; of a backend's, `who` is the backend."""

    place: tuple[int, int]
    who: int
    at_ns: int
    flags: int


entries = st.lists(
    st.builds(
        Entry,
        st.sampled_from(PLACES),
        st.sampled_from([wire.BLUE, wire.GREEN]),
        st.integers(T0 + 1, T0 + 1000),
        st.sampled_from([0, 0, 0, records.CORRUPT]),
    ),
    max_size=30,
)
faults = st.sampled_from(
    [0, 0, records.WRONG_SOURCE, records.WRONG_FLOW, records.CORRUPT, records.WRONG_SOURCE | records.CORRUPT]
)


class Model:
    """What is to be said of one datagram, by what was written of it in order."""

    def __init__(self, seen: list[Entry], heard: list[Entry]) -> None:
        self.sightings = [one for one in seen if not one.flags]
        self.receipts = heard
        self.damaged = any(one.flags for one in seen)
        self.proper = next((one for one in heard if not one.flags), None)

    def fate(self) -> str:
        """By the first rule that fits."""
        if self.proper:
            return "answered_blue" if self.proper.who == wire.BLUE else "answered_green"
        # Nothing that a damaged reply says of itself counts.
        readable = [one.flags for one in self.receipts if not one.flags & records.CORRUPT]
        if any(flags & records.WRONG_SOURCE for flags in readable):
            return "misaddressed"
        if readable:
            return "misdelivered"
        if self.receipts:
            return "corrupted"
        if self.sightings:
            return "lost_down"
        return "corrupted" if self.damaged else "lost_up"

    def duplicates(self) -> int:
        """Sightings or receipts beyond the first, whichever are more."""
        return max(len(self.sightings) - 1, len(self.receipts) - 1, 0)


def as_seen(entries: list[Entry]) -> Any:
    return np.array([(one.place[0], 0, one.place[1], one.at_ns, 0, 1001, 4, one.flags) for one in entries], SEEN)


def as_received(entries: list[Entry]) -> Any:
    return np.array([(one.place[0], 0, one.place[1], one.at_ns, one.who, one.flags) for one in entries], RECEIVED)


@given(seen=entries, replies=st.lists(st.tuples(st.integers(0, 29), faults), max_size=20))
def test_the_ledger_agrees_with_a_model_of_one_datagram_at_a_time(
    seen: list[Entry], replies: list[tuple[int, int]]
) -> None:
    sound = [one for one in seen if not one.flags]
    heard = [sound[number]._replace(flags=flags) for number, flags in replies if number < len(sound)]
    result = account(
        [Plan(stream, "outside", 4, 1000, count) for stream, count in COUNTS.items()],
        t0_ns=T0,
        sent={stream: np.full(count, T0 + 1, np.int64) for stream, count in COUNTS.items()},
        received=[as_received(heard)],
        backends=[BackendLog(who, as_seen([one for one in seen if one.who == who])) for who in (wire.BLUE, wire.GREEN)],
    )
    models = {
        place: Model([one for one in seen if one.place == place], [one for one in heard if one.place == place])
        for place in PLACES
    }
    found = {
        (stream.plan.id, seq): (ledger.FATES[fate], int(stream.answered_ns[seq]))
        for stream in result.streams
        for seq, fate in enumerate(stream.fate)
    }
    assert found == {place: (m.fate(), m.proper.at_ns if m.proper else 0) for place, m in models.items()}
    assert result.totals["duplicate"] == sum(model.duplicates() for model in models.values())
