"""The parts of a configuration that say how a backend is fetched, run, probed and retired."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from swapper.model import BackendKind, PortMap, Protocol
from swapper.recipe import Execution, Health, ProbeKind, Recipe, Secret, Serve, Source, SourceKind, Step, Webhook
from swapper.tomltable import shown_as

if TYPE_CHECKING:
    from swapper.tomltable import Table

__all__ = ["TEMPLATE", "recipe", "serve"]

TEMPLATE = re.compile(r"\{([a-z]+(?:_[0-9]+)?)\}")
IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,254}")
REPOSITORY = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
ABSOLUTE = re.compile(r"/[^\0]*")
NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
URL = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,4}|:[1-5][0-9]{4})?(/\S*)?")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LISTEN = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[A-Za-z0-9.-]+)):(?P<port>[0-9]{1,5})")
HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")
SIGNALS = sorted(s.name for s in signal.Signals if s.name not in ("SIGKILL", "SIGSTOP"))
OF_A_DEPLOYMENT = ("release", "health", "deploy", "hooks", "webhook")


def recipe(service: Table, ports: tuple[PortMap, ...]) -> tuple[BackendKind, Recipe]:
    """What the tables of one service say of its backends; mistakes are noted."""
    table = service.table("backend")
    kind = table.choice("kind", BackendKind, BackendKind.EXTERNAL) if table else BackendKind.EXTERNAL
    execution = _execution(table, kind, ports) if table else Execution()
    if table:
        table.close()
    source = _source(service.table("release"), kind)
    health = _health(service.table("health"), kind, ports)
    bake_s, settle_s = _deploy(service.table("deploy"))
    hooks = _hooks(service.table("hooks"))
    webhook = _webhook(service.table("webhook"))
    if kind is BackendKind.EXTERNAL:
        for name in OF_A_DEPLOYMENT:
            if name in service.values:
                service.mistake(name, "a table, with backend.kind external", "this table with kind process or docker")
    elif kind and "release" not in service.values:
        service.mistake("release", "nothing", "a table that says where releases come from")
    return kind or BackendKind.EXTERNAL, Recipe(execution, source, health, webhook, bake_s, settle_s, hooks)


def serve(table: Table | None) -> Serve:
    """The webhook server's table; mistakes are noted."""
    default = Serve()
    if table is None:
        return default
    listen = table.text("listen", f"{default.host}:{default.port}", rule=LISTEN, allowed='"127.0.0.1:9000" or alike')
    match = LISTEN.fullmatch(listen)
    host, port = default.host, default.port
    if match and int(match["port"]) <= 65535:
        host, port = match["v6"] or match["v4"], int(match["port"])
    else:
        table.mistake("listen", shown_as(listen), "a port, 0 to 65535")
    limit = table.size_bytes("body_limit", default.body_limit_bytes)
    secret = _secret(table, "secret")
    table.close()
    return Serve(host, port, secret, limit or default.body_limit_bytes)


def _execution(table: Table, kind: BackendKind | None, ports: tuple[PortMap, ...]) -> Execution:
    default = Execution()
    if kind is BackendKind.EXTERNAL:
        return default
    command = table.texts("command", allowed='a list: the program and its arguments, such as ["{files}/game"]')
    environment = table.pairs("environment")
    stop_signal = table.text("stop_signal", default.stop_signal)
    if stop_signal not in SIGNALS:
        table.mistake("stop_signal", shown_as(stop_signal), 'the name of a signal, such as "SIGTERM"')
    stop_grace_s = table.seconds("stop_grace", default.stop_grace_s)
    keep_old = table.flag("keep_old", default=default.keep_old)
    user = table.text("user")
    volumes: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    capabilities: tuple[str, ...] = ()
    network, memory_bytes, cpus = default.network, None, None
    if kind is BackendKind.DOCKER:
        volumes = table.texts("volumes", allowed='a list such as ["/srv/game:/data:ro"]')
        labels = table.pairs("labels")
        capabilities = table.texts("capabilities", allowed='a list such as ["SYS_NICE"], capabilities(7)')
        network = table.text("network", default.network, rule=NETWORK, allowed='"host", or the name of a network')
        memory_bytes = table.size_bytes("memory")
        cpus = table.positive("cpus", "a number of processors, above 0")
    elif kind is BackendKind.PROCESS and not command and "command" not in table.values:
        table.mistake("command", "nothing", 'a list: the program and its arguments, such as ["{files}/game"]')
    _check_templates(table, {"command": command, "volumes": volumes, "environment": [v for _, v in environment]}, ports)
    _check_network(table, kind, network, ports)
    return Execution(
        command=command,
        environment=environment,
        volumes=volumes,
        labels=labels,
        capabilities=capabilities,
        network=network,
        memory_bytes=memory_bytes,
        cpus=cpus,
        user=user,
        stop_signal=stop_signal,
        stop_grace_s=stop_grace_s,
        keep_old=keep_old,
    )


