"""The webhook server's application without a socket, with deployments that end when a test says so."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from swapper.config import Config
from swapper.model import Service
from swapper.recipe import Recipe, Secret, Serve, Webhook
from swapper.webhook import application
from tests import github_events as github

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

GAME = Webhook(repositories=("owner/game",), tags=("v*",))
CHAT = Webhook(repositories=("owner/chat", "owner/game"), tags=("v*", "chat-*"))
STEPS = 100  # of the event loop, in which anything that can go on has gone on
BODY_LIMIT = 4096


@dataclass
class Deployments:
    """What `swapper deploy` was asked for; a deployment ends when the test says so."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    running: dict[str, asyncio.Future[int]] = field(default_factory=dict)

    async def __call__(self, service: str, tag: str) -> int:
        assert service not in self.running, "two deployments of one service at once"
        self.asked.append((service, tag))
        self.running[service] = asyncio.get_running_loop().create_future()
        try:
            return await self.running[service]
        finally:
            del self.running[service]


class Server:
    """The application, without a socket; its time stands still between two calls."""

    def __init__(self, config: Config, runner: asyncio.Runner, *, last: dict[str, Any] | None = None) -> None:
        self.now_s = 0.0
        self.last_deployments = last or {}  # by service, as `swapper status` tells them
        self.deployments = Deployments()
        self.status_asked = 0
        self.app = application(config, deploy=self.deployments, status=self._status, clock_s=lambda: self.now_s)
        transport = httpx.ASGITransport(app=self.app, client=("192.0.2.1", 4711))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://swapper")
        self._run = runner.run

    def post(
        self, body: bytes | AsyncIterator[bytes], headers: dict[str, str] | list[tuple[bytes, bytes]]
    ) -> httpx.Response:
        request = httpx.Request("POST", "http://swapper/hook", content=body, headers=headers)
        answer = self._run(self.client.send(request))
        self._run(settle())
        return answer

    def deliver(self, tag: str = "v1", *, delivery: str = "", **changes: object) -> httpx.Response:
        body = github.release(tag, **changes)
        return self.post(body, github.headers(body, delivery=delivery))

    def get(self, path: str) -> httpx.Response:
        return self._run(self.client.get(path))

    def metric(self, line: str) -> float:
        values = [one.split()[-1] for one in self.get("/metrics").text.splitlines() if one.startswith(f"{line} ")]
        return float(values[0]) if values else 0.0

    def end(self, service: str, exit_code: int = 0) -> None:
        self.deployments.running[service].set_result(exit_code)
        self._run(settle())

    async def _status(self) -> dict[str, Any]:
        self.status_asked += 1
        return {"services": [{"name": name, "deployment": last} for name, last in self.last_deployments.items()]}


async def settle() -> None:
    for _ in range(STEPS):
        await asyncio.sleep(0)


def configuration(folder: Path, **webhooks: Webhook) -> Config:
    secret = folder / "secret"
    secret.write_text(github.SECRET + "\n")
    secret.chmod(0o600)
    services = {name: Service(name, (), recipe=Recipe(webhook=webhook)) for name, webhook in webhooks.items()}
    return Config(
        folder / "swapper.toml",
        state_dir=folder / "state",
        services=services,
        serve=Serve(secret=Secret(secret), body_limit_bytes=BODY_LIMIT),
    )


@contextmanager
def running(config: Config, *, last: dict[str, Any] | None = None) -> Iterator[Server]:
    with asyncio.Runner() as runner:
        server = Server(config, runner, last=last)
        lifespan = server.app.router.lifespan_context(server.app)
        runner.run(lifespan.__aenter__())
        runner.run(settle())
        try:
            yield server
        finally:
            runner.run(lifespan.__aexit__(None, None, None))
