"""What the commands of the bench say to the person who runs them."""

from __future__ import annotations

import os
import sys

import click

__all__ = ["need_root", "say"]


def need_root(command: str) -> None:
    """End with exit code 6 unless root runs this."""
    if os.geteuid() != 0:
        click.echo(f"swapper-bench: making network namespaces needs root; run: sudo swapper-bench {command}", err=True)
        sys.exit(6)


def say(text: str) -> None:
    """Progress, on standard error."""
    click.echo(text, err=True)
