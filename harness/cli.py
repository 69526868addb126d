"""The command line of the harness: one scenario, or the matrix."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from harness.needs import extra

if TYPE_CHECKING:
    from types import FrameType

    from harness.matrix import Outcome
    from harness.scenario import Record, Scenario

__all__ = ["cli", "kernels", "main", "matrix", "planes", "run_one"]

EXIT = {"pass": 0, "fail": 1, "inconclusive": 3}
CAPTURES = Path("results")


def main() -> NoReturn:
    """Run the command line: 0 pass, 1 fail, 2 wrong usage, 3 inconclusive, 6 not root or a package is missing.

    One that is stopped ends with 128 and the signal's number: 1 would say that datagrams were lost.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _unwind)  # by itself SIGTERM would leave the logs of the run in memory
    with extra("swapper-harness"):
        cli.main()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="portswap", prog_name="swapper-harness")
@click.pass_context
def cli(context: click.Context) -> None:
    """Swap live traffic in network namespaces of its own and account for every datagram.

    Exit codes: 0 pass, 1 fail, 2 wrong usage, 3 inconclusive, 6 not root.
    """
    reads_only = context.invoked_subcommand == kernels.name or {"-h", "--help"} & set(sys.argv)
    if os.geteuid() != 0 and not reads_only:
        click.echo("swapper-harness: making network namespaces needs root; run: sudo swapper-harness ...", err=True)
        sys.exit(6)


@cli.command()
@click.option("--quick", is_flag=True, help="Each dataplane once, and the controls.")
@click.option("--demo", is_flag=True, help="The story only: every technique from every side.")
@click.option("--only", default="", metavar="TEXT", help="Only the scenarios whose name holds TEXT.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all results to FILE.")
@click.option("--report", type=click.Path(path_type=Path), help="Write a self-contained HTML page to FILE.")
def matrix(*, quick: bool, demo: bool, only: str, json_path: Path | None, report: Path | None) -> None:
    """Every dataplane, engine and knob, from outside and inside; prints the table."""
    from harness import matrix as matrices
    from harness.netem import is_there

    scenarios = matrices.demo() if demo else matrices.quick() if quick else matrices.full(netem=is_there())
    if not (demo or quick or is_there()):
        _say(f"this kernel has no netem: {len(matrices.links())} scenarios with a bad link are left out")
    chosen = _chosen(scenarios, only)
    began = time.monotonic()
    outcomes = _played(chosen)
    verdict = matrices.verdict(outcomes)
    _table(outcomes)
    click.echo(f"{verdict}: {len(outcomes)} scenarios in {time.monotonic() - began:.0f} s")
    if json_path:
        _write(json_path, json.dumps({"version": 1, "verdict": verdict, "results": [_json(o) for o in outcomes]}))
    if report:
        from harness.report import page

        _write(report, page(outcomes))
    sys.exit(EXIT[verdict])


@cli.command()
@click.option("--only", default="", metavar="TEXT", help="Only the scenarios whose name holds TEXT.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all results to FILE.")
def planes(*, only: str, json_path: Path | None) -> None:
    """Which dataplanes hold on this kernel, on each engine and over each family; prints the table."""
    from harness.kernels import table
    from harness.planes import document, scenarios
    from harness.versions import described

    host = described()  # first: what cannot be had should not cost minutes
    found = document(_played(_chosen(scenarios(), only)), host)
    click.echo(table([found]), nl=False)
    if json_path:
        _write(json_path, json.dumps(found))
    sys.exit(EXIT[found["verdict"]])


@cli.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--into", type=click.Path(exists=True, path_type=Path), help="Put it into FILE, between the markers that are there."
)
def kernels(*, files: tuple[Path, ...], into: Path | None) -> None:
    """Kernels side by side, in Markdown: what `planes --json` wrote on each."""
    from harness.kernels import put, table

    text = table([json.loads(path.read_text(encoding="utf-8")) for path in files])
    click.echo(text, nl=False)
    if into:
        try:
            _write(into, put(text, into.read_text(encoding="utf-8")))
        except ValueError as error:
            raise click.UsageError(f"{into}: {error}") from error


