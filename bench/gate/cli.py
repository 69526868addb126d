"""The command `swapper-bench gate`."""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

from bench.console import need_root, say
from bench.gate.base import BaseError, has_product, worktree

if TYPE_CHECKING:
    from bench.gate.budget import Limit
    from bench.gate.trial import Trial
    from bench.gate.verdict import Finding

__all__ = ["gate"]

FILE: Final = click.Path(path_type=Path)
EXIT: Final = {"pass": 0, "fail": 1, "inconclusive": 3}
INTERRUPTED: Final = 130


def _a_product(_: click.Context, parameter: click.Parameter, tree: Path | None) -> Path | None:
    if tree and not has_product(tree):
        raise click.BadParameter(f"{tree} has no swapper/__main__.py to run", param=parameter)
    return tree.resolve() if tree else None


@click.command()
@click.option("--base", metavar="REV", help="Compare with this revision of the checkout too, in the same job.")
@click.option(
    "--product",
    type=FILE,
    metavar="DIR",
    callback=_a_product,
    help="Gate the product of this tree instead of this installation.",
)
@click.option("--json", "path", type=FILE, metavar="FILE", help="Judge these results instead of measuring.")
@click.option("--budget", "budget_path", type=FILE, metavar="FILE", help="[default: bench/budget.toml]")
@click.option("--limit", "names", multiple=True, metavar="NAME", help="This limit alone; can be repeated.")
@click.option("--markdown", "table_path", type=FILE, metavar="FILE", help="Write the table for a pull request.")
@click.option(
    "--spare-latency", is_flag=True, help="Exit with 0 too when only the latency of paths that carry was not proved."
)
@click.option("--seconds", type=click.FloatRange(1, 1500), default=40, show_default=True, help="Of round trips in all.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the order in which things are measured.")
@click.pass_context
def gate(
    context: click.Context,
    *,
    base: str | None,
    product: Path | None,
    path: Path | None,
    budget_path: Path | None,
    names: tuple[str, ...],
    table_path: Path | None,
    spare_latency: bool,
    seconds: float,
    seed: int,
) -> None:
    """Hold what is measured to the budget, which gives a reason for each limit.

    Exit codes: 0 kept, 1 broken (which limit, by how much), 2 wrong usage or file, 3 not all was proved.
    """
    from bench.gate import budget, evidence, table, trial
    from bench.gate import verdict as judge

    if path and (base or product):
        raise click.UsageError("--json judges what was measured: it goes with neither --base nor --product")
    try:
        limits = _chosen(budget.load(budget_path or budget.SHIPPED, trial.KNOWN), names, based=base is not None)
        if path:
            findings = judge.judged(limits, evidence.stored(path))
        else:
            need_root("gate")
            findings = _measured(limits, base, trial.Trial(product, seconds=seconds, seed=seed))
    except (budget.BudgetError, BaseError) as error:
        click.echo(f"swapper-bench: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    options = _measuring_options(context)

    def again(limit: Limit) -> str:
        return shlex.join(["swapper-bench", "gate", *options, "--limit", limit.name])

    for line in table.lines(findings, again):
        click.echo(line)
    if table_path:
        table_path.parent.mkdir(parents=True, exist_ok=True)
        table_path.write_text(table.markdown(findings, again), encoding="utf-8")
    deciding = [one for one in findings if not (spare_latency and one.is_unproved_latency)]
    sys.exit(EXIT[judge.verdict(deciding)])


def _chosen(limits: list[Limit], names: tuple[str, ...], *, based: bool) -> list[Limit]:
    """The limits that are named, all by default; those against a base only where there is one."""
    from bench.gate.budget import BASE

    known = {limit.name: limit for limit in limits}
    if unknown := [name for name in names if name not in known]:
        there = "\n  ".join(known)
        raise click.UsageError(f"the budget has no limit called {', '.join(unknown)}; there are:\n  {there}")
    chosen = [known[name] for name in names or known]
    if based:
        return chosen
    unbased = [limit.name for limit in chosen if limit.against == BASE]
    if unbased and (names or unbased == [limit.name for limit in chosen]):
        raise click.UsageError(f"against a base, so it needs --base REV: {', '.join(unbased)}")
    for name in unbased:
        say(f"left out without --base: {name}")
    return [limit for limit in chosen if limit.against != BASE]


def _measured(limits: list[Limit], base: str | None, plan: Trial) -> list[Finding]:
    """Judged by measurements of now; a path that seems too slow is measured once more, for twice as long."""
    from dataclasses import replace

    from bench.gate.trial import tried
    from bench.gate.verdict import confirmed, judged

    with ExitStack() as stack:
        if base:
            plan = replace(plan, base=stack.enter_context(worktree(base)))
            say(f"{base} is checked out in {plan.base}")
        longer = replace(plan, seconds=2 * plan.seconds, seed=plan.seed + 1)
        findings = judged(limits, tried(limits, plan, say))
        return confirmed(findings, lambda suspects: tried(suspects, longer, say))


def _measuring_options(context: click.Context) -> list[str]:
    """What was given on the command line and decides what is measured."""
    given = [
        parameter
        for parameter in context.command.params
        if parameter.name in {"base", "product", "budget_path", "seconds", "seed"}
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    return [word for one in given for word in (one.opts[0], str(context.params[str(one.name)]))]
