"""A server that plays GitHub's API for releases, and misbehaves as it is told; real HTTP on 127.0.0.1.

Assets are served from a second port, as GitHub serves them from a second host.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

__all__ = ["GitHubApi", "Seen"]

REPOSITORY = "owner/game"
PIECE_BYTES = 4096
RANGE = re.compile(r"bytes=(\d+)-")


@dataclass(frozen=True, slots=True)
class Seen:
    """One request: which of the two servers got it, for what, and with which headers."""

    server: str  # "api" or "storage"
    path: str
    headers: Message


@dataclass(slots=True)
class GitHubApi:
    """The releases of `repository`; its fields may be changed while it runs. Use as a context manager."""

    repository: str = REPOSITORY
    tells_digests: bool = True
    resumes: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes after which each of the next downloads is cut off
    failures: list[int] = field(default_factory=list)  # status of the next answers of the API
    pause_s: float = 0.0  # before every piece of 4 KiB
    limited_until: int | None = None  # Unix time: the rate limit is used up
    lies: dict[str, dict[str, Any]] = field(default_factory=dict)  # asset: what the API says of it instead
    requests: list[Seen] = field(default_factory=list)
    _releases: dict[str, dict[str, bytes]] = field(default_factory=dict)
    _servers: dict[str, _Server] = field(default_factory=dict)
    _closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        """Start both servers, on ports of their own."""
        for name in ("api", "storage"):
            server = _Server(self, name)
            self._servers[name] = server
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop them, in the middle of an answer too."""
        self._closing.set()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    @property
    def url(self) -> str:
        """What `api` in the configuration has to be."""
        return self._url("api")

    def publish(self, tag: str, assets: Mapping[str, bytes]) -> None:
        """Make a release, which is then the latest."""
        self._releases[tag] = dict(assets)

    def downloads(self) -> list[Seen]:
        """The requests for bytes of an asset, without those that were answered by a redirect."""
        return [seen for seen in self.requests if seen.server == "storage"]

    def _url(self, server: str) -> str:
        return f"http://127.0.0.1:{self._servers[server].server_port}"

    def _described(self, tag: str) -> dict[str, Any]:
        """A release as GET /repos/{owner}/{repo}/releases/tags/{tag} describes it."""
        described = []
        for number, (name, content) in enumerate(self._releases[tag].items()):
            asset: dict[str, Any] = {"name": name, "size": len(content), "state": "uploaded"}
            asset["id"] = 1000 * (1 + list(self._releases).index(tag)) + number
            asset["url"] = f"{self.url}/repos/{self.repository}/releases/assets/{asset['id']}"
            asset["digest"] = f"sha256:{hashlib.sha256(content).hexdigest()}" if self.tells_digests else None
            described.append(asset | self.lies.get(name, {}))
        return {"tag_name": tag, "draft": False, "prerelease": False, "assets": described}

    def _content(self, number: int) -> bytes:
        return list(list(self._releases.values())[number // 1000 - 1].values())[number % 1000]


class _Server(ThreadingHTTPServer):
    def __init__(self, api: GitHubApi, name: str) -> None:
        self.api = api
        self.name = name
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a client may go when it has seen enough
            super().handle()

    def do_GET(self) -> None:
        api = self.server.api
        api.requests.append(Seen(self.server.name, self.path, self.headers))
        if self.server.name == "storage":
            self.serve_asset(api._content(int(self.path.removeprefix("/"))))
        else:
            self.serve_api(self.path.removeprefix(f"/repos/{api.repository}/releases"))

    def serve_api(self, path: str) -> None:
        api = self.server.api
        if api.limited_until is not None:
            self.answer(403, {}, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(api.limited_until)})
        elif api.failures:
            self.answer(api.failures.pop(0), {})
        elif path.startswith("/assets/") and self.headers["Accept"] == "application/octet-stream":
            self.answer(302, {}, {"Location": f"{api._url('storage')}/{path.removeprefix('/assets/')}"})
        elif path == "/latest" and api._releases:
            self.answer(200, api._described(list(api._releases)[-1]))
        elif (tag := path.removeprefix("/tags/")) in api._releases:
            self.answer(200, api._described(tag))
        else:
            self.answer(404, {"message": "Not Found"})

    def answer(self, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def serve_asset(self, content: bytes) -> None:
        api = self.server.api
        asked = RANGE.fullmatch(self.headers.get("Range", "")) if api.resumes else None
        start = int(asked[1]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = min(len(content), start + api.cuts.pop(0)) if api.cuts else len(content)
        for at in range(start, end, PIECE_BYTES):
            if api._closing.wait(api.pause_s):
                break
            self.wfile.write(content[at : min(end, at + PIECE_BYTES)])
        self.close_connection = end < len(content)

    def log_message(self, *_: object) -> None:
        """Say nothing: the tests look at `requests`."""
