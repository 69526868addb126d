"""What processes and the kernel use: CPU time to the nanosecond, and memory."""

from __future__ import annotations

import gzip
import os
import platform
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["cpu_ns", "kernel_ns", "memory_mib"]

TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
IRQ, SOFTIRQ = 6, 7  # columns of /proc/stat: proc_stat(5)


def cpu_ns(pids: Iterable[int]) -> int:
    """The CPU time of processes, all their threads together; schedstat is precise where proc_pid_stat(5) has ticks."""
    files = [file for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(file.read_text(encoding="ascii").split()[0]) for file in files)


def kernel_ns() -> int:
    """The CPU time of the kernel that it charges to no process of ours, machine-wide.

    Where a packet is worked on in a soft interrupt, Linux charges whoever sent it, or ksoftirqd if there is much to
    do. With CONFIG_IRQ_TIME_ACCOUNTING it charges nobody, and only /proc/stat knows, to the tick of 10 ms.
    """
    charged = cpu_ns(_ksoftirqd())
    if not _accounts_interrupts():
        return charged
    columns = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    return charged + (int(columns[IRQ]) + int(columns[SOFTIRQ])) * TICK_NS


def memory_mib(pids: Iterable[int]) -> float:
    """The proportional set size of processes: what they share is counted once (proc_pid_smaps(5))."""
    rollups = (Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii") for pid in pids)
    return sum(int(found[1]) for text in rollups if (found := re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE))) / 1024


@cache
def _ksoftirqd() -> tuple[int, ...]:
    names = Path("/proc").glob("[0-9]*/comm")
    return tuple(int(name.parent.name) for name in names if name.read_text().startswith("ksoftirqd/"))


@cache
def _accounts_interrupts() -> bool:
    """As the kernel was built, by its own account or the distribution's; unknown counts as no, which is the default."""
    packed, beside = Path("/proc/config.gz"), Path(f"/boot/config-{platform.release()}")
    text = gzip.decompress(packed.read_bytes()) if packed.exists() else beside.read_bytes() if beside.exists() else b""
    return b"\nCONFIG_IRQ_TIME_ACCOUNTING=y\n" in text