def _check_network(table: Table, kind: BackendKind | None, network: str, ports: tuple[PortMap, ...]) -> None:
    bridged = any(not target.on_host for port in ports for target in (port.blue, port.green))
    on_host = any(target.on_host for port in ports for target in (port.blue, port.green))
    if kind is BackendKind.PROCESS and bridged:
        table.mistake("kind", '"process"', '"docker" or "external" for a service with addresses behind a bridge')
    if kind is BackendKind.DOCKER and network == "host" and bridged:
        table.mistake("network", '"host"', "the network that the service's addresses belong to")
    if kind is BackendKind.DOCKER and network != "host" and on_host:
        table.mistake("network", shown_as(network), '"host", or an address in that network for every port')


def _check_templates(table: Table, texts: dict[str, object], ports: tuple[PortMap, ...]) -> None:
    known = ["service", "set", "tag", "files", "address", *(f"{port.protocol}_{port.public}" for port in ports)]
    for name, values in texts.items():
        for value in values if isinstance(values, tuple | list) else ():
            for used in TEMPLATE.findall(value):
                if used not in known:
                    allowed = ", ".join(f"{{{one}}}" for one in known)
                    table.mistake(name, f"the template {{{used}}}", allowed)


def _source(table: Table | None, kind: BackendKind | None) -> Source:
    default = Source()
    if table is None:
        return default
    kinds = [SourceKind.LOCAL, SourceKind.GITHUB, *([SourceKind.REGISTRY] if kind is BackendKind.DOCKER else [])]
    chosen = table.choice("source", kinds, required=True)
    keep = table.integer("keep", default.keep, least=2, most=1000)
    path = image = username = repository = asset = ""
    api, password, token = default.api, None, None
    if chosen is SourceKind.LOCAL:
        path = _required(table, "path", ABSOLUTE, 'an absolute path, such as "/srv/builds/{tag}.tar.gz"')
    elif chosen is SourceKind.REGISTRY:
        image = _required(table, "image", IMAGE, "a repository without a tag")
        username = table.text("username")
        password = _secret(table, "password")
    elif chosen is SourceKind.GITHUB:
        repository = _required(table, "repository", REPOSITORY, '"owner/name"')
        asset = _required(table, "asset", None, 'the name of an asset, such as "game-{tag}.tar.gz"')
        api = table.text("api", default.api, rule=URL, allowed="a URL").rstrip("/")
        token = _secret(table, "token")
    if chosen:
        table.close()
    return Source(chosen or default.kind, path, image, username, password, repository, asset, api, token, keep)


def _required(table: Table, name: str, rule: re.Pattern[str] | None, allowed: str) -> str:
    if name not in table.values:
        table.value(name)
        table.mistake(name, "nothing", allowed)
        return ""
    return table.text(name, rule=rule, allowed=allowed) if rule else table.text(name, allowed=allowed)


def _secret(table: Table, name: str) -> Secret | None:
    """`NAME_file` or `NAME_env`: the configuration holds the place, never the secret."""
    file = table.text(f"{name}_file", rule=ABSOLUTE, allowed="an absolute path")
    variable = table.text(f"{name}_env", rule=VARIABLE, allowed="the name of a variable")
    if file and variable:
        table.mistake(f"{name}_env", shown_as(variable), f"this, or {name}_file, not both")
    return Secret(Path(file) if file else None, variable) if file or variable else None


