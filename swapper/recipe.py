"""How a backend comes to be and goes: where its release is from, how it runs, is probed and is retired.

Values only, as the configuration says them. Durations are seconds, sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

__all__ = ["Execution", "Health", "ProbeKind", "Recipe", "Secret", "Serve", "Source", "SourceKind", "Step", "Webhook"]


class SourceKind(StrEnum):
    """Where a release is fetched from."""

    LOCAL = "local"
    REGISTRY = "registry"
    GITHUB = "github"


class ProbeKind(StrEnum):
    """How a backend is asked whether it is ready."""

    LISTEN = "listen"
    UDP = "udp"
    TCP = "tcp"
    HTTP = "http"
    DOCKER = "docker"
    COMMAND = "command"


class Step(StrEnum):
    """What a deployment does, in order; a hook may stand before and after each."""

    FETCH = "fetch"
    LAUNCH = "launch"
    HEALTH = "health"
    SWAP = "swap"
    VERIFY = "verify"
    RETIRE = "retire"


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret is kept: a file, or a variable of the environment; never the configuration."""

    file: Path | None = None
    env: str = ""

    def __str__(self) -> str:
        """The place, for messages; never the secret."""
        return str(self.file) if self.file else f"${self.env}"


@dataclass(frozen=True, slots=True)
class Source:
    """Where releases come from; `{tag}` in `path` and `asset` stands for the release's tag."""

    kind: SourceKind = SourceKind.LOCAL
    path: str = ""  # local: a file, a folder, or an image archive
    image: str = ""  # registry: the repository, without a tag
    username: str = ""
    password: Secret | None = None
    repository: str = ""  # github: owner/name
    asset: str = ""
    api: str = "https://api.github.com"
    token: Secret | None = None
    keep: int = 5  # releases


@dataclass(frozen=True, slots=True)
class Execution:
    """How a backend runs; texts may hold the templates that `swapper.provision` fills in."""

    command: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    volumes: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    capabilities: tuple[str, ...] = ()
    network: str = "host"
    memory_bytes: int | None = None
    cpus: float | None = None
    user: str = ""
    stop_signal: str = "SIGTERM"
    stop_grace_s: float = 10.0
    keep_old: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """When a backend counts as ready: `successes` probes in a row, before `start_period_s` + `deadline_s` are over."""

    kind: ProbeKind = ProbeKind.LISTEN
    public: int = 0  # the public port whose internal one is probed
    send: bytes = b""
    expect: bytes | None = None  # the whole answer; None and no pattern: any answer
    pattern: str = ""  # a regular expression, found anywhere in the answer
    path: str = "/"
    status: int = 200
    command: tuple[str, ...] = ()
    start_period_s: float = 0.0
    interval_s: float = 0.5
    timeout_s: float = 1.0
    successes: int = 1
    deadline_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Webhook:
    """Which GitHub events deploy a service; `tags` are shell patterns."""

    repositories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ("*",)
    actions: tuple[str, ...] = ("published",)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that a deployment of one service needs to know."""

    execution: Execution = field(default_factory=Execution)
    source: Source = field(default_factory=Source)
    health: Health = field(default_factory=Health)
    webhook: Webhook | None = None
    bake_s: float = 0.0  # how long the new backend is watched after the swap
    settle_s: float = 1.0  # how long nothing may come or wait before the old one is stopped
    hooks: tuple[tuple[str, tuple[str, ...]], ...] = ()  # "before_launch": the command

    def hook(self, when: str, step: Step) -> tuple[str, ...]:
        """The command that runs `before` or `after` a step; empty if there is none."""
        return dict(self.hooks).get(f"{when}_{step}", ())


@dataclass(frozen=True, slots=True)
class Serve:
    """The webhook server."""

    host: str = "127.0.0.1"
    port: int = 9000
    secret: Secret | None = None
    body_limit_bytes: int = 1 << 20
