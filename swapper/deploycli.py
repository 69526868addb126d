"""The commands of deployments: deploy, rollback, history, serve, doctor."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from swapper.console import chosen, complete_service, open_host, options, print_document
from swapper.deployments import site_of

if TYPE_CHECKING:
    from pathlib import Path

    from swapper.receipts import Receipt

__all__ = ["COMMANDS", "deploy", "doctor", "history", "rollback", "serve"]

SIGNS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


@click.command()
@click.argument("name", metavar="SERVICE", shell_complete=complete_service)
@click.argument("ref", metavar="[REF]", required=False)
@options
def deploy(name: str, ref: str | None, path: Path | None, as_json: bool, verbose: bool) -> None:
    """Move a service onto a release: fetch, launch on the idle set, wait until healthy, swap, verify, retire.

    REF is a tag or a digest [default: the newest]. Until the swap, any failure leaves the old backend serving.
    """
    from swapper.deploy import deploy as story

    host = open_host(path, verbose)
    _told(story(site_of(host, host.service(name)), ref), as_json)


@click.command()
@click.argument("name", metavar="SERVICE", shell_complete=complete_service)
@options
def rollback(name: str, path: Path | None, as_json: bool, verbose: bool) -> None:
    """Go back to the previous release: at once where its backend still runs, else by deploying it again."""
    from swapper.deploy import rollback as story

    host = open_host(path, verbose)
    _told(story(site_of(host, host.service(name))), as_json)


@click.command()
@click.argument("name", metavar="[SERVICE]", required=False, shell_complete=complete_service)
@click.option("--last", type=click.IntRange(1), default=20, show_default=True, help="How many, for each service.")
@options
def history(name: str | None, last: int, path: Path | None, as_json: bool, verbose: bool) -> None:
    """Past deployments, newest first."""
    from swapper.receipts import Receipts

    host = open_host(path, verbose)
    services = chosen(host, name)
    found = [r for service in services for r in Receipts(host.folder(service) / "receipts").read(last=last)]
    found.sort(key=lambda receipt: -receipt["started_at"])
    if as_json:
        print_document({"deployments": found})
        return
    for receipt in found:
        click.echo(_line(receipt))
    if not found:
        click.echo("nothing was deployed yet")


@click.command()
@options
def serve(path: Path | None, as_json: bool, verbose: bool) -> None:  # noqa: ARG001 - every command takes --json
    """Receive GitHub's release events and deploy what they publish."""
    from swapper.webhook import serve as run

    run(open_host(path, verbose).config)


@click.command()
@options
def doctor(path: Path | None, as_json: bool, verbose: bool) -> None:  # noqa: ARG001 - every command takes -v
    """What is wrong with this host, and the command that mends it. Exits with 6 when something has to be mended."""
    from swapper import config
    from swapper.doctor import Level, examine

    findings = examine(config.load(path))
    if as_json:
        print_document({"findings": [asdict(finding) for finding in findings]})
    for finding in findings if not as_json else ():
        click.echo(f"{SIGNS[finding.level]}  {finding.check}: {finding.found}")
        if finding.mend:
            click.echo(f"      mend: {finding.mend}")
    if any(finding.level is Level.FAIL for finding in findings):
        sys.exit(6)


COMMANDS = (deploy, rollback, history, serve, doctor)


def _told(receipt: Receipt, as_json: bool) -> None:
    document = asdict(receipt)
    if as_json:
        print_document(document)
    else:
        click.echo(_line(document))
        steps = ", ".join(f"{step} {took_s:.2f} s" for step, took_s in receipt.steps.items())
        click.echo(f"  {steps}")


def _line(receipt: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(receipt["started_at"]).astimezone().isoformat(sep=" ", timespec="seconds")
    moved = f", {receipt['flows_moved']} flows moved" if receipt["flows_moved"] is not None else ""
    where = f" on {receipt['to']}" if receipt["to"] else ""
    before = f" after {receipt['previous']}" if receipt["previous"] else ""
    why = f": {receipt['why'].splitlines()[0]}" if receipt["why"] else ""
    return (
        f"{when}  {receipt['service']}: {receipt['kind']} {receipt['release'] or '-'}{where}{before}, "
        f"{receipt['result']} in {receipt['took_s']:.1f} s{moved}{why}"
    )
