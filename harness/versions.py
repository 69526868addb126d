"""What the verdict on a kernel depends on beside the kernel: the system, and the tools that program netfilter."""

from __future__ import annotations

import platform
import shutil
import subprocess
from typing import Final

__all__ = ["described"]

TOOLS: Final = ("iptables", "nft")


def described() -> dict[str, str]:
    """The kernel, the distribution, the version of each tool that is here, and Python's."""
    return {
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        **{tool: _says(tool) for tool in TOOLS if shutil.which(tool)},
        "python": f"Python {platform.python_version()}",
    }


def _says(tool: str) -> str:
    done = subprocess.run([tool, "--version"], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()[0]
