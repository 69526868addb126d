"""The operator's own commands around the steps of a deployment."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING

from swapper.errors import HookError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["run_hook"]

TIMEOUT_S = 600
SHOWN_LINES = 20


def run_hook(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run a hook to its end, without a shell; `environment` tells it what happens.

    Raises HookError with its last lines when it fails, is not there, or takes more than ten minutes.
    """
    name = f"hook {environment['SWAPPER_HOOK']} ({shlex.join(command)})"
    try:
        done = subprocess.run(
            list(command),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HookError(f"{name} did not end within {TIMEOUT_S} s") from error
    except OSError as error:
        raise HookError(f"{name} cannot be run: {error.strerror}") from error
    if done.returncode:
        said = "\n".join(done.stdout.splitlines()[-SHOWN_LINES:])
        raise HookError(f"{name} ended with {done.returncode}{f':{chr(10)}{said}' if said else ''}")
