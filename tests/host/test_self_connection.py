"""A port that the kernel may give to a client: a probe of it must not be answered by the probe itself."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from harness.netns import build
from swapper.model import Protocol
from swapper.probes import Endpoint, probe_for
from swapper.recipe import Health, ProbeKind
from tests import support

pytestmark = pytest.mark.root

LOW, HIGH = 40000, 40001


@pytest.mark.parametrize("kind", [ProbeKind.UDP, ProbeKind.TCP])
def test_a_probe_that_was_connected_with_itself_finds_nobody(kind: ProbeKind) -> None:
    health = Health(kind, send=b"ping", timeout_s=0.2)
    endpoint = Endpoint(Protocol(kind.value), "127.0.0.1", LOW)
    probe = probe_for(health, endpoint, listening=str, engine=str, environment={})
    with build(support.LONELY) as net, net["host"].entered():
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"{LOW} {HIGH}", encoding="ascii")
        # The other port is taken, so that every source port is the one that is probed.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind is ProbeKind.UDP else socket.SOCK_STREAM) as taken:
            taken.bind(("127.0.0.1", HIGH))
            assert probe() == f"nothing listens on {endpoint}"
