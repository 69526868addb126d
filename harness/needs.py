"""What the harness needs beyond the product: the packages of the extra `harness`."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["extra"]

PACKAGES: Final = {"numpy", "pyroute2", "scapy"}


@contextmanager
def extra(command: str) -> Iterator[None]:
    """Within it, a missing package of the extra ends the command with exit code 6 and what brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        click.echo(
            f"{command} needs {error.name}; bring it with, where Swapper's source is: pip install '.[harness]'",
            err=True,
        )
        sys.exit(6)
