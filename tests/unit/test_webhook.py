"""A delivery is refused, ignored or deployed; only what GitHub has signed is looked into."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapper import events, logs
from swapper.config import Config
from swapper.errors import ConfigError
from swapper.recipe import Webhook
from tests import github_events as github
from tests.in_process import BODY_LIMIT, CHAT, GAME, Server, configuration, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def test_a_signed_release_is_deployed_to_every_service_that_wants_it(server: Server) -> None:
    answer = server.deliver("v1")
    assert (answer.status_code, answer.json()) == (202, {"queued": ["game", "chat"]})
    assert server.deployments.asked == [("game", "v1"), ("chat", "v1")]


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "sha256=",
        "sha256=" + "0" * 64,
        "sha1=" + "0" * 40,
        github.headers(github.release(), key="another")["X-Hub-Signature-256"],
        github.headers(github.release("v2"))["X-Hub-Signature-256"],
        github.headers(github.release())["X-Hub-Signature-256"].upper(),
        github.headers(github.release())["X-Hub-Signature-256"] + " ",
        github.headers(github.release())["X-Hub-Signature-256"] + "0",
    ],
)
def test_a_wrong_signature_is_refused_without_a_word_of_why(server: Server, signature: str) -> None:
    body = github.release()
    answer = server.post(body, github.headers(body) | {"X-Hub-Signature-256": signature})
    assert (answer.status_code, answer.text) == (401, "Unauthorized")
    assert server.deployments.asked == []
    assert server.metric('swapper_deliveries_total{result="unsigned"}') == 1


def test_what_is_not_signed_is_not_looked_into(server: Server) -> None:
    for event in ("ping", "release", "push"):
        assert server.post(b"{", github.headers(b"", event=event)).status_code == 401


def test_other_events_are_answered_and_do_nothing(server: Server) -> None:
    body = github.release()
    pong = server.post(body, github.headers(body, event="ping"))
    other = server.post(body, github.headers(body, event="push"))
    assert (pong.status_code, pong.json()) == (200, {"result": "pong"})
    assert (other.status_code, other.json()) == (202, {"result": "ignored"})
    assert server.deployments.asked == []


def test_a_replay_is_answered_and_does_nothing_also_after_a_restart(config: Config) -> None:
    body = github.release()
    headers = github.headers(body, delivery="one")
    with running(config) as server:
        assert server.post(body, headers).status_code == 202
        replay = server.post(body, headers)
        assert (replay.status_code, replay.json()) == (200, {"result": "replay"})
        assert server.deployments.asked == [("game", "v1"), ("chat", "v1")]
        for service in ("game", "chat"):
            server.end(service)
    with running(config) as server:
        assert server.post(body, headers).json() == {"result": "replay"}
        assert server.deployments.asked == []


def test_a_delivery_that_was_ignored_can_be_sent_again_once_the_configuration_wants_it(tmp_path: Path) -> None:
    body = github.release("w1")
    headers = github.headers(body, delivery="one")
    with running(configuration(tmp_path, game=GAME)) as server:
        assert server.post(body, headers).json() == {"queued": []}
    with running(configuration(tmp_path, game=Webhook(("owner/game",)))) as server:
        assert server.post(body, headers).json() == {"queued": ["game"]}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, True),
        ({"repository": "Owner/Game"}, True),
        ({"repository": "owner/another"}, False),
        ({"repository": "evil/owner/game"}, False),
        ({"action": "created"}, False),
        ({"action": "prereleased"}, False),
        ({"prerelease": True}, False),
        ({"draft": True}, False),
        ({"tag": "w1"}, False),
        ({"tag": "v1/../../etc"}, False),
        ({"tag": "v1\n"}, False),
        ({"tag": "v\ud800"}, False),
        ({"tag": "v" + "1" * 128}, False),
    ],
)
def test_only_allowed_actions_repositories_and_tags_are_wanted(changes: dict[str, Any], wanted: bool) -> None:
    assert events.wants(GAME, events.parse(github.release(**changes))) is wanted


def test_a_prerelease_is_wanted_where_it_is_asked_for_and_a_draft_nowhere() -> None:
    webhook = Webhook(("owner/game",), actions=("published", "prereleased"))
    assert events.wants(webhook, events.parse(github.release(action="prereleased", prerelease=True)))
    assert not events.wants(webhook, events.parse(github.release(action="prereleased", prerelease=True, draft=True)))


def test_a_tag_is_never_taken_for_an_option() -> None:
    assert not events.wants(Webhook(("owner/game",)), events.parse(github.release("--config")))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b"[" * 2000,
        b"9" * 4096,
        b"payload=%7B%7D",
        github.release(action=7),
        github.release(repository=None),
        github.release(draft="no"),
        json.dumps({"action": "published", "release": [], "repository": {}}).encode(),
    ],
)
def test_a_signed_body_that_is_no_release_is_malformed(server: Server, body: bytes) -> None:
    assert server.post(body, github.headers(body)).status_code == 400
    assert server.metric('swapper_deliveries_total{result="malformed"}') == 1


@pytest.mark.parametrize("delivery", [" ", "../../x", "x" * 65])
def test_a_delivery_needs_a_plain_id(server: Server, delivery: str) -> None:
    body = github.release()
    assert server.post(body, github.headers(body, delivery=delivery)).status_code == 400
    assert server.deployments.asked == []


def test_a_body_that_declares_too_much_is_refused_before_a_byte_is_read(server: Server) -> None:
    async def body() -> AsyncIterator[bytes]:
        read.append(b"a chunk")
        yield read[-1]

    read: list[bytes] = []
    answer = server.post(body(), {"Content-Length": str(BODY_LIMIT + 1)})
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert server.post(body(), {"Content-Length": "many"}).status_code == 400
    assert read == []


def test_a_body_that_grows_too_long_is_refused_when_it_does(server: Server) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100 * BODY_LIMIT:
            sent += 1024
            yield bytes(1024)

    answer = server.post(endless(), {"Transfer-Encoding": "chunked"})
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert sent == BODY_LIMIT + 1024


def test_a_body_of_just_the_limit_is_read(server: Server) -> None:
    body = github.release().ljust(BODY_LIMIT)
    assert server.post(body, github.headers(body)).status_code == 202


def test_without_a_secret_there_is_no_server(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"serve: found no secret; allowed: secret_file or secret_env"):
        Server(Config(tmp_path / "swapper.toml"), asyncio.Runner())


def test_logs_are_json_lines_that_tell_the_story_without_the_secret(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "swapper"), running(config) as server:
        server.deliver("v1")
        server.deliver("v2")
        server.end("game", 3)
        for _ in range(10):
            server.post(b"x", {"X-Hub-Signature-256": github.SECRET})
        server.now_s += 1
        server.post(b"x", {})
    text = [logs.JsonLines().format(record) for record in caplog.records if record.name.startswith("swapper")]
    lines = [json.loads(line) for line in text]
    assert [line["event"] for line in lines if line.get("service", "game") == "game"] == [
        "delivery",
        "queued",
        "deployment started",
        "delivery",
        "queued",
        "deployment ended",
        "deployment started",
        "refused",
        "refused",
        "stopped",
    ]
    assert [line["since_last"] for line in lines if line["event"] == "refused"] == [1, 10]
    assert github.SECRET not in "".join(text)


HEADERS = st.from_regex(rb"[a-z-]{1,12}", fullmatch=True) | st.sampled_from(
    [b"x-hub-signature-256", b"x-github-event", b"x-github-delivery", b"content-length", b"transfer-encoding", b"host"]
)
VALUES = st.binary(max_size=80) | st.sampled_from([b"release", b"ping", b"sha256=", b"-1", b"9" * 30, b"chunked"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def test_no_unsigned_bytes_or_headers_fail_or_deploy(server: Server) -> None:
    @given(body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()), data=st.data())
    def check(body: bytes, data: st.DataObject) -> None:
        headers = data.draw(st.lists(st.tuples(HEADERS, VALUES), max_size=6))
        assert server.post(body, headers).status_code in {400, 401, 413}
        assert server.deployments.asked == []

    check()


def test_no_signed_json_fails_or_deploys_what_is_not_wanted(server: Server) -> None:
    fields = st.fixed_dictionaries(
        {},
        optional={
            "action": JSON | st.just("published"),
            "repository": JSON | st.fixed_dictionaries({"full_name": JSON | st.just("owner/game")}),
            "release": JSON
            | st.fixed_dictionaries(
                {
                    "tag_name": JSON | st.text(max_size=5).map("v{}".format),
                    "draft": JSON | st.booleans(),
                    "prerelease": JSON | st.booleans(),
                }
            ),
        },
    )

    @given(JSON | fields)
    def check(value: object) -> None:
        body = json.dumps(value).encode()
        asked = len(server.deployments.asked)
        answer = server.post(body, github.headers(body))
        assert answer.status_code in {202, 400, 413}
        for service, tag in server.deployments.asked[asked:]:
            assert events.wants({"game": GAME, "chat": CHAT}[service], events.parse(body))
            assert tag.isascii()
        for service in list(server.deployments.running):
            server.end(service)

    check()
