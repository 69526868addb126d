"""The operator's own commands around the steps of a deployment."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
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
    # A file, not a pipe: what the hook leaves in the background may hold a pipe open for ever.
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                list(command),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise HookError(f"{name} cannot be run: {error.strerror}") from error
        try:
            code = process.wait(TIMEOUT_S)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise HookError(f"{name} did not end within {TIMEOUT_S} s") from error
            raise
        if code:
            said.seek(0)
            lines = said.read().decode(errors="replace").splitlines()[-SHOWN_LINES:]
            raise HookError("\n".join([f"{name} ended with {code}{':' if lines else ''}", *lines]))
