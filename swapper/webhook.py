"""The webhook server: a signed `release` event of GitHub in, a deployment in the queue out."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from swapper import logs
from swapper.deliveries import Queue
from swapper.errors import ConfigError
from swapper.metrics import Metrics
from swapper.receiver import REQUEST_S, Receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from swapper.config import Config
    from swapper.deliveries import Outcome

__all__ = ["application", "serve"]

STATUS_AGE_S = 1.0
STATUS_TIMEOUT_S = 10.0
SETTLED = ("done", "finished", "returned")  # the results of deployments that nobody has to try again
SIGNALLED = 128  # and the number of the signal that ended it: the exit code of a command that noticed
CONNECTIONS = 400  # and as many that wait to be accepted: both fit into the 1,024 descriptors of a process

_LOG = logging.getLogger(__name__)


def application(
    config: Config,
    *,
    deploy: Callable[[str, str], Awaitable[int]],
    status: Callable[[], Awaitable[dict[str, Any]]],
    clock_s: Callable[[], float],
    request_s: float = REQUEST_S,
) -> Starlette:
    """The server's application: POST /hook, GET /healthz, /status and /metrics.

    `deploy` is given service and tag and answers the exit code of `swapper deploy`; `status` answers what
    `swapper status --json` prints. A body has `request_s` to arrive. Raises ConfigError without a
    secret, StateError for a kept file that cannot be trusted.
    """
    metrics = Metrics()

    def finished(outcome: Outcome) -> None:
        metrics.finished(outcome)
        if not outcome.is_final and outcome.result != "locked":  # the queue itself tries again after a lock
            receiver.forget(outcome.tag)

    queue = Queue(
        config.state_dir / "queue.json",
        deploy=deploy,
        finished=finished,
        clock_s=clock_s,
        is_settled=partial(_is_settled, status),
    )
    metrics.observe(queue)
    receiver = Receiver(config, queue, metrics, clock_s, request_s=request_s)
    fresh_status = _Cached(status, STATUS_AGE_S, clock_s)

    async def hook(request: Request) -> Response:
        return await receiver.receive(request)

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def show_status(_: Request) -> Response:
        return JSONResponse(queue.report() | {"status": await fresh_status()})

    async def show_metrics(_: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        queue.start(config.services)
        yield
        await queue.stop()

    routes = [
        Route("/hook", hook, methods=["POST"]),
        Route("/healthz", healthz),
        Route("/status", show_status),
        Route("/metrics", show_metrics),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def serve(config: Config, *, command: Sequence[str] = (), request_s: int = int(REQUEST_S)) -> None:
    """Receive deliveries until SIGTERM, SIGINT or SIGHUP; a deployment under way then ends by itself.

    `command` runs Swapper's own commands; by default it is that of this installation. A client has `request_s` for
    each request. Raises ConfigError without a secret or where it cannot listen, StateError for a kept file that
    cannot be trusted.
    """
    logs.start()
    command = command or _own_command()
    app = application(
        config,
        deploy=partial(_deploy, command, config.path),
        status=partial(_status, command, config.path),
        clock_s=time.monotonic,
        request_s=request_s,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=_ImpatientProtocol,
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            log_level=logging.ERROR,  # what clients do wrong is counted, not logged line by line
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=CONNECTIONS,
            timeout_keep_alive=request_s,
            timeout_graceful_shutdown=int(REQUEST_S),
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, server.handle_exit)  # uvicorn gives a signal on when it has stopped: that is no error
    with _listen(config) as listener:
        host, port = listener.getsockname()[:2]
        logs.event(_LOG, "listening", host=host, port=port)
        server.run(sockets=[listener])


class _Cached:
    """An answer that is asked for again when it is older than `age_s`, by one caller at a time."""

    def __init__(
        self, ask: Callable[[], Awaitable[dict[str, Any]]], age_s: float, clock_s: Callable[[], float]
    ) -> None:
        self._ask, self._age_s, self._clock_s = ask, age_s, clock_s
        self._lock = asyncio.Lock()
        self._answer: dict[str, Any] = {}
        self._asked_s = -math.inf

    async def __call__(self) -> dict[str, Any]:
        async with self._lock:
            if self._clock_s() - self._asked_s >= self._age_s:
                self._answer = await self._ask()
                self._asked_s = self._clock_s()
            return self._answer


class _ImpatientProtocol(H11Protocol):
    """HTTP/1.1 that closes connections which bring no request within `timeout_keep_alive`, or are too many."""

    _deadline: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self.timeout_keep_alive, self._close_without_request)
        if len(self.connections) > CONNECTIONS:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._deadline.cancel()
        self._deadline = self.loop.call_later(self.timeout_keep_alive, self._close_without_request)
        super().on_response_complete()

    def _close_without_request(self) -> None:
        if self.conn.our_state is not h11.SEND_RESPONSE:
            self.transport.close()


async def _is_settled(status: Callable[[], Awaitable[dict[str, Any]]], service: str, began_at: float) -> bool:
    """Whether a deployment that was begun at that Unix time, or one after it, has come to an end."""
    services = (await status()).get("services", [])
    last = next((one.get("deployment") for one in services if one["name"] == service), None)
    return last is not None and last["started_at"] >= began_at and last["result"] in SETTLED


def _own_command() -> list[str]:
    beside = Path(sys.executable).with_name("swapper")
    return [str(beside) if beside.exists() else "swapper"]


async def _deploy(command: Sequence[str], config: Path, service: str, tag: str) -> int:
    """Run `swapper deploy`, and after one that was killed `swapper apply`, which settles what it left."""
    exit_code = await _run([*command, "deploy", "--config", str(config), "--json", "--", service, tag])
    if exit_code < 0 or exit_code > SIGNALLED:
        await _run([*command, "apply", "--config", str(config), "--json", "--", service])
    return exit_code


async def _run(argv: Sequence[str]) -> int:
    """Run a command so that it outlives this server: signals to the server's group do not reach it."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "SWAPPER_LOG": "json"},
        start_new_session=True,
    )
    await _end_of(process.pid)
    return process.wait()


async def _end_of(pid: int) -> None:
    """Wait for a child. asyncio's own subprocesses are no way to: it kills them when it stops."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    fd = os.pidfd_open(pid)
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


async def _status(command: Sequence[str], config: Path) -> dict[str, Any]:
    """What `swapper status --json` prints, which is an error document where it fails."""
    argv = [*command, "status", "--config", str(config), "--json"]
    run = partial(subprocess.run, argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=STATUS_TIMEOUT_S)
    try:
        document: dict[str, Any] = json.loads((await asyncio.to_thread(run, check=False)).stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return {"error": f"swapper status: {error}"}
    return document


def _listen(config: Config) -> socket.socket:
    host, port = config.serve.host, config.serve.port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=CONNECTIONS)
    except OSError as error:
        raise ConfigError(f"{config.path}: serve.listen: cannot listen on {host}, port {port}: {error}") from error
    # Connections inherit it. asyncio sets it only where it made the socket, and an answer then takes 40 ms more.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
