"""The probe header: what goes in comes out, and damage shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import wire

SIZES = st.integers(wire.MIN_PAYLOAD, wire.MAX_PAYLOAD)
U16 = st.integers(0, 2**16 - 1)
U32 = st.integers(0, 2**32 - 1)


@given(run=U32, stream=U16, flow=U32, seq=U32, size=SIZES, who=st.integers(0, 2))
def test_a_probe_says_what_it_was_told(run: int, stream: int, flow: int, seq: int, size: int, who: int) -> None:
    data = wire.encode(run=run, stream=stream, flow=flow, seq=seq, size=size, who=who)
    assert len(data) == size
    assert wire.decode(data, run) == wire.Probe(wire.PROBE, who, run, stream, flow, seq, intact=True)


@given(size=SIZES, data=st.data())
def test_any_damaged_bit_is_noticed(size: int, data: st.DataObject) -> None:
    damaged = bytearray(wire.encode(run=1, stream=2, flow=3, seq=4, size=size))
    place = data.draw(st.integers(0, size - 1).filter(lambda at: at != wire.WHO_OFFSET))
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    probe = wire.decode(bytes(damaged), 1)
    assert probe is None or not probe.intact


def test_a_stamp_leaves_the_probe_intact() -> None:
    data = wire.stamped(wire.encode(run=1, stream=2, flow=3, seq=4, size=64), wire.GREEN)
    assert wire.decode(data, 1) == wire.Probe(wire.PROBE, wire.GREEN, 1, 2, 3, 4, intact=True)


@pytest.mark.parametrize("data", [b"", b"hello", bytes(64), wire.encode(run=2, stream=0, flow=0, seq=0, size=64)])
def test_what_is_not_of_this_run_is_foreign(data: bytes) -> None:
    assert wire.decode(data, 1) is None


@pytest.mark.parametrize("size", [0, 63, 8193])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"payload of {size} bytes"):
        wire.encode(run=1, stream=0, flow=0, seq=0, size=size)
