"""What /proc says of processes and of this boot: enough to know one process again."""

from __future__ import annotations

from pathlib import Path

__all__ = ["boot_id", "started_ticks"]


def started_ticks(pid: int) -> int | None:
    """When a running process started, in clock ticks since boot (proc_pid_stat(5), field 22); None if none runs.

    With its number that names one process of a boot. A zombie does not run: it holds no lock and serves nobody.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # field 2, the name, may hold spaces and parentheses
    return None if fields[0] in "ZX" else int(fields[19])


def boot_id() -> str:
    """Which boot of this machine it is (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
