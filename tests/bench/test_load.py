"""Loads through real paths: every datagram is accounted for, and what carries it is charged for it."""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

import pytest

from bench.parts import capacity, cost
from bench.parts.carried import carried
from bench.parts.search import Effort
from bench.proxies import PROXIES, ProxyError, started
from harness.loads import loading
from harness.pingpong import DIRECT, Route, alive
from harness.sockets import drops

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.netns import Namespace

pytestmark = pytest.mark.bench

SOCAT = next(proxy for proxy in PROXIES if proxy.name == "socat")
THROUGH_SOCAT = Route("socat", front=partial(started, SOCAT))


@contextmanager
def sieve(host: Namespace, folder: Path, *, public: int, backend: int) -> Iterator[None]:
    """A front that drops exactly every tenth datagram."""
    rules = (
        "table ip sieve { chain lossy { type filter hook prerouting priority raw; "
        f"udp dport {public} numgen inc mod 10 0 drop; }}; "
        f"chain nat {{ type nat hook prerouting priority dstnat; udp dport {public} redirect to :{backend}; }}; }}"
    )
    (folder / "sieve.nft").write_text(rules)
    host.run(["nft", "-f", str(folder / "sieve.nft")])
    yield


@pytest.mark.parametrize("wait", ["spin", "sleep"])
def test_what_a_path_drops_is_counted_to_the_datagram(wait: Literal["spin", "sleep"]) -> None:
    with carried(Route("sieve", front=sieve)) as path:
        lost = [path.load.send(rate_per_s=10_000, count=1000, wait=wait).lost for _ in range(2)]
    assert lost == [100, 100]


def test_what_the_sink_had_no_room_for_is_not_the_paths_loss() -> None:
    with alive(DIRECT) as (asking, serving), loading(asking, serving) as load:
        serving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        _, sink = load.pids()
        os.kill(sink, signal.SIGSTOP)
        threading.Timer(0.3, os.kill, (sink, signal.SIGCONT)).start()
        passage = load.send(rate_per_s=10_000, count=1000, wait="sleep")
        assert drops(serving) > 0
        assert (passage.sent, passage.lost) == (1000, 0)


def test_a_search_finds_what_the_kernels_own_path_carries() -> None:
    result = capacity.measured(DIRECT, Effort(seconds=0.05, most_tries=8, confirmations=1, within=1.3))
    assert result["rate_per_s"] > 10_000
    assert all(0 < one["sent"] <= 0.05 * one["rate_per_s"] for one in result["tries"])


def test_a_proxy_costs_cpu_time_and_memory_and_direct_has_none() -> None:
    direct, proxied = (cost.measured(route, seconds=0.5) for route in (DIRECT, THROUGH_SOCAT))
    assert (direct["proxy_us"], direct["proxy_memory_mib"], direct["lost"]) == (None, None, 0)
    # A system call to receive and one to send take a microsecond each at the very least.
    assert proxied["system_us"] > proxied["proxy_us"] > 1
    assert direct["system_us"] > 1
    assert proxied["proxy_memory_mib"] > 0.1


def test_a_proxy_that_carries_nothing_is_named() -> None:
    @contextmanager
    def astray(host: Namespace, folder: Path, *, public: int, backend: int) -> Iterator[object]:
        with started(SOCAT, host, folder, public=public, backend=backend + 1) as running:
            yield running

    with pytest.raises(ProxyError, match="socat carries nothing: "), carried(Route("socat", front=astray)):
        pytest.fail("nothing can be sent on a path that carries nothing")


def test_a_proxy_that_ends_under_load_is_named() -> None:
    def outlive() -> None:
        with carried(THROUGH_SOCAT) as path:
            assert path.proxy
            path.proxy.end()
            assert path.load.send(rate_per_s=1000, count=100, wait="sleep").lost > 0

    with pytest.raises(ProxyError, match="socat ended with -9: "):
        outlive()
