"""Single exchanges: all are counted, new flows are new, failures are told, and nothing is left behind."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harness.pingpong import DIRECT, DIRECT_AGAIN, FRESH_TURN, TURN, Route, echoing, round_trips, standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Literal

    from harness.netns import Namespace

pytestmark = pytest.mark.bench

PLANES = (
    DIRECT,
    DIRECT_AGAIN,
    Route("stateless", "stateless", "nftables"),
    Route("zones", "zones", "nftables"),
    Route("classic", "classic", "iptables-nft"),
)
SERVICE_S = 0.005


def nothing(host: Namespace, folder: Path, *, public: int, backend: int) -> AbstractContextManager[None]:
    """A front that is not there."""
    del host, folder, public, backend
    return nullcontext()


@contextmanager
def running(serve: Callable[[], None]) -> Iterator[None]:
    """Meanwhile, a thread serves; it has to come to its end."""
    thread = threading.Thread(target=serve)
    thread.start()
    yield
    thread.join(timeout=5)
    assert not thread.is_alive()


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize("fresh", [False, True])
def test_every_exchange_of_every_path_counts(protocol: Literal["udp", "tcp"], fresh: bool) -> None:
    routes = [replace(route, protocol=protocol) for route in PLANES]
    found = round_trips(routes, seconds=0.3, seed=1, fresh=fresh)
    turns = {len(one.turns_us) for one in found.values()}
    assert found.keys() == {route.name for route in routes}
    assert len(turns) == 1
    assert {one.histogram.n for one in found.values()} == {turns.pop() * (FRESH_TURN if fresh else TURN)}
    for one in found.values():
        assert one.histogram.quantile_us(0) <= min(one.turns_us) * 1.01
        assert one.histogram.quantile_us(1) >= max(one.turns_us) * 0.99


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_payload_larger_than_a_frame_comes_back_whole(protocol: Literal["udp", "tcp"]) -> None:
    routes = [replace(route, protocol=protocol, payload=8192) for route in PLANES]
    assert round_trips(routes, seconds=0.1, seed=1).keys() == {route.name for route in routes}


def test_a_first_datagram_is_of_a_flow_that_nobody_has_seen() -> None:
    ports = range(20_000, 20_010)
    seen = []
    with standing(DIRECT) as (asker, serving):

        def serve() -> None:
            for _ in ports:
                data, address = serving.recvfrom(2048)
                seen.append(address[1])
                time.sleep(SERVICE_S)
                serving.sendto(data, address)

        with running(serve):
            times_ns = asker.ask_anew(ports)
    assert seen == list(ports)
    assert all(SERVICE_S * 1e9 <= took_ns < 1e9 for took_ns in times_ns)


def test_timed_connections_leave_nothing_behind() -> None:
    with standing(replace(DIRECT, protocol="tcp")) as (asker, serving), echoing([serving], core=0):
        assert len(asker.ask_anew(range(20_000, 20_200))) == 200
        sockets = asker.where.run(["cat", "/proc/net/sockstat"]).stdout
    assert "TCP: inuse 0 orphan 0 tw 0" in sockets


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_path_that_leads_nowhere_is_named(protocol: Literal["udp", "tcp"]) -> None:
    routes = (DIRECT, Route("nowhere", front=nothing))
    with pytest.raises(RuntimeError, match=r"^nowhere: .*refused"):
        round_trips([replace(route, protocol=protocol) for route in routes], seconds=0.1, seed=1)


def test_an_answer_of_another_size_is_no_answer() -> None:
    with standing(DIRECT) as (asker, serving):

        def serve() -> None:
            serving.sendto(b"x", serving.recvfrom(2048)[1])

        with running(serve), pytest.raises(ConnectionError, match="1 bytes came back instead of 64"):
            asker.ask_anew(range(20_000, 20_001))