def _health(table: Table | None, kind: BackendKind | None, ports: tuple[PortMap, ...]) -> Health:
    default = Health()
    if table is None:
        return default
    kinds = [one for one in ProbeKind if one is not ProbeKind.DOCKER or kind is BackendKind.DOCKER]
    probe = table.choice("kind", kinds, default.kind)
    start_period_s = table.seconds("start_period", default.start_period_s, zero=True)
    interval_s = table.seconds("interval", default.interval_s)
    timeout_s = table.seconds("timeout", default.timeout_s)
    successes = table.integer("successes", default.successes, least=1, most=1000)
    deadline_s = table.seconds("deadline", default.deadline_s)
    public, send, expect, pattern = 0, b"", None, ""
    path, status, command = default.path, default.status, default.command
    if probe in (ProbeKind.UDP, ProbeKind.TCP, ProbeKind.HTTP):
        public = _probed_port(table, Protocol.UDP if probe is ProbeKind.UDP else Protocol.TCP, ports)
        expect, pattern = _bytes(table, "expect"), _pattern(table)
        if expect is not None and pattern:
            table.mistake("pattern", shown_as(pattern), "this, or expect, not both")
    if probe in (ProbeKind.UDP, ProbeKind.TCP):
        send = _bytes(table, "send") or b""
    if probe is ProbeKind.HTTP:
        path = table.text("path", default.path, rule=re.compile(r"/\S*"), allowed='a path, such as "/healthz"')
        status = table.integer("status", default.status, least=100, most=599)
    if probe is ProbeKind.COMMAND:
        command = table.texts("command", allowed="a list: the program and its arguments")
        if not command and "command" not in table.values:
            table.mistake("command", "nothing", "a list: the program and its arguments")
    if probe:
        table.close()
    return Health(
        probe or default.kind,
        public,
        send,
        expect,
        pattern,
        path,
        status,
        command,
        start_period_s,
        interval_s,
        timeout_s,
        successes,
        deadline_s,
    )


def _probed_port(table: Table, protocol: Protocol, ports: tuple[PortMap, ...]) -> int:
    public = [port.public for port in ports if port.protocol is protocol]
    named = table.integer("port", public[0] if public else 0, least=1, most=65535)
    if named not in public:
        found = str(named) if "port" in table.values else f"no {protocol} port in this service"
        allowed = f"a public {protocol} port of this service: {', '.join(map(str, public)) or 'it has none'}"
        table.mistake("port", found, allowed)
    return named


def _bytes(table: Table, name: str) -> bytes | None:
    """`NAME`, a text, or `NAME_hex`."""
    text = table.text(name)
    digits = table.text(f"{name}_hex", rule=HEX, allowed="bytes in hexadecimal, two digits each")
    if text and digits:
        table.mistake(f"{name}_hex", shown_as(digits), f"this, or {name}, not both")
    if digits and HEX.fullmatch(digits):
        return bytes.fromhex(digits)
    return text.encode() if text else None


def _pattern(table: Table) -> str:
    pattern = table.text("pattern")
    try:
        re.compile(pattern.encode())
    except re.error as error:
        table.mistake("pattern", shown_as(pattern), f"a regular expression ({error})")
    return pattern


def _deploy(table: Table | None) -> tuple[float, float]:
    default = Recipe()
    if table is None:
        return default.bake_s, default.settle_s
    bake_s = table.seconds("bake", default.bake_s, zero=True)
    settle_s = table.seconds("settle", default.settle_s)
    table.close()
    return bake_s, settle_s


def _hooks(table: Table | None) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if table is None:
        return ()
    found = []
    for step in Step:
        for when in ("before", "after"):
            command = table.texts(f"{when}_{step}", allowed="a list: the program and its arguments; no shell")
            if command:
                found.append((f"{when}_{step}", command))
    table.close()
    return tuple(found)


def _webhook(table: Table | None) -> Webhook | None:
    if table is None:
        return None
    default = Webhook()
    repositories = table.texts("repositories", allowed='a list such as ["owner/name"]')
    if not repositories and "repositories" not in table.values:
        table.mistake("repositories", "nothing", 'a list such as ["owner/name"]')
    for repository in repositories:
        if not REPOSITORY.fullmatch(repository):
            table.mistake("repositories", shown_as(repository), '"owner/name"')
    tags = table.texts("tags", default.tags, allowed='a list of patterns such as ["v*"]')
    actions = table.texts("actions", default.actions, allowed='a list such as ["published"]')
    table.close()
    return Webhook(repositories, tags, actions)
