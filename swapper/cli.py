"""The command line: parse, call, print, exit code. Everything else lives elsewhere."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from swapper.console import (
    chosen,
    complain,
    complete_service,
    last_deployment,
    open_host,
    options,
    print_document,
)
from swapper.deploycli import COMMANDS
from swapper.deployments import site_of
from swapper.errors import SwapperError
from swapper.model import BackendKind, PortSet, Service
from swapper.operations import Applied, Host, Report, Swapped

__all__ = ["apply", "cli", "main", "remove", "status", "swap"]


def main() -> NoReturn:
    """Run the command line; exits with the codes of CONTRACT (README lists them), 128 + n when signal n ended it."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        cli.main(standalone_mode=False)
    except SwapperError as error:
        complain(str(error))
        if "--json" in sys.argv:
            print_document({"error": str(error), "exit_code": error.exit_code})
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads what is left to say
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _interrupted(signal.SIGINT)
    except _EndedError as error:
        _interrupted(error.number)
    sys.exit(0)


class _EndedError(BaseException):
    """A signal asked this command to end."""

    def __init__(self, number: int) -> None:
        self.number = number


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise _EndedError(number)


def _interrupted(number: int) -> NoReturn:
    complain(
        f"ended by {signal.Signals(number).name}; nothing is half done. A deployment under way is finished or undone "
        "by the next command: swapper apply. A drain under way goes on in the kernel until its deadline "
        "(classic: until swapper swap is run again); see: swapper status"
    )
    os._exit(128 + number)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="portswap", prog_name="swapper")
def cli() -> None:
    """Move live UDP and TCP traffic between two versions of a backend, in the kernel, without losing a datagram.

    Exit codes: 0 done, 1 unexpected, 2 configuration or command line wrong, 3 new release not healthy,
    4 the kernel refused and nothing moved, 5 another command holds the lock, 6 this host lacks something.
    """


for _command in COMMANDS:
    cli.add_command(_command)


@cli.command()
@click.argument("name", metavar="[SERVICE]", required=False, shell_complete=complete_service)
@options
def apply(name: str | None, path: Path | None, as_json: bool, verbose: bool) -> None:
    """Make the kernel agree with the state; the first time, activate blue.

    Repeating it changes nothing. Run it at boot and after anything that wiped the rules.
    """
    host = open_host(path, verbose)
    results, refused = [], []
    for service in chosen(host, name):
        try:
            results.append(host.apply(service))
            if tag := _revived(host, service):
                complain(f"{service.name}: its backend did not run; started {tag} again")
        except SwapperError as error:  # at boot one broken service must not keep the others from being carried
            refused.append(error)
            complain(f"{service.name}: {error}")
    if as_json:
        print_document(
            {"services": [_applied(result) for result in results], "errors": [str(error) for error in refused]}
        )
    for result in results if not as_json else ():
        done = "now carried on" if result.changed else "already on"
        click.echo(f"{result.service}: {done} {result.active}, generation {result.generation}")
        for fault in result.repaired:
            click.echo(f"  repaired: {fault}")
    if refused:
        sys.exit(max(error.exit_code for error in refused))


@cli.command()
@click.argument("name", metavar="SERVICE", shell_complete=complete_service)
@click.option(
    "--to", type=click.Choice([s.value for s in PortSet]), help="The set to move to [default: the other one]."
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the exact rule text and the live flows it would move; change nothing.",
)
@options
def swap(name: str, to: str | None, dry_run: bool, path: Path | None, as_json: bool, verbose: bool) -> None:
    """Move traffic to the other port set."""
    host = open_host(path, verbose)
    service = host.service(name)
    target = PortSet(to) if to else None
    result = host.dry_run(service, target) if dry_run else host.swap(service, target)
    if as_json:
        print_document(_swapped(result))
    elif dry_run and result.to is not result.source:
        moved = result.flows[result.source]
        click.echo(f"# {name}: {result.source} -> {result.to}, would move {_count(moved)} live flows")
        click.echo(result.script, nl=False)
    elif result.changed:
        click.echo(
            f"{name}: {result.source} -> {result.to}, generation {result.generation}, committed in "
            f"{result.commit_ms:.2f} ms, {_count(result.flows[result.source])} live flows on {result.source}"
        )
    else:
        click.echo(f"{name}: already on {result.to}, generation {result.generation}; nothing to do")


