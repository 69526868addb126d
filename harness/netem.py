"""A bad link: netem on both of its ends (tc-netem(8)), and netem's own count of what it did.

Only UDP passes through it: neighbour discovery and multicast reports would be in the count.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from typing import TYPE_CHECKING, Final

from harness.netns import build
from harness.topology import Node, Topology

if TYPE_CHECKING:
    from harness.netns import Namespace
    from harness.scenario import Scenario

__all__ = ["counted", "impair", "is_there", "read", "says_absent", "script"]

LIMIT: Final = 100_000  # datagrams under way; a full queue would drop others than those that the link is to lose
LONELY: Final = Topology("lonely", (Node("host"),), ())
ABSENT: Final = (
    "qdisc kind is unknown",  # net/sched/sch_api.c
    "classifier not found",  # net/sched/cls_api.c
    "Operation not supported",  # a kernel without CONFIG_NET_SCHED
)


def impair(namespace: Namespace, interface: str, scenario: Scenario) -> None:
    """Do to datagrams that leave by `interface` what the scenario says; CalledProcessError where the kernel cannot."""
    does = script(interface, scenario.delay_ms, scenario.loss_percent, scenario.reorder_percent)
    namespace.run(["tc", "-batch", "-"], stdin=does)


def read(namespace: Namespace, interface: str) -> dict[str, int]:
    """How many datagrams left by `interface` so far, how many were dropped there, and how many put ahead of others."""
    return counted(namespace.run(["tc", "-s", "-j", "qdisc", "show", "dev", interface]).stdout)


@functools.cache
def is_there() -> bool:
    """Whether this kernel has netem, tried out in a namespace; without root or `tc` it counts as not there.

    Raises RuntimeError where the trial fails for another reason.
    """
    if os.geteuid() != 0 or not shutil.which("tc"):
        return False
    with build(LONELY) as net:
        done = net["host"].run(["tc", "-batch", "-"], stdin=script("lo", delay_ms=1), check=False)
    if done.returncode and not says_absent(done.stderr):
        raise RuntimeError(f"whether this kernel has netem cannot be told: {done.stderr.strip()}")
    return done.returncode == 0


def says_absent(said: str) -> bool:
    """Whether `tc` says that the kernel lacks what a bad link is made of."""
    return any(words in said for words in ABSENT)


def script(interface: str, delay_ms: float = 0, loss_percent: float = 0, reorder_percent: float = 0) -> str:
    """What `tc -batch` is told."""
    does = [f"limit {LIMIT}"]
    does += [f"delay {delay_ms:g}ms"] if delay_ms else []
    does += [f"loss {loss_percent:g}%"] if loss_percent else []
    does += [f"reorder {reorder_percent:g}%"] if reorder_percent else []
    lines = [
        # No priority leads to the fourth band, only the filters.
        f"qdisc add dev {interface} root handle 1: prio bands 4",
        f"qdisc add dev {interface} parent 1:4 netem {' '.join(does)}",
        f"filter add dev {interface} parent 1: protocol ip prio 1 u32 match ip protocol 17 0xff flowid 1:4",
        f"filter add dev {interface} parent 1: protocol ipv6 prio 2 u32 match ip6 protocol 17 0xff flowid 1:4",
    ]
    return "".join(f"{line}\n" for line in lines)


def counted(listing: str) -> dict[str, int]:
    """What `tc -s -j qdisc show` says of netem."""
    (netem,) = (qdisc for qdisc in json.loads(listing) if qdisc["kind"] == "netem")
    # A datagram that overtakes is put back at the head of the queue, which the kernel counts as a requeue.
    return {"passed": netem["packets"], "dropped": netem["drops"], "overtook": netem["requeues"]}
