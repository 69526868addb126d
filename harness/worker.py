"""What runs in a namespace: `python -m harness.worker backend|client|tcp|load|sink`.

Standard library only, so that it is ready within milliseconds. One JSON spec on the first line of
standard input, `{"ready": true, ...}` on standard output, then orders line by line, then one report.
Dies with its owner.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import sys
from typing import Any, Final

__all__ = ["Orders", "main", "read_spec", "say"]

PR_SET_PDEATHSIG: Final = 1
PR_SET_TIMERSLACK: Final = 29


def say(report: dict[str, Any]) -> None:
    """One JSON line to the owner."""
    os.write(1, json.dumps(report).encode() + b"\n")


class Orders:
    """Lines from the owner, read without blocking the caller's loop."""

    def __init__(self) -> None:
        self._pending = b""
        self.closed = False

    def read(self) -> list[str]:
        """What has come by now, in whole lines; blocks only if nothing is there; sets `closed` on EOF."""
        chunk = os.read(0, 1 << 16)
        self.closed = not chunk
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        return [line.decode() for line in lines]


def read_spec() -> dict[str, Any]:
    """The spec on the first line; nothing of what follows is taken."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(0)
        line += byte
    spec: dict[str, Any] = json.loads(line)
    return spec


def main() -> None:
    """Run the role named on the command line."""
    owner = os.getppid()
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(PR_SET_TIMERSLACK, 1)
    if os.getppid() != owner:
        return  # the owner died before the line above
    # Ctrl-C is the owner's to handle: it still needs the reports.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Workers live for seconds; a collection in mid-run would make slots late.
    gc.disable()
    spec = read_spec()
    role = sys.argv[1]
    # Imported by role: each costs start-up time that the others should not pay.
    if role == "backend":
        from harness.backends import serve

        serve(spec)
    elif role == "client":
        from harness.streams import stream

        stream(spec)
    elif role == "tcp":
        from harness.tcp import connect

        connect(spec)
    elif role in ("load", "sink"):
        from harness import load

        {"load": load.load, "sink": load.sink}[role](spec)
    else:
        raise SystemExit(f"no such role: {role}")


if __name__ == "__main__":
    main()
