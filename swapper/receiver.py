"""The way in of the webhook server: which deliveries are refused, ignored, or queued."""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import re
from dataclasses import asdict
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from swapper import events, logs, secrets
from swapper.deliveries import Queue, Seen
from swapper.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from swapper.config import Config
    from swapper.metrics import Metrics

__all__ = ["REQUEST_S", "Receiver"]

REQUEST_S = 10.0  # for the body of a request to arrive
LOG_EVERY_S = 1.0  # refusals: a flood must not fill the log
BODIES_AT_ONCE = 100  # each may take as much memory as the limit of a body allows

_CLOSE = {"connection": "close"}  # what the client still sends is not worth reading
_LENGTH = re.compile(r"[0-9]{1,20}")
_DELIVERY = re.compile(r"[A-Za-z0-9-]{1,64}")
_LOG = logging.getLogger(__name__)


class Receiver:
    """POST /hook. Nothing of a delivery is looked into before its signature is found right."""

    def __init__(
        self,
        config: Config,
        queue: Queue,
        metrics: Metrics,
        clock_s: Callable[[], float],
        *,
        request_s: float = REQUEST_S,
    ) -> None:
        """Give the body of a request `request_s` to arrive.

        Raises ConfigError without a secret, StateError for a kept file that cannot be trusted.
        """
        if config.serve.secret is None:
            raise ConfigError(f"{config.path}: serve: found no secret; allowed: secret_file or secret_env")
        self._secret = secrets.read(config.serve.secret).encode()
        self._limit_bytes = config.serve.body_limit_bytes
        self._webhooks = {name: service.recipe.webhook for name, service in config.services.items()}
        self._seen = Seen(config.state_dir / "deliveries.json")
        self._request_s = request_s
        self._bodies = asyncio.Semaphore(BODIES_AT_ONCE)
        self._queue, self._metrics, self._clock_s = queue, metrics, clock_s
        self._refused = 0
        self._logged_s = -math.inf

    async def receive(self, request: Request) -> Response:
        """Answer one delivery. Raises HTTPException for one that is refused."""
        try:
            body = await self._body(request)
            self._check_signature(body, request.headers.get("x-hub-signature-256", ""))
            result, answer = self._act(request, body)
        except HTTPException as refusal:
            self._note(request, refusal)
            raise
        self._metrics.deliveries.labels(result).inc()
        return answer

    def forget(self, tag: str) -> None:
        """Take the deliveries of `tag` again: nobody else tries a deployment again that did not end for good."""
        self._seen.forget(tag)

    async def _body(self, request: Request) -> bytes:
        declared = request.headers.get("content-length", "0")
        if not _LENGTH.fullmatch(declared):
            raise HTTPException(400, headers=_CLOSE)
        if int(declared) > self._limit_bytes:
            raise HTTPException(413, headers=_CLOSE)
        body = bytearray()
        try:
            async with asyncio.timeout(self._request_s), self._bodies:
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._limit_bytes:
                        raise HTTPException(413, headers=_CLOSE)
        except TimeoutError as error:
            raise HTTPException(408, headers=_CLOSE) from error
        except ClientDisconnect as error:
            raise HTTPException(400) from error
        return bytes(body)

    def _check_signature(self, body: bytes, claimed: str) -> None:
        signature = "sha256=" + hmac.digest(self._secret, body, "sha256").hex()
        if not hmac.compare_digest(signature.encode(), claimed.encode("latin-1")):
            raise HTTPException(401)

    def _act(self, request: Request, body: bytes) -> tuple[str, Response]:
        """What to do about a delivery that GitHub has signed: the result for the metrics, and the answer."""
        kind = request.headers.get("x-github-event", "")
        if kind == "ping":
            return "pong", JSONResponse({"result": "pong"})
        if kind != "release":
            return "ignored", JSONResponse({"result": "ignored"}, 202)
        delivery = request.headers.get("x-github-delivery", "")
        if not _DELIVERY.fullmatch(delivery):
            raise HTTPException(400, "X-GitHub-Delivery is missing or malformed")
        if delivery in self._seen:
            return "replay", JSONResponse({"result": "replay"})
        try:
            release = events.parse(body)
        except events.MalformedError as error:
            raise HTTPException(400, "the body is not a release event in application/json") from error
        services = [name for name, webhook in self._webhooks.items() if webhook and events.wants(webhook, release)]
        logs.event(_LOG, "delivery", delivery=delivery, **asdict(release), services=services)
        if services:
            self._queue.put(services, release.tag)
            # After it: killed between the two, a replay deploys again, which harms nobody.
            self._seen.add(delivery, release.tag)
        return "queued" if services else "ignored", JSONResponse({"queued": services}, 202)

    def _note(self, request: Request, refusal: HTTPException) -> None:
        result = {401: "unsigned", 408: "slow", 413: "large"}.get(refusal.status_code, "malformed")
        self._metrics.deliveries.labels(result).inc()
        self._refused += 1
        if self._clock_s() - self._logged_s >= LOG_EVERY_S:
            client = request.client.host if request.client else None
            logs.event(_LOG, "refused", level=logging.WARNING, why=result, client=client, since_last=self._refused)
            self._refused, self._logged_s = 0, self._clock_s()
