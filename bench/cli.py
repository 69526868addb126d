"""The command line of the bench."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import NoReturn

import click

from bench import results
from bench.console import say
from bench.gate.cli import gate
from bench.runcli import run
from harness.needs import extra
from swapper.errors import SwapperError

__all__ = ["cli", "main", "report"]

FILE = click.Path(path_type=Path)


def main() -> NoReturn:
    """Run the command line; exits with 0 measured or kept, 1 a limit is broken, 2 wrong usage or file, 3 nothing was
    proved, 5 another run holds the results file, 6 not root or a package is missing, 130 interrupted, 143 stopped.
    """
    # By itself SIGTERM would leave the logs of a swap in memory, and the worktree of a base.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with extra("swapper-bench"):
        try:
            cli.main()
        except results.ResultsError as error:
            say(f"swapper-bench: {error}")
            sys.exit(2)
        except SwapperError as error:
            say(f"swapper-bench: {error}")
            sys.exit(error.exit_code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="portswap", prog_name="swapper-bench")
def cli() -> None:
    """Measure what a swap loses and what a hop costs, dataplanes and proxies side by side, in namespaces of its own."""


cli.add_command(run)


@cli.command()
@click.option("--json", "path", type=FILE, default=results.DEFAULT, show_default=True)
@click.option("--html", "page_path", type=FILE, default=Path("results/bench.html"), show_default=True)
@click.option("--markdown", "table_path", type=FILE, default=Path("results/bench.md"), show_default=True)
def report(*, path: Path, page_path: Path, table_path: Path) -> None:
    """Draw what a run found: a page of HTML that fetches nothing, and a table of Markdown for a pull request."""
    from bench.report import markdown, page

    document = results.read(path)
    for where, text in ((page_path, page(document)), (table_path, markdown(document))):
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(text, encoding="utf-8")
        say(f"wrote {where}")


cli.add_command(gate)
