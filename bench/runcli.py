"""The command `swapper-bench run`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from bench import results
from bench.console import need_root, say
from bench.measure import PARTS, Wanted, measure

__all__ = ["run"]

INTERRUPTED: Final = 130
TIMED: Final = {"rtt", "sweeps"}


@click.command()
@click.option("--quick", is_flag=True, help="Under three minutes: one round, 40 s of round trips, no sweeps.")
@click.option(
    "--only", "parts", type=click.Choice(list(PARTS)), multiple=True, help="This part alone; may be given again."
)
@click.option(
    "--rounds", type=click.IntRange(1, 100), help="Of everything that is repeated.  [default: 10; --quick: 1]"
)
@click.option("--seconds", type=click.FloatRange(1, 1500), help="Of round trips in all.  [default: 200; --quick: 40]")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the order within each round.")
@click.option("--json", "path", type=click.Path(path_type=Path), default=results.DEFAULT, show_default=True)
@click.option("--fresh", is_flag=True, help="Start anew, even where an interrupted run could go on.")
def run(
    *,
    quick: bool,
    parts: tuple[str, ...],
    rounds: int | None,
    seconds: float | None,
    seed: int,
    path: Path,
    fresh: bool,
) -> None:
    """Measure dataplanes and real proxies side by side, and keep it for `report` and `gate`.

    \b
    rtt       round trips of every path against the direct one; first datagrams, TCP
    swaps     what each technique loses across a swap under load
    capacity  the highest rate without loss
    cost      processor time for a datagram, memory
    sweeps    the same as flows, ports, payload, service time and rate grow

    All in network namespaces of its own, interleaved in rounds whose order follows the seed. Each step is kept at once:
    after Ctrl-C, a crash or a full disk the same command goes on where it stopped. A proxy that is not installed or
    fails is named, the rest goes on. The full run takes under 30 minutes on two cores.
    """  # noqa: D301 - \b is click's, not a character
    need_root("run")
    chosen = tuple(part for part in PARTS if part in parts or not parts)
    wanted = Wanted.quickly(chosen, seed=seed) if quick else Wanted(chosen, seed=seed)
    wanted = replace(wanted, rounds=rounds or wanted.rounds, rtt_s=seconds or wanted.rtt_s)
    try:
        document = measure(wanted, path, fresh=fresh, say=say)
    except KeyboardInterrupt:
        say("interrupted; what was measured is kept: the same command goes on from there")
        sys.exit(INTERRUPTED)
    from bench.table import lines

    say(f"wrote {path}")
    for line in lines(document):
        click.echo(line)
    for name, why in {**document["missing"], **document["failed"]}.items():
        say(f"without {name}: {why}")
    if document["noise"]["busy"] and document["measured"].keys() & TIMED:
        say(f"no verdict on latency: {document['noise']['why']}")
