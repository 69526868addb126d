"""What a worker says and hears, whatever its role.

One JSON spec on the first line of standard input, `{"ready": true, ...}` on standard output, then orders line by line,
then one report.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

__all__ = ["Orders", "read_spec", "say"]


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
