"""What was on the wire around a swap: tcpdump beside a run, cut down to the swap when the run failed."""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.netns import Namespace

__all__ = ["captured", "trim"]

HEADER_SIZE = 24
RECORD = struct.Struct("<IIII")  # seconds, nanoseconds, captured length, length; pcap-savefile(5)
READY_WITHIN_S = 30.0


@contextmanager
def captured(namespace: Namespace, path: Path) -> Iterator[None]:
    """Write every UDP packet of a namespace, headers only, to `path` for the length of the block.

    Without tcpdump on this machine nothing is written.
    """
    if shutil.which("tcpdump") is None:
        yield
        return
    command = ["tcpdump", "-i", "any", "-w", str(path), "-s", "128", "-B", "32768", "-Z", "root"]
    command += ["--time-stamp-precision=nano", "udp or icmp or icmp6 or ip6"]
    process = namespace.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while not path.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def trim(source: Path, target: Path, moments_ns: Sequence[int], *, margin_ns: int = 500_000_000) -> Path | None:
    """Keep the packets within `margin_ns` of any moment; None when there was no capture."""
    if not source.exists():
        return None
    data = source.read_bytes()
    kept = [data[:HEADER_SIZE]]
    at = HEADER_SIZE
    while at + RECORD.size <= len(data):
        seconds, nanoseconds, length, _ = RECORD.unpack_from(data, at)
        when_ns = seconds * 1_000_000_000 + nanoseconds
        end = at + RECORD.size + length
        if any(abs(when_ns - moment) <= margin_ns for moment in moments_ns):
            kept.append(data[at:end])
        at = end
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"".join(kept))
    return target
