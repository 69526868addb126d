"""The command line of the bench."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import click

from harness.needs import extra

__all__ = ["cli", "main", "run"]


def main() -> NoReturn:
    """Run the command line: 0 measured, 2 wrong usage, 6 not root or a package is missing."""
    with extra("swapper-bench"):
        cli.main()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="portswap", prog_name="swapper-bench")
def cli() -> None:
    """Measure what a dataplane costs, interleaved and paired with the direct path, in namespaces of its own."""


@cli.command()
@click.option("--seconds", type=click.FloatRange(1, 600), default=40, show_default=True, help="In all.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the order and of the intervals.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the measurements to FILE.")
def run(*, seconds: float, seed: int, json_path: Path | None) -> None:
    """RTT of every dataplane as a ratio to the direct path, with a 95 % interval, and what it adds on one core."""
    if os.geteuid() != 0:
        click.echo("swapper-bench: making network namespaces needs root; run: sudo swapper-bench run", err=True)
        sys.exit(6)
    from bench.paths import ROUTES, compare
    from harness import pingpong

    rtts_us = {}
    for cores in ("two cores", "one core"):
        click.echo(f"{len(ROUTES)} paths, client and backend on {cores}, {seconds / 2:.0f} s", err=True)
        rtts_us[cores] = pingpong.rtts_us(ROUTES, seconds=seconds / 2, seed=seed, one_core=cores == "one core")
    apart, together = (compare(found, seed=seed) for found in rtts_us.values())
    click.echo(f"{'':<24}{'client and backend on two cores':^41}{'on one core':^20}")
    click.echo(f"{'path':<24}{'p50 us':>10}{'ratio':>9}   {'95 % interval':<19}{'p50 us':>10}{'adds us':>10}")
    for one, other in zip(apart, together, strict=True):
        interval = f"{one.low:.3f} - {one.high:.3f}"
        click.echo(
            f"{one.name:<24}{one.p50_us:>10.1f}{one.ratio:>9.3f}   {interval:<19}"
            f"{other.p50_us:>10.1f}{other.adds_us:>10.2f}"
        )
    load = os.getloadavg()[0]
    click.echo(
        f"{apart[0].turns} and {together[0].turns} turns of {pingpong.TURN} exchanges, order by seed {seed};", nl=False
    )
    click.echo(f" kernel {platform.release()}, {os.cpu_count()} CPUs, load {load:.1f}")
    if json_path:
        comparisons = {"two cores": [asdict(one) for one in apart], "one core": [asdict(one) for one in together]}
        document = {"version": 1, "seed": seed, "rtts_us": rtts_us, "comparisons": comparisons}
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(document), encoding="utf-8")