@cli.command()
@click.argument("name", metavar="[SERVICE]", required=False, shell_complete=complete_service)
@options
def status(name: str | None, path: Path | None, as_json: bool, verbose: bool) -> None:
    """Active set, generation, whether kernel and state agree, live flows per set, last deployment."""
    host = open_host(path, verbose)
    reports = [(host.status(service), last_deployment(host, service)) for service in chosen(host, name)]
    if as_json:
        print_document({"services": [_report(report) | {"deployment": last} for report, last in reports]})
        return
    for report, last in reports:
        active = report.kernel.active or "nothing"
        generation = report.meant.generation if report.meant else "-"
        flows = ", ".join(f"{s} {_count(n)}" for s, n in report.flows.items())
        how = f"{report.dataplane.name} on {report.dataplane.engine}"
        click.echo(f"{report.service.name}: {active}, generation {generation}, {how}; live flows: {flows}")
        if report.kernel.draining:
            draining = report.kernel.draining
            click.echo(f"  draining: {draining.left} flows stay on {draining.port_set}")
        if not report.in_sync:
            for why in _why_not_in_sync(report):
                click.echo(f"  not in sync: {why}")
            click.echo(f"  mend: swapper apply {report.service.name}")
        if last:
            click.echo(f"  {_told(last)}")


@cli.command()
@click.argument("name", metavar="SERVICE", shell_complete=complete_service)
@options
def remove(name: str, path: Path | None, as_json: bool, verbose: bool) -> None:
    """Take out every rule of a service and leave all others."""
    host = open_host(path, verbose)
    found = host.remove(name)
    if as_json:
        print_document({"service": name, "changed": found})
    else:
        click.echo(f"{name}: removed" if found else f"{name}: the kernel had nothing of it")
    service = host.config.services.get(name)
    if service and service.backend is not BackendKind.EXTERNAL:
        for port_set in PortSet:
            with contextlib.suppress(SwapperError):  # the rules are out; whether the engine answers is no matter
                if tag := site_of(host, service).tag_on(port_set):
                    complain(f"{name}: its backend {tag} on {port_set} is left as it is")


def _applied(result: Applied) -> dict[str, Any]:
    return {
        "service": result.service,
        "active": result.active,
        "generation": result.generation,
        "changed": result.changed,
        "repaired": list(result.repaired),
    }


def _swapped(result: Swapped) -> dict[str, Any]:
    document = {
        "service": result.service.name,
        "from": result.source,
        "to": result.to,
        "generation": result.generation,
        "dataplane": result.dataplane.name,
        "engine": result.dataplane.engine,
        "changed": result.changed,
        "commit_ms": round(result.commit_ms, 3),
        "flows": dict(result.flows),
    }
    return document | ({"script": result.script} if result.script else {})


def _report(report: Report) -> dict[str, Any]:
    draining = report.kernel.draining
    return {
        "name": report.service.name,
        "active": report.meant.active if report.meant else report.kernel.active,
        "generation": report.meant.generation if report.meant else None,
        "dataplane": report.dataplane.name,
        "engine": report.dataplane.engine,
        "in_sync": report.in_sync,
        "why": _why_not_in_sync(report),
        "kernel": {"active": report.kernel.active},
        "draining": {"set": draining.port_set, "left": draining.left} if draining else None,
        "ports": [
            {"protocol": p.protocol, "public": p.public, "blue": str(p.blue), "green": str(p.green)}
            for p in report.service.ports
        ],
        "flows": dict(report.flows),
    }


def _why_not_in_sync(report: Report) -> list[str]:
    why = list(report.kernel.faults)
    if report.meant is None:
        why.append("the state file does not know this service")
    elif report.kernel.active and report.meant.active is not report.kernel.active:
        why.append(f"the kernel carries {report.kernel.active}, the state says {report.meant.active}")
    return why


def _count(number: int | None) -> str:
    return "untracked" if number is None else str(number)


def _revived(host: Host, service: Service) -> str:
    if service.backend is BackendKind.EXTERNAL:
        return ""
    from swapper.deploy import revive

    return revive(site_of(host, service))


def _told(last: dict[str, Any]) -> str:
    """One line on the last deployment."""
    if "phase" in last:
        return f"deployment of {last['release']}: {last['phase']}; if it died, swapper apply finishes or undoes it"
    why = f": {last['why'].splitlines()[0]}" if last["why"] else ""
    return f"last {last['kind']}: {last['release'] or '-'} {last['result']}{why}"