@cli.command("run")
@click.option("--dataplane", type=click.Choice(["zones", "stateless", "classic"]), default="zones", show_default=True)
@click.option(
    "--engine", type=click.Choice(["nftables", "iptables-nft", "iptables-legacy"]), help="[default: the best]"
)
@click.option(
    "--topology",
    type=click.Choice(["outside-and-host", "routed", "bridged"]),
    default="outside-and-host",
    show_default=True,
)
@click.option(
    "--from",
    "sides",
    type=click.Choice(["outside", "inside", "loopback"]),
    multiple=True,
    help="May be repeated. [default: all]",
)
@click.option("--family", "families", type=click.Choice(["4", "6"]), multiple=True, help="[default: both]")
@click.option("--pattern", type=click.Choice(["long", "fresh", "both"]), default="long", show_default=True)
@click.option("--sender", type=click.Choice(["socket", "scapy"]), default="socket", show_default=True)
@click.option("--connected/--unconnected", default=None, help="[default: half of the streams each]")
@click.option("--backend", type=click.Choice(["echo", "sink", "push"]), default="echo", show_default=True)
@click.option("--rate", "rate_per_s", type=click.IntRange(1, 200_000), default=2000, show_default=True, help="A side.")
@click.option("--flows", type=click.IntRange(1, 50_000), default=16, show_default=True, help="A side.")
@click.option("--payload", type=click.IntRange(64, 8192), default=64, show_default=True, help="Bytes.")
@click.option("--service-time", "service_ms", type=click.FloatRange(0, 50), default=0, show_default=True, help="ms.")
@click.option("--swaps", type=click.IntRange(0, 10_000), default=1, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.5, 600), default=2, show_default=True)
@click.option("--udp", type=click.Choice(["cut", "drain"]), default="cut", show_default=True)
@click.option("--flush", type=click.Choice(["none", "targeted", "all"]), default="targeted", show_default=True)
@click.option("--no-output-chain", "output_chain", is_flag=True, flag_value=False, default=True)
@click.option("--tcp", is_flag=True, help="TCP connections beside the datagrams.")
@click.option("--delay", "delay_ms", type=click.FloatRange(0, 1000), default=0, help="ms that the link outside takes.")
@click.option("--loss", "loss_percent", type=click.FloatRange(0, 50), default=0, help="Per cent that it loses.")
@click.option("--reorder", "reorder_percent", type=click.FloatRange(0, 50), default=0, help="Per cent not delayed.")
@click.option("--swap-command", default="", help="Measure your own swap script instead: README says what it is told.")
@click.option("--swap-timeout", "swap_timeout_s", type=click.FloatRange(0.1, 600), default=30, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the result to FILE; - prints it.")
def run_one(*, json_path: Path | None, **options: Any) -> None:
    """One scenario; what became of every datagram."""
    from harness.scenario import Scenario, run

    for name in ("sides", "families"):
        chosen = options.pop(name)
        if chosen:
            options[name] = tuple(int(one) if name == "families" else one for one in chosen)
    try:
        scenario = Scenario(**options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if scenario.udp == "drain":
        from dataclasses import replace

        scenario = replace(scenario, expect="drain", seconds=max(scenario.seconds, 5))
    record = run(scenario, keep=CAPTURES, say=_say)
    if json_path == Path("-"):
        click.echo(json.dumps(record.to_json()))
    else:
        _one(record)
        if json_path:
            _write(json_path, json.dumps(record.to_json()))
    sys.exit(EXIT[record.verdict])


def _chosen(scenarios: list[Scenario], only: str) -> list[Scenario]:
    """The scenarios whose name holds `only`."""
    chosen = [scenario for scenario in scenarios if only in scenario.name]
    if not chosen:
        names = "\n  ".join(scenario.name for scenario in scenarios)
        raise click.UsageError(f"no scenario's name holds {only!r}; there are:\n  {names}")
    return chosen


def _played(scenarios: list[Scenario]) -> list[Outcome]:
    """Play scenarios, and say what each came to."""
    from harness.matrix import play

    outcomes = []
    for outcome in play(scenarios, keep=CAPTURES, say=_say):
        outcomes.append(outcome)
        _say(f"  {outcome.record.verdict}: {outcome.record.why}")
    return outcomes


def _table(outcomes: list[Outcome]) -> None:
    from rich.console import Console
    from rich.table import Table

    from harness.expect import CONTROLS

    table = Table(title="What became of every datagram across a swap", title_justify="left")
    for heading, justify in (("technique", "left"), ("sent", "right"), ("sent/s", "right"), ("lost", "right")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # rich names a Literal type
    table.add_column("blackout ms", justify="right")
    table.add_column("verdict")
    table.add_column("why", overflow="fold")
    colour = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
    for outcome in outcomes:
        record, account = outcome.record, outcome.record.ledger
        shown = f"[{colour[record.verdict]}]{record.verdict}[/]"
        if record.verdict == "pass" and outcome.scenario.expect in CONTROLS:
            shown = "[cyan]loses, as it must[/]"
        table.add_row(
            outcome.scenario.name,
            str(account.to_json()["sent"]) if account else "-",
            f"{account.reached_per_s:.0f}" if account else "-",
            str(account.lost) if account else "-",
            f"{account.blackout_ms:.1f}" if account else "-",
            shown,
            record.why,
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _one(record: Record) -> None:
    click.echo(f"{record.verdict}: {record.why}")
    if record.ledger is None:
        return
    for fate, number in record.ledger.to_json().items():
        click.echo(f"  {fate:<18}{number:>10}")
    rtt = record.ledger.rtt_us
    click.echo(f"  RTT p50 {rtt['p50']:.0f} us, p99 {rtt['p99']:.0f} us; blackout {record.ledger.blackout_ms:.1f} ms")
    click.echo(f"  sent at {record.ledger.reached_per_s:,.0f}/s of {record.ledger.asked_per_s:,}/s asked for")
    click.echo(f"  sender late p99 {record.ledger.late_p99_us:.0f} us, {record.ledger.late_slots} slots over 1 ms")


def _json(outcome: Outcome) -> dict[str, Any]:
    return {**outcome.record.to_json(), "tries": outcome.tries}


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{path}: cannot be written: {error.strerror}") from error
    _say(f"wrote {path}")


def _say(text: str) -> None:
    click.echo(text, err=True)


def _unwind(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
