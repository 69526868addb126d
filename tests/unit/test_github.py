"""An asset comes whole and as promised from a server that cuts, stalls, lies and refuses, or not at all."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from swapper.errors import ConfigError, FetchError
from swapper.github import GitHub
from swapper.recipe import Secret, Source, SourceKind
from tests.github_api import REPOSITORY, GitHubApi

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = os.urandom(50_000)
NAME = "game-v1.bin"
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def api() -> Iterator[GitHubApi]:
    with GitHubApi() as server:
        server.publish("v1", {"notes.txt": b"notes", NAME: CONTENT})
        yield server


class Client:
    """What a test asks of the API, with all that was said and waited for."""

    def __init__(self, api: GitHubApi, folder: Path, *, token: Secret | None = None) -> None:
        self.path = folder / "asset"
        self.said: list[str] = []
        self.waits_s: list[float] = []
        self.source = Source(SourceKind.GITHUB, repository=REPOSITORY, asset="game-{tag}.bin", api=api.url, token=token)

    def fetch(self, tag: str | None = "v1", *, idle_timeout_s: float = 5.0) -> bytes:
        say, sleep = self.said.append, self.waits_s.append
        with GitHub(self.source, say=say, idle_timeout_s=idle_timeout_s, sleep=sleep) as github:
            github.download(github.find(tag), self.path)
        return self.path.read_bytes()


@pytest.fixture
def client(api: GitHubApi, tmp_path: Path) -> Client:
    return Client(api, tmp_path)


def test_the_named_asset_of_a_release_is_fetched_through_its_redirect(client: Client, api: GitHubApi) -> None:
    assert client.fetch() == CONTENT
    assert client.said == []
    assert len(api.downloads()) == 1


def test_without_a_tag_it_is_the_latest_release(client: Client, api: GitHubApi) -> None:
    api.publish("v2", {"game-v2.bin": b"newer"})
    assert client.fetch(None) == b"newer"


def test_the_token_goes_to_the_api_and_nowhere_else(
    api: GitHubApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWAPPER_TEST_TOKEN", "tokén")
    api.lies[NAME] = {"url": f"{api._url('storage')}/1001"}  # which would get it, if the answer said where to ask
    Client(api, tmp_path, token=Secret(env="SWAPPER_TEST_TOKEN")).fetch()
    sent = {seen.server: seen.headers["Authorization"] for seen in api.requests}
    assert sent["api"].encode("latin-1").decode() == "Bearer tokén"
    assert sent["storage"] is None


def test_a_token_that_is_missing_is_told_before_anything_is_asked(api: GitHubApi, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\$SWAPPER_TEST_NONE"):
        Client(api, tmp_path, token=Secret(env="SWAPPER_TEST_NONE")).fetch()
    assert api.requests == []


def test_a_cut_download_is_resumed_where_it_was_cut(client: Client, api: GitHubApi) -> None:
    api.cuts = [20_000, 10_000]
    assert client.fetch() == CONTENT
    assert [seen.headers["Range"] for seen in api.downloads()] == ["bytes=0-", "bytes=20000-", "bytes=30000-"]
    assert client.waits_s == [0.5, 1.0]


def test_a_server_that_cannot_resume_starts_anew(client: Client, api: GitHubApi) -> None:
    api.resumes = False
    api.cuts = [20_000]
    assert client.fetch() == CONTENT


def test_a_download_that_is_cut_for_ever_is_given_up(client: Client, api: GitHubApi) -> None:
    api.cuts = [1000] * 100
    with pytest.raises(FetchError, match="given up after 6 tries"):
        client.fetch()
    assert len(api.downloads()) == 6


def test_a_stalled_download_is_given_up_after_its_idle_timeout(client: Client, api: GitHubApi) -> None:
    api.pause_s = 60
    start_s = time.monotonic()
    with pytest.raises(FetchError, match="timed out; given up after 6 tries"):
        client.fetch(idle_timeout_s=0.1)
    assert time.monotonic() - start_s < 6


def test_a_slow_download_that_moves_is_waited_for_and_told(client: Client, api: GitHubApi) -> None:
    api.pause_s = 0.2
    assert client.fetch(idle_timeout_s=1.0) == CONTENT
    assert client.said
    assert all(line.startswith(f"{NAME}: 0.0 of 0.1 MB") for line in client.said)


def test_an_api_that_is_unwell_is_asked_again(client: Client, api: GitHubApi) -> None:
    api.failures = [502, 503]
    assert client.fetch() == CONTENT
    assert client.said[0] == "owner/game v1: 127.0.0.1 answered 502; trying again in 0.5 s"


def test_an_api_that_nobody_serves_is_given_up(tmp_path: Path) -> None:
    with GitHubApi() as gone:
        client = Client(gone, tmp_path)
    with pytest.raises(FetchError, match="Connection refused; given up after 6 tries"):
        client.fetch()
    assert client.waits_s == [0.5, 1.0, 2.0, 4.0, 8.0]


def test_a_wrong_digest_is_refused(client: Client, api: GitHubApi) -> None:
    api.lies[NAME] = {"digest": f"sha256:{'0' * 64}"}
    with pytest.raises(FetchError, match=f"the release says sha256:0+, what came has {DIGEST}"):
        client.fetch()


@pytest.mark.parametrize(
    ("size", "found"), [(49_999, "the release says 49999 bytes, more came"), (50_001, "50001 bytes, 50000 came")]
)
def test_a_wrong_size_is_refused(client: Client, api: GitHubApi, size: int, found: str) -> None:
    api.tells_digests = False
    api.lies[NAME] = {"size": size}
    with pytest.raises(FetchError, match=found):
        client.fetch()


@pytest.mark.parametrize("text", ["{}", "{}  game-v1.bin\n", "SHA256 (game-v1.bin) = {}\n"])
def test_a_sha256_asset_says_the_digest_where_the_api_does_not(client: Client, api: GitHubApi, text: str) -> None:
    api.tells_digests = False
    right = hashlib.sha256(CONTENT).hexdigest().upper()
    api.publish("v1", {NAME: CONTENT, f"{NAME}.sha256": text.format(right).encode()})
    assert client.fetch() == CONTENT
    api.publish("v1", {NAME: CONTENT, f"{NAME}.sha256": text.format("0" * 64).encode()})
    with pytest.raises(FetchError, match="the release says sha256:000"):
        client.fetch()


def test_a_sha256_asset_without_a_digest_is_refused(client: Client, api: GitHubApi) -> None:
    api.tells_digests = False
    api.publish("v1", {NAME: CONTENT, f"{NAME}.sha256": b"to be done"})
    with pytest.raises(FetchError, match=f"{NAME}.sha256: no SHA-256 in it"):
        client.fetch()


def test_without_any_digest_it_is_said_that_only_the_size_is_checked(client: Client, api: GitHubApi) -> None:
    api.tells_digests = False
    assert client.fetch() == CONTENT
    assert client.said == [f"{NAME}: the release says no SHA-256 of it; only its size is checked"]


def test_a_used_up_rate_limit_is_told_with_the_time_of_its_reset(client: Client, api: GitHubApi) -> None:
    api.limited_until = 2_000_000_000
    with pytest.raises(FetchError, match=r"rate limit is used up until 2033-05-1\dT.*; a token raises it"):
        client.fetch()
    assert len(api.requests) == 1


def test_a_release_that_is_not_there_is_named_with_its_repository(client: Client) -> None:
    with pytest.raises(FetchError, match=r"owner/game v9: 127\.0\.0\.1 answered 404 Not Found; there is no such"):
        client.fetch("v9")


def test_an_asset_that_is_not_there_is_named_with_those_that_are(client: Client, api: GitHubApi) -> None:
    api.publish("v2", {"other": b"", "another": b""})
    with pytest.raises(FetchError, match=r"no asset is called game-v2.bin; there are: other, another"):
        client.fetch("v2")


def test_an_answer_that_is_not_of_the_api_is_refused(client: Client, api: GitHubApi) -> None:
    api.lies[NAME] = {"size": "big"}
    with pytest.raises(FetchError, match="not how GitHub's API answers"):
        client.fetch()
