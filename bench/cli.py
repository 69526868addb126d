"""The command line of the bench."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bench import results
from bench.console import need_root, say
from bench.runcli import run
from harness.needs import extra
from swapper.errors import SwapperError

if TYPE_CHECKING:
    from bench.gate import Limit

__all__ = ["cli", "gate", "main", "report", "run"]

BUDGET = Path(__file__).with_name("budget.toml")
FILE = click.Path(path_type=Path)
EXIT = {"pass": 0, "fail": 1, "inconclusive": 3}


def main() -> NoReturn:
    """Run the command line; exits with 0 measured or kept, 1 a limit is broken, 2 wrong usage or file, 3 nothing was
    proved, 5 another run holds the results file, 6 not root or a package is missing, 130 interrupted.
    """
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


@cli.command()
@click.option("--json", "path", type=FILE, help="Judge these results instead of measuring.")
@click.option("--budget", "budget_path", type=FILE, default=BUDGET, help="[default: bench/budget.toml]")
@click.option("--seconds", type=click.FloatRange(1, 1500), default=40, show_default=True, help="Of round trips in all.")
@click.option("--seed", type=int, default=1, show_default=True)
def gate(*, path: Path | None, budget_path: Path, seconds: float, seed: int) -> None:
    """Hold what was measured to the budget: 0 kept, 1 broken (which limit, by how much), 3 nothing was proved."""
    from bench import gate as judge

    try:
        limits = judge.load(budget_path)
    except judge.BudgetError as error:
        click.echo(f"swapper-bench: {error}", err=True)
        sys.exit(2)
    if path:
        document = results.read(path)
    else:
        need_root("gate")
        document = _measured_for(limits, seconds, seed)
    findings = judge.judged(limits, document)
    if not path and any(finding.limit.path and finding.verdict == "fail" for finding in findings):
        from bench.measure import round_trips

        say("a path is over its limit: measured once more, for twice as long")
        document |= round_trips(seconds=2 * seconds, seed=seed + 1, say=say)
        findings = judge.judged(limits, document)
    for finding in findings:
        click.echo(f"{finding.verdict:<13}{finding.limit.name}: {finding.found}")
        if finding.verdict != "pass":
            click.echo(f"{'':<13}{finding.limit.reason}; see it again: {finding.reproduce}")
    sys.exit(EXIT[judge.verdict(findings)])


def _measured_for(limits: list[Limit], seconds: float, seed: int) -> dict[str, Any]:
    from bench.measure import measure

    parts = tuple(
        part for part, kind in (("rtt", "path"), ("swaps", "swap")) if any(getattr(one, kind) for one in limits)
    )
    named = {limit.swap for limit in limits}
    return {"version": 0, **measure(parts=parts, seconds=seconds, seed=seed, say=say, only=named.__contains__)}
