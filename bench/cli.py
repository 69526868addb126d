"""The command line of the bench."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bench import results
from harness.needs import extra

if TYPE_CHECKING:
    from bench.gate import Limit

__all__ = ["cli", "gate", "main", "report", "run"]

BUDGET = Path(__file__).with_name("budget.toml")
FILE = click.Path(path_type=Path)
EXIT = {"pass": 0, "fail": 1, "inconclusive": 3}


def main() -> NoReturn:
    """Run the command line; exits with 0 measured or kept, 1 a limit is broken, 2 wrong usage or file, 3 nothing was
    proved, 6 not root or a package is missing.
    """
    with extra("swapper-bench"):
        try:
            cli.main()
        except results.ResultsError as error:
            click.echo(f"swapper-bench: {error}", err=True)
            sys.exit(2)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="portswap", prog_name="swapper-bench")
def cli() -> None:
    """Measure what a swap loses and what a hop costs, dataplanes and proxies side by side, in namespaces of its own."""


@cli.command()
@click.option("--quick", is_flag=True, help="Under three minutes: 40 s of round trips.")
@click.option("--seconds", type=click.FloatRange(1, 1500), help="Of round trips in all. [default: 300; --quick: 40]")
@click.option("--only", type=click.Choice(["rtt", "swaps"]), help="One part alone.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the order and of the intervals.")
@click.option("--json", "path", type=FILE, default=results.DEFAULT, show_default=True)
def run(*, quick: bool, seconds: float | None, only: str | None, seed: int, path: Path) -> None:
    """Round trips of every dataplane and proxy against the direct path, and what each loses across a swap."""
    _need_root("run")
    from bench.measure import PARTS, measure

    chosen_s = seconds or (40.0 if quick else 300.0)
    document = measure(parts=(only,) if only else PARTS, seconds=chosen_s, seed=seed, say=_say)
    results.write(path, document)
    _say(f"wrote {path}")
    _print(document)


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
        _say(f"wrote {where}")


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
        _need_root("gate")
        document = _measured_for(limits, seconds, seed)
    findings = judge.judged(limits, document)
    if not path and any(finding.limit.path and finding.verdict == "fail" for finding in findings):
        from bench.measure import round_trips

        _say("a path is over its limit: measured once more, for twice as long")
        document |= round_trips(seconds=2 * seconds, seed=seed + 1, say=_say)
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
    return {"version": 0, **measure(parts=parts, seconds=seconds, seed=seed, say=_say, only=named.__contains__)}


def _print(document: dict[str, Any]) -> None:
    for name, why in document["missing"].items():
        click.echo(f"without {name}: {why}")
    on_one_core = {one["name"]: one for one in document["comparisons"]["one core"]}
    if document["comparisons"]["two cores"]:
        click.echo(f"{'':<24}{'client and backend on two cores':^41}{'on one core':^20}")
        click.echo(f"{'path':<24}{'p50 us':>10}{'ratio':>9}   {'95 % interval':<19}{'p50 us':>10}{'adds us':>10}")
    for one in document["comparisons"]["two cores"]:
        interval = f"{one['low']:.3f} - {one['high']:.3f}"
        other = on_one_core.get(one["name"])
        alone = f"{other['p50_us']:>10.1f}{other['adds_us']:>10.2f}" if other else f"{'-':>10}{'-':>10}"
        click.echo(f"{one['name']:<24}{one['p50_us']:>10.1f}{one['ratio']:>9.3f}   {interval:<19}{alone}")
    for one in document["swaps"]:
        click.echo(f"{one['technique']:<32}{one['verdict']:<14}{one['why']}")
    if document["noisy"]:
        click.echo("this machine was busy: the round trips prove nothing", err=True)


def _need_root(command: str) -> None:
    if os.geteuid() != 0:
        click.echo(f"swapper-bench: making network namespaces needs root; run: sudo swapper-bench {command}", err=True)
        sys.exit(6)


def _say(text: str) -> None:
    click.echo(text, err=True)
