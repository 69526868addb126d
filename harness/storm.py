"""Swap a service many times in one process, evenly until a moment: `python -m harness.storm CONFIG SWAPS UNIX_TIME`.

Uses swapper's public API alone, and prints the commits' durations as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from swapper import config
from swapper.dataplane import for_service
from swapper.model import PortSet, Swap

__all__ = ["main"]


def main() -> None:
    """Swap, with the kernel read once before; state files are not touched."""
    path, swaps, until_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    service = config.load(path).services["game"]
    plane = for_service(service)
    active = plane.observe(service).active
    if active is None:
        raise SystemExit("the kernel carries nothing to swap")
    commits_ms = []
    began_s = time.time()
    for number in range(swaps):
        while (ahead_s := began_s + (until_s - began_s) * number / swaps - time.time()) > 0:
            time.sleep(ahead_s)
        active = active.other
        commits_ms.append(round(plane.apply(Swap(service, PortSet(active))), 4))
    print(json.dumps({"commit_ms": commits_ms}))  # noqa: T201 - the answer to the owner


if __name__ == "__main__":
    main()
