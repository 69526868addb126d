"""What may go wrong with one path or step while the others go on, and what is said of it."""

from __future__ import annotations

import subprocess
from typing import Final

from bench.proxies import ProxyError
from harness.workers import WorkerError

__all__ = ["FAILURES", "why"]

# RuntimeError for a path that gives no answer: harness.pingpong.
FAILURES: Final = (ProxyError, RuntimeError, WorkerError, subprocess.SubprocessError)


def why(error: Exception) -> str:
    """What failed, in its own words; those of a program that ended are what it said."""
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
    return (said or "").strip() or str(error)
