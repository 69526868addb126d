"""`python -m swapper`: the `swapper` command where no script of that name is installed."""

from __future__ import annotations

from swapper.cli import main

__all__: list[str] = []

main()
