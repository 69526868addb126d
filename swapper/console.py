"""What every command shares: its options, the host that its configuration describes, and how it speaks."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swapper import config
from swapper.errors import MissingError, SwapperError
from swapper.model import BackendKind
from swapper.operations import Host, has_net_admin

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.shell_completion import CompletionItem

    from swapper.model import Service

__all__ = [
    "chosen",
    "complain",
    "complete_service",
    "last_deployment",
    "open_host",
    "options",
    "print_document",
]


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command takes."""
    path = click.Path(path_type=Path)
    command = click.option("-v", "--verbose", is_flag=True, help="Say more, on standard error.")(command)
    command = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")(command)
    return click.option(
        "--config",
        "path",
        type=path,
        help="Configuration file [default: $SWAPPER_CONFIG, then /etc/swapper/swapper.toml].",
    )(command)


def complete_service(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The configured services that begin with `incomplete`, for a shell; none where there is no valid configuration."""
    from click.shell_completion import CompletionItem

    try:
        services = config.load(context.params.get("path")).services
    except SwapperError:
        return []
    return [CompletionItem(name) for name in services if name.startswith(incomplete)]


def open_host(path: Path | None, verbose: bool) -> Host:
    """The host that the configuration describes. Raises ConfigError, MissingError without CAP_NET_ADMIN."""
    loaded = config.load(path)
    if not has_net_admin():
        raise MissingError("netfilter needs CAP_NET_ADMIN; run as root: sudo swapper ...")
    if verbose:
        complain(f"configuration {loaded.path}, state in {loaded.state_dir}, locks in {loaded.run_dir}")
    return Host(loaded, say=complain)


def chosen(host: Host, name: str | None) -> list[Service]:
    """The service of that name, or all."""
    return [host.service(name)] if name else list(host.config.services.values())


def last_deployment(host: Host, service: Service) -> dict[str, Any] | None:
    """The deployment under way or interrupted, else the last receipt; None for an external backend or before any."""
    if service.backend is BackendKind.EXTERNAL:
        return None
    from swapper.journal import Journal
    from swapper.receipts import Receipts

    folder = host.folder(service)
    if entry := Journal(folder).read():
        return {"release": entry.tag, "result": "under way", "phase": entry.phase, "started_at": entry.started_at}
    return next(iter(Receipts(folder / "receipts").read(last=1)), None)


def print_document(document: dict[str, Any]) -> None:
    """The one JSON document of a command."""
    click.echo(json.dumps(document))


def complain(text: str) -> None:
    """Say something to people, on standard error; to programs, where $SWAPPER_LOG is json: one JSON object a line."""
    with contextlib.suppress(OSError):  # nobody reads it: what is under way goes on
        if os.environ.get("SWAPPER_LOG") == "json":
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            click.echo(json.dumps({"time": now, "level": "info", "event": "said", "text": text}), err=True)
        else:
            click.echo(f"swapper: {text}", err=True)
