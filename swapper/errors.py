"""The error tree. Each leaf says what the operator must do and carries the exit code of CONTRACT.

SwapperError                 1  unexpected
|- ConfigError               2  mend the configuration or the command line
|- StateError                1  look at the state file; the message says how to go on
|- FetchError                1  mend the release or the way to it; nothing was launched
|- DeployError               1  mend what the message names; it says which backend serves
|  `- HookError              1  mend the operator's own command
|- UnhealthyError            3  mend the release; the old backend serves
|- KernelRefusedError        4  the kernel refused, nothing moved
|- LockedError               5  wait for, or end, the command that holds the lock
`- MissingError              6  bring what this host lacks; the message has the command
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DeployError",
    "FetchError",
    "HookError",
    "KernelRefusedError",
    "LockedError",
    "MissingError",
    "StateError",
    "SwapperError",
    "UnhealthyError",
]


class SwapperError(Exception):
    """Anything that Swapper reports without a traceback."""

    exit_code = 1


class ConfigError(SwapperError):
    """The configuration or the command line is wrong; nothing was touched."""

    exit_code = 2


class StateError(SwapperError):
    """The state file cannot be trusted; it was kept as it is."""


class FetchError(SwapperError):
    """A release could not be had whole; nothing was launched."""


class DeployError(SwapperError):
    """A deployment was stopped by something other than the release's health."""


class HookError(DeployError):
    """The operator's own command before a step failed, which stops that step."""


class UnhealthyError(SwapperError):
    """The new release is not healthy; the old backend serves."""

    exit_code = 3


class KernelRefusedError(SwapperError):
    """The kernel rejected a transaction; nothing moved."""

    exit_code = 4


class LockedError(SwapperError):
    """Another command holds the service's lock."""

    exit_code = 5


class MissingError(SwapperError):
    """The host lacks a tool, a library, a kernel feature or a permission."""

    exit_code = 6
