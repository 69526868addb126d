"""At most one deployment of a service runs and at most one release waits; a restart forgets neither that nor ids."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from swapper.deliveries import REMEMBERED, Outcome, Queue, Seen
from swapper.errors import StateError
from tests.in_process import GAME, Server, configuration, running, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from swapper.config import Config


def test_the_last_10000_deliveries_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "deliveries.json"
    path.write_text(json.dumps({"version": 1, "kept": {str(number): "v1" for number in range(REMEMBERED)}}))
    Seen(path).add("the next", "v2")
    seen = Seen(path)
    assert [one in seen for one in ("0", "1", str(REMEMBERED - 1), "the next")] == [False, True, True, True]


def test_a_newer_release_replaces_a_waiting_one_and_never_the_running_one(server: Server) -> None:
    for tag in ("v1", "v2", "v3"):
        server.deliver(tag)
    assert server.get("/status").json()["waiting"] == {"game": "v3", "chat": "v3"}
    assert server.deployments.asked == [("game", "v1"), ("chat", "v1")]
    server.end("game")
    assert server.deployments.asked[2:] == [("game", "v3")]
    server.end("game")
    assert server.deployments.asked[3:] == []


def test_services_do_not_wait_for_each_other(server: Server) -> None:
    server.deliver("v1")
    server.deliver("chat-1", repository="owner/chat")
    server.end("chat")
    assert server.deployments.asked == [("game", "v1"), ("chat", "v1"), ("chat", "chat-1")]


def test_what_waits_is_taken_up_after_a_restart(config: Config) -> None:
    with running(config) as server:
        server.deliver("v1")
        server.deliver("v2")
    with running(config) as server:
        assert server.deployments.asked == [("game", "v2"), ("chat", "v2")]
        server.end("game")
        server.end("chat", 3)
    with running(config) as server:
        assert server.deployments.asked == []


def test_what_was_begun_is_begun_again_after_a_restart_however_often(config: Config) -> None:
    with running(config) as server:
        server.deliver("v1")
    for _ in range(3):
        with running(config) as server:
            assert server.deployments.asked == [("game", "v1"), ("chat", "v1")]


@pytest.mark.parametrize(
    ("result", "age_s", "again"),
    [
        *((result, -1.0, False) for result in ("done", "finished", "returned")),
        *((result, -1.0, True) for result in ("failed", "interrupted", "undone", "unfinished", "under way")),
        ("done", 60.0, True),
    ],
)
def test_what_has_come_to_its_end_since_is_not_begun_again(
    config: Config, result: str, age_s: float, again: bool
) -> None:
    with running(config) as server:
        server.deliver("chat-1", repository="owner/chat")
    with running(config, last={"chat": {"result": result, "started_at": time.time() - age_s}}) as server:
        assert server.deployments.asked == ([("chat", "chat-1")] if again else [])
    with running(config) as server:
        assert server.deployments.asked == ([("chat", "chat-1")] if again else [])


def test_a_newer_release_is_deployed_whatever_became_of_the_one_before_the_restart(config: Config) -> None:
    with running(config) as server:
        server.deliver("chat-1", repository="owner/chat")
        server.deliver("chat-2", repository="owner/chat")
    with running(config, last={"chat": {"result": "done", "started_at": time.time() + 1}}) as server:
        assert server.deployments.asked == [("chat", "chat-2")]


def test_what_waits_for_a_service_that_is_no_more_is_dropped(tmp_path: Path, config: Config) -> None:
    with running(config) as server:
        server.deliver("v1")
        server.deliver("v2")
    with running(configuration(tmp_path, game=GAME)) as server:
        assert server.deployments.asked == [("game", "v2")]
        assert server.get("/status").json()["waiting"] == {}
        server.end("game")
    with running(config) as server:
        assert server.deployments.asked == []


def queue_of(
    folder: Path,
    deploy: Callable[[str, str], Awaitable[int]],
    *,
    finished: Callable[[Outcome], None] = lambda _: None,
    settled: Callable[[], bool] = lambda: False,
) -> Queue:
    async def is_settled(_: str, __: float) -> bool:
        return settled()

    return Queue(
        folder / "queue.json",
        deploy=deploy,
        finished=finished,
        clock_s=lambda: 0.0,
        is_settled=is_settled,
        retry_s=0.0,
    )


def test_a_deployment_that_met_a_lock_is_tried_again_unless_a_newer_release_came(tmp_path: Path) -> None:
    asked: list[str] = []
    results: list[str] = []

    async def deploy(_: str, tag: str) -> int:
        asked.append(tag)
        if len(asked) == 2:
            queue.put(["game"], "v2")
        return 5 if len(asked) < 3 else 0

    async def both() -> None:
        queue.put(["game"], "v1")
        await settle()

    queue = queue_of(tmp_path, deploy, finished=lambda outcome: results.append(f"{outcome.tag} {outcome.result}"))
    asyncio.run(both())
    assert results == ["v1 locked", "v1 locked", "v2 done"]


def test_what_an_earlier_server_left_running_is_waited_for_and_not_repeated(tmp_path: Path) -> None:
    """It outlives its server and holds the lock; once it has ended well there is nothing left to do."""
    asked: list[str] = []

    async def hangs(_: str, __: str) -> int:
        await asyncio.Event().wait()
        return 0

    async def meets_a_lock(_: str, tag: str) -> int:
        asked.append(tag)
        return 5

    async def life(queue: Queue) -> dict[str, Any]:
        if not queue.waiting:
            queue.put(["game"], "v1")
        queue.start(["game"])
        await settle()
        await queue.stop()
        return queue.report()

    asyncio.run(life(queue_of(tmp_path, hangs)))
    second = asyncio.run(life(queue_of(tmp_path, meets_a_lock, settled=lambda: len(asked) == 3)))
    assert (asked, second["waiting"]) == (["v1"] * 3, {})


def test_whatever_a_deployment_raises_the_next_one_runs(tmp_path: Path) -> None:
    asked: list[str] = []

    async def deploy(_: str, tag: str) -> int:
        asked.append(tag)
        if tag == "v1":
            queue.put(["game"], "v2")
            raise RuntimeError("unforeseen")
        return 0

    async def both() -> dict[str, Any]:
        queue.put(["game"], "v1")
        await settle()
        return queue.report()

    queue = queue_of(tmp_path, deploy)
    report = asyncio.run(both())
    assert (asked, report["running"], report["last"]["game"]["result"]) == (["v1", "v2"], {}, "done")


def test_whoever_fails_to_hear_of_an_end_does_not_keep_the_next_one_waiting(tmp_path: Path) -> None:
    asked: list[str] = []
    ignored: list[object] = []

    async def deploy(_: str, tag: str) -> int:
        asked.append(tag)
        return 0

    def finished(outcome: Outcome) -> None:
        raise ValueError(outcome.tag)

    async def both() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: ignored.append(context["exception"]))
        for tag in ("v1", "v2"):
            queue.put(["game"], tag)
            await settle()

    queue = queue_of(tmp_path, deploy, finished=finished)
    asyncio.run(both())
    assert asked == ["v1", "v2"]


def test_a_report_stays_as_it_was_given(tmp_path: Path) -> None:
    async def deploy(_: str, __: str) -> int:
        await asyncio.Event().wait()
        return 0

    async def both() -> dict[str, Any]:
        queue.put(["game"], "v1")
        await settle()
        report = queue.report()
        queue.put(["game"], "v2")
        await queue.stop()
        return report

    queue = queue_of(tmp_path, deploy)
    assert asyncio.run(both())["waiting"] == {}


@pytest.mark.parametrize(
    ("exit_code", "result"),
    [*((code, "replay") for code in (0, 2, 3)), *((code, "queued") for code in (1, 4, 6, -9, 143))],
)
def test_a_redelivery_deploys_again_what_did_not_come_to_an_end(
    config: Config, server: Server, exit_code: int, result: str
) -> None:
    server.deliver("chat-1", repository="owner/chat", delivery="one")
    assert server.deliver("chat-1", repository="owner/chat", delivery="one").json() == {"result": "replay"}
    server.end("chat", exit_code)
    with running(config) as restarted:
        assert result in restarted.deliver("chat-1", repository="owner/chat", delivery="one").text
    assert result in server.deliver("chat-1", repository="owner/chat", delivery="one").text


def test_a_delivery_whose_deployment_waits_for_a_lock_is_remembered(server: Server) -> None:
    server.deliver("chat-1", repository="owner/chat", delivery="one")
    server.end("chat", 5)
    assert server.deliver("chat-1", repository="owner/chat", delivery="one").json() == {"result": "replay"}


@pytest.mark.parametrize(
    ("exit_code", "result"), [(0, "done"), (1, "failed"), (3, "unhealthy"), (4, "refused"), (-9, "failed")]
)
def test_status_and_metrics_tell_how_a_deployment_ended(server: Server, exit_code: int, result: str) -> None:
    server.deliver("v1")
    server.now_s += 7
    assert server.get("/status").json()["running"]["game"] == {"tag": "v1", "for_s": 7.0}
    assert server.metric("swapper_deployments_running") == 2
    server.end("game", exit_code)
    last = server.get("/status").json()["last"]["game"]
    assert last == {"service": "game", "tag": "v1", "exit_code": exit_code, "duration_s": 7.0, "result": result}
    assert server.metric(f'swapper_deployments_total{{result="{result}",service="game"}}') == 1
    assert server.metric('swapper_deployment_duration_seconds_sum{service="game"}') == 7
    assert server.metric("swapper_deployments_running") == 1


def test_a_deployment_that_cannot_be_started_has_failed(server: Server) -> None:
    server.deliver("v1")
    server.deployments.running["game"].set_exception(OSError("no memory"))
    server.deliver("v2")
    assert server.get("/status").json()["last"]["game"]["result"] == "failed"
    assert server.deployments.asked[2:] == [("game", "v2")]


def test_the_status_of_the_host_is_asked_for_once_a_second(server: Server) -> None:
    assert server.get("/healthz").status_code == 200
    for seconds, asked in ((0.0, 1), (0.9, 1), (0.2, 2)):
        server.now_s += seconds
        assert server.get("/status").json()["status"] == {"services": []}
        assert server.status_asked == asked


def test_a_full_disk_does_not_stop_a_deployment(tmp_path: Path, config: Config) -> None:
    with running(config) as server:
        (tmp_path / "state").write_text("a file where the folder should be")
        assert server.deliver("v1").status_code == 202
        assert server.deployments.asked == [("game", "v1"), ("chat", "v1")]


@pytest.mark.parametrize("name", ["queue.json", "deliveries.json"])
@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        '{"version": 2, "kept": {}}',
        '{"version": 1, "kept": {"x": 7}}',
        '{"version": 1, "kept": {}, "begun": {"x": 7.5}}',
        '{"version": 1, "kept": {"x": "v1"}, "begun": {"x": "today"}}',
        "[" * 9999,
    ],
)
def test_a_kept_file_that_cannot_be_trusted_is_an_error_with_the_way_out(
    config: Config, name: str, content: str
) -> None:
    config.state_dir.mkdir()
    (config.state_dir / name).write_text(content)
    with pytest.raises(StateError, match=rf"mv .*/{name} .*/{name}\.bad"), running(config):
        pass
    assert (config.state_dir / name).read_text() == content
