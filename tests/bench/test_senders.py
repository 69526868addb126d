"""Every sender keeps its schedule, or says what it reached and whose fault that was."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from harness import records
from harness.netns import build
from harness.topology import OUTSIDE_AND_HOST
from tests import support
from tests.loads import account_for, backend_spec, stream_spec

if TYPE_CHECKING:
    from pathlib import Path

    from harness.netns import Net

pytestmark = pytest.mark.bench

RATE = 200_000
RUNS = 5


def send_a_batch(net: Net, logs: Path, *, rate_per_s: int, stopped_s: float = 0.0) -> dict[str, Any]:
    """One second of the batch sender to a sink, a core each: the sender's own report."""
    more = {"sender": "batch", "flows": 1, "rate_per_s": rate_per_s, "count": rate_per_s}
    spec = stream_spec(logs, OUTSIDE_AND_HOST, "outside", 4, number=1, **more)
    sink = net["host"].spawn("backend", backend_spec(logs, kind="sink"))
    client = net["outside"].spawn(
        "client", {"run": 9, "capacity": 1000, "linger_ms": 100, "log": str(logs / "c"), "streams": [spec]}
    )
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(client.pid, {cores[0]})
    os.sched_setaffinity(sink.pid, {cores[-1]})
    client.go(time.time_ns() + 50_000_000)
    if stopped_s:
        time.sleep(0.2)
        os.kill(client.pid, signal.SIGSTOP)
        time.sleep(stopped_s)
        os.kill(client.pid, signal.SIGCONT)
    report: dict[str, Any] = client.result(timeout_s=30)["streams"][0]
    assert report["sent"] == sink.stop()["seen"] == rate_per_s
    return report


def test_the_batch_sender_keeps_its_rate_to_a_sink_on_one_core(logs: Path) -> None:
    rate_per_s = int(RATE / support.slowness())
    with build(OUTSIDE_AND_HOST) as net:
        # Time that the hypervisor took is told apart and not the sender's; whom it made wait for whom is not told.
        for _ in range(RUNS):
            report = send_a_batch(net, logs, rate_per_s=rate_per_s)
            late_by_itself = report["late_slots"] - report["stolen_slots"]
            support.MEASURED.info("%d/s for a second: %d slots over 1 ms late", rate_per_s, late_by_itself)
            if late_by_itself < rate_per_s // 100:
                return
        pytest.fail(f"{late_by_itself} of {rate_per_s} slots were over 1 ms late")


def test_a_batch_sender_that_was_stopped_does_not_call_it_stolen(logs: Path) -> None:
    with build(OUTSIDE_AND_HOST) as net:
        report = send_a_batch(net, logs, rate_per_s=20_000, stopped_s=0.1)
    assert report["late_slots"] - report["stolen_slots"] > 0.09 * 20_000


def test_scapy_says_what_it_reached_not_what_was_asked(logs: Path) -> None:
    more = {"sender": "scapy", "connected": False, "rate_per_s": 1_000_000, "count": 2000}
    spec = stream_spec(logs, OUTSIDE_AND_HOST, "outside", 4, number=1, **more)
    with build(OUTSIDE_AND_HOST) as net:
        result = account_for(net, logs, {"outside": [spec]}, backend_spec(logs))
    came_ns = records.read_seen(logs / "blue")["recv_ns"]
    arrived_per_s = (len(came_ns) - 1) * 1e9 / (int(came_ns.max()) - int(came_ns.min()))
    assert result.totals["answered_blue"] == 2000
    assert result.asked_per_s == 1_000_000
    assert result.reached_per_s == pytest.approx(arrived_per_s, rel=0.1)
    assert result.reached_per_s < 500_000
