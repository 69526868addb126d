"""The asset of a GitHub release: found over the REST API, resumed when cut, and checked. It knows no folders."""

from __future__ import annotations

import io
import re
import time
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar

import httpx

from swapper import secrets
from swapper.artifact import digest
from swapper.errors import FetchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from swapper.recipe import Source

__all__ = ["Asset", "GitHub"]

T = TypeVar("T")

_WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # between the tries
_SHA256 = re.compile(r"\b[0-9a-fA-F]{64}\b")
_HINTS = {
    401: "is the token right?",
    403: "may the token read this repository?",
    404: "there is no such release, or it needs another token",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of a release; `digest` is empty where nobody says what its SHA-256 is."""

    tag: str
    name: str
    number: int  # the asset's id
    size_bytes: int
    digest: str = ""


class _TransientError(Exception):
    """The server could not answer now."""


class GitHub:
    """The releases of one repository. `say` hears of progress and of tries that failed."""

    def __init__(
        self,
        source: Source,
        *,
        say: Callable[[str], None],
        idle_timeout_s: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Read the token; nothing is asked yet. Raises ConfigError if it is missing."""
        self._source = source
        self._say = say
        self._sleep = sleep
        token = {"Authorization": f"Bearer {secrets.read(source.token)}"} if source.token else {}
        self._client = httpx.Client(
            base_url=f"{source.api}/repos/{source.repository}/releases",
            headers=httpx.Headers({"X-GitHub-Api-Version": "2022-11-28", **token}, encoding="utf-8"),
            follow_redirects=True,  # httpx takes the token off when one leads to another host
            timeout=idle_timeout_s,
        )

    def __enter__(self) -> Self:
        """Keep connections until the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        self._client.close()

    def find(self, tag: str | None) -> Asset:
        """The asset that the configuration names, of the release `tag`, or of the latest one.

        Raises FetchError if there is none, or the API does not answer.
        """
        what = f"{self._source.repository} {tag or 'latest'}"
        release = self._persist(what, lambda: self._ask(what, "/latest" if tag is None else f"/tags/{tag}"))
        try:
            tag = str(release["tag_name"])
            assets = [_asset(tag, described) for described in release["assets"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FetchError(f"{what}: this is not how GitHub's API answers: {error}") from error
        by_name = {asset.name: asset for asset in assets}
        name = self._source.asset.replace("{tag}", tag)
        if name not in by_name:
            raise FetchError(f"{what}: no asset is called {name}; there are: {', '.join(by_name) or 'none'}")
        asset, beside = by_name[name], by_name.get(f"{name}.sha256")
        return asset if asset.digest else self._with_digest(asset, beside)

    def download(self, asset: Asset, path: Path) -> None:
        """Write `asset` to `path`; a connection that is cut, or idle for too long, is resumed.

        Raises FetchError if it does not come whole and as promised, OSError for a full disk.
        """
        with path.open("wb") as file:
            self._transfer(asset, file)
        if asset.digest and (found := digest(path)) != asset.digest:
            raise FetchError(f"{asset.name}: the release says {asset.digest}, what came has {found}")

    def _ask(self, what: str, path: str) -> dict[str, Any]:
        response = self._client.get(path, headers={"Accept": "application/vnd.github+json"})
        _check(response, what)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise FetchError(f"{what}: this is not how GitHub's API answers: no JSON object")
        return answer

    def _with_digest(self, asset: Asset, beside: Asset | None) -> Asset:
        if beside is None:
            self._say(f"{asset.name}: the release says no SHA-256 of it; only its size is checked")
            return asset
        text = io.BytesIO()
        self._transfer(beside, text)
        found = _SHA256.search(text.getvalue().decode(errors="replace"))
        if not found:
            raise FetchError(f"{beside.name}: no SHA-256 in it")
        return replace(asset, digest=f"sha256:{found[0].lower()}")

    def _transfer(self, asset: Asset, file: BinaryIO) -> None:
        self._persist(asset.name, lambda: self._resume(asset, file))
        if file.tell() != asset.size_bytes:
            raise FetchError(f"{asset.name}: the release says {asset.size_bytes} bytes, {file.tell()} came")

    def _resume(self, asset: Asset, file: BinaryIO) -> None:
        """Fetch what `file` still lacks of the asset, or all of it where the server cannot resume."""
        if (have := file.tell()) == asset.size_bytes:
            return
        headers = {"Accept": "application/octet-stream", "Accept-Encoding": "identity", "Range": f"bytes={have}-"}
        # By number, not by the `url` in the answer: the token goes only where the configuration says.
        with self._client.stream("GET", f"/assets/{asset.number}", headers=headers) as response:
            _check(response, asset.name)
            if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                file.seek(0)
                file.truncate()
            told_s = time.monotonic()
            for piece in response.iter_raw():
                file.write(piece)
                if file.tell() > asset.size_bytes:
                    raise FetchError(f"{asset.name}: the release says {asset.size_bytes} bytes, more came")
                if time.monotonic() - told_s >= 1:
                    told_s = time.monotonic()
                    self._say(f"{asset.name}: {file.tell() / 1e6:.1f} of {asset.size_bytes / 1e6:.1f} MB")

    def _persist(self, what: str, attempt: Callable[[], T]) -> T:
        """Try again, a bounded number of times and ever later, while the way to the server is at fault."""
        failures = 0
        while True:
            try:
                return attempt()
            except (httpx.RequestError, _TransientError) as error:
                reason = str(error) or type(error).__name__
                if failures == len(_WAITS_S):
                    raise FetchError(f"{what}: {reason}; given up after {failures + 1} tries") from error
            self._say(f"{what}: {reason}; trying again in {_WAITS_S[failures]} s")
            self._sleep(_WAITS_S[failures])
            failures += 1


def _asset(tag: str, described: dict[str, Any]) -> Asset:
    number, size_bytes = int(described["id"]), int(described["size"])
    return Asset(tag, str(described["name"]), number, size_bytes, str(described.get("digest") or ""))


def _check(response: httpx.Response, what: str) -> None:
    """Raise _TransientError or FetchError unless the server answered what was asked for."""
    status, headers = response.status_code, response.headers
    if response.is_success:
        return
    if status in {403, 429} and headers.get("X-RateLimit-Remaining") == "0":
        until = _local_time(headers.get("X-RateLimit-Reset", ""))
        raise FetchError(f"{what}: GitHub's rate limit is used up until {until}; a token raises it (token_file)")
    if status == 429 or status >= 500:
        raise _TransientError(f"{response.url.host} answered {status}")
    hint = f"; {_HINTS[status]}" if status in _HINTS else ""
    raise FetchError(f"{what}: {response.url.host} answered {status} {response.reason_phrase}{hint}")


def _local_time(unix_s: str) -> str:
    if not re.fullmatch(r"[0-9]{1,11}", unix_s):
        return "a time that it does not say"
    return datetime.fromtimestamp(int(unix_s)).astimezone().isoformat(timespec="seconds")
