"""The whole way: a signed event at a real `swapper serve`, GitHub's asset, a backend that serves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from harness.netns import build
from harness.topology import OUTSIDE_AND_HOST
from tests import github_events
from tests.deploy.deployed import SWAPPER, Deployed, Load, faults, wait_until
from tests.github_api import GitHubApi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.netns import Net

pytestmark = pytest.mark.deploys

TABLES = """
[services.game.webhook]
repositories = ["owner/game"]
[serve]
listen = "127.0.0.1:9000"
secret_file = "FOLDER/secret"
"""


class Published(Deployed):
    """A service of processes whose releases are one program each, published on GitHub."""

    backend = 'command = ["{files}/echo-{tag}", "FOLDER/builds/{tag}", "LOGS"]'

    def __init__(self, net: Net, folder: Path, binary: Path, api: GitHubApi) -> None:
        self.api = api
        self.source = f'source = "github"\nrepository = "owner/game"\nasset = "echo-{{tag}}"\napi = "{api.url}"'
        super().__init__(net, folder, binary)
        (folder / "secret").write_text(github_events.SECRET)
        (folder / "secret").chmod(0o600)

    def configure(self, *, backend: str = "", deploy: str = "", more: str = "", deadline_s: float = 8) -> None:
        """The same, with a webhook."""
        super().configure(backend=backend, deploy=deploy, more=more + TABLES, deadline_s=deadline_s)

    def build(self, tag: str, **behaviour: int) -> str:
        """Publish a release."""
        text = "".join(f"{name} {value}\n" for name, value in behaviour.items())
        (self.folder / "builds" / tag).write_text(text)
        self.api.publish(tag, {f"echo-{tag}": self.binary.read_bytes()})
        return tag

    def done(self) -> list[str]:
        """The release of each deployment that was done, the oldest first."""
        told = self.does("history", "game")["deployments"]
        return [one["release"] for one in reversed(told) if one["result"] == "done"]

    def clean(self) -> None:
        """End the deployments that a server has left running too."""
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.config).encode() in (path / "cmdline").read_bytes().split(b"\0"):
                    os.kill(int(path.name), signal.SIGKILL)
            except OSError:
                continue
        super().clean()


class Server:
    """A `swapper serve` in the host's namespace."""

    def __init__(self, town: Published) -> None:
        self.town = town
        argv = [SWAPPER, "serve", "--config", str(town.config)]
        with (town.folder / "server.log").open("ab") as log:
            began = log.tell()
            self.process = town.host.popen(argv, stdout=subprocess.DEVNULL, stderr=log)
        wait_until("the server", lambda: '"listening"' in (town.folder / "server.log").read_text()[began:])

    def deliver(self, tag: str, *, delivery: str = "", key: str = github_events.SECRET) -> httpx.Response:
        """Send a release event, as GitHub does; the answer."""
        body = github_events.release(tag)
        headers = github_events.headers(body, delivery=delivery, key=key)
        with self.town.host.entered():
            return httpx.post("http://127.0.0.1:9000/hook", content=body, headers=headers, timeout=10, trust_env=False)

    def get(self, path: str) -> httpx.Response:
        """What it tells."""
        with self.town.host.entered():
            return httpx.get(f"http://127.0.0.1:9000{path}", timeout=20, trust_env=False)

    def status(self) -> Any:
        """The document of GET /status."""
        return self.get("/status").json()

    def deployed(self) -> str:
        """The last release, as `swapper status` tells it through the server."""
        deployment = self.status()["status"]["services"][0]["deployment"]
        return deployment["release"] if deployment else ""

    def is_idle(self) -> bool:
        """Whether nothing runs, and nothing waits."""
        metrics = self.metrics()
        return metrics["swapper_deployments_running"] == metrics["swapper_deployments_waiting"] == 0

    def metrics(self) -> dict[str, float]:
        """Each series of GET /metrics with its value."""
        lines = [line for line in self.get("/metrics").text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.wait(timeout=10)


@contextmanager
def published(binary: Path) -> Iterator[Published]:
    with (
        build(OUTSIDE_AND_HOST) as net,
        tempfile.TemporaryDirectory(prefix="swapper-", dir="/dev/shm") as folder,
        ExitStack() as stack,
    ):
        with net["host"].entered():  # the sockets stay there
            api = stack.enter_context(GitHubApi())
        town = Published(net, Path(folder), binary, api)
        stack.callback(town.clean)
        yield town


@pytest.fixture
def town(binary: Path) -> Iterator[Published]:
    with published(binary) as made:
        yield made


@pytest.fixture
def server(town: Published) -> Iterator[Server]:
    with serving(town) as made:
        yield made


@contextmanager
def serving(town: Published) -> Iterator[Server]:
    made = Server(town)
    try:
        yield made
    finally:
        made.kill()


def test_a_signed_release_is_deployed_and_told_of(town: Published, server: Server) -> None:
    town.build("v1")
    answer = server.deliver("v1")
    assert (answer.status_code, answer.json()) == (202, {"queued": ["game"]})
    wait_until("the deployment", server.is_idle)
    assert town.running() == {"blue": "v1"}
    told = server.status()
    assert (told["last"]["game"]["tag"], told["last"]["game"]["result"]) == ("v1", "done")
    wait_until("swapper's own word of it", lambda: server.deployed() == "v1")  # it is asked at most once a second
    metrics = server.metrics()
    assert metrics['swapper_deliveries_total{result="queued"}'] == 1
    assert metrics['swapper_deployments_total{result="done",service="game"}'] == 1
    assert metrics['swapper_deployment_duration_seconds_count{service="game"}'] == 1


def test_a_bad_signature_does_nothing(town: Published, server: Server) -> None:
    town.build("v1")
    assert server.deliver("v1", key="guessed").status_code == 401
    assert server.is_idle()
    assert server.metrics()['swapper_deliveries_total{result="unsigned"}'] == 1
    assert (town.api.requests, town.running(), town.done()) == ([], {}, [])


def test_a_release_that_is_not_healthy_is_told_and_the_old_one_serves(town: Published, server: Server) -> None:
    for tag, behaviour in (("v1", {}), ("v2", {"exit_at_once": 1})):
        town.build(tag, **behaviour)
        server.deliver(tag)
        wait_until("the deployment", server.is_idle)
    assert server.status()["last"]["game"]["result"] == "unhealthy"
    assert server.metrics()['swapper_deployments_total{result="unhealthy",service="game"}'] == 1
    assert town.running() == {"blue": "v1"}


def test_a_newer_release_replaces_the_one_that_waits(town: Published, server: Server) -> None:
    town.build("v1", boot_ms=2000)
    town.build("v2")
    town.build("v3")
    server.deliver("v1")
    wait_until("its start", town.running)
    server.deliver("v2")
    server.deliver("v3")
    told = server.status()
    assert (told["running"]["game"]["tag"], told["waiting"]) == ("v1", {"game": "v3"})
    wait_until("the deployments", server.is_idle)
    assert town.done() == ["v1", "v3"]
    assert not [seen for seen in town.api.requests if "v2" in seen.path]


def test_a_deployment_outlives_a_killed_server_and_the_next_one_remembers(town: Published) -> None:
    town.build("v1", boot_ms=2000)
    town.build("v2")
    with serving(town) as first:
        first.deliver("v1", delivery="one")
        wait_until("its start", town.running)
        first.deliver("v2", delivery="two")
        first.kill()
    assert town.status()["deployment"]["phase"] == "checking"
    with serving(town) as second:
        assert second.deliver("v1", delivery="one").json() == {"result": "replay"}
        assert second.deliver("v2", delivery="two").json() == {"result": "replay"}
        wait_until("the deployments", second.is_idle)
    assert town.done() == ["v1", "v2"]
    assert town.running() == {"green": "v2"}


def test_a_deployment_that_died_with_its_server_is_begun_again(town: Published) -> None:
    town.build("v1", boot_ms=1000)
    with serving(town) as first:
        first.deliver("v1", delivery="one")
        wait_until("its start", town.running)
        first.kill()
        town.clean()  # as a reboot does, with the backend too
    assert town.status()["deployment"]["phase"] == "checking"
    with serving(town) as second:
        wait_until("the deployment", second.is_idle)
        assert second.deliver("v1", delivery="one").json() == {"result": "replay"}
    assert town.done() == ["v1"]
    assert list(town.running().values()) == ["v1"]


def test_a_deployment_that_ended_without_a_server_is_not_repeated_by_the_next_one(town: Published) -> None:
    town.build("v1", boot_ms=500)
    with serving(town) as first:
        first.deliver("v1")
        wait_until("its start", town.running)
        first.kill()
    wait_until("its end", town.done)
    with serving(town) as second:
        wait_until("the server's rest", second.is_idle)
    assert (town.done(), town.running()) == (["v1"], {"blue": "v1"})


def test_a_deployment_by_hand_while_the_webhook_deploys_is_refused(town: Published, server: Server) -> None:
    town.build("v1", boot_ms=1500)
    town.build("v2")
    server.deliver("v1")
    wait_until("its start", town.running)
    done = town.types("deploy", "game", "v2")
    assert (done.returncode, "swapper deploy game v1" in done.stderr) == (5, True)
    assert town.running() == {"blue": "v1"}
    wait_until("the deployment", server.is_idle)
    assert town.running() == {"blue": "v1"}
    town.deploys("v2")
    assert town.running() == {"green": "v2"}


def test_the_webhook_waits_for_a_deployment_by_hand(town: Published, server: Server) -> None:
    town.build("v1", boot_ms=1500)
    town.build("v2")
    argv = [SWAPPER, "deploy", "game", "v1", "--config", str(town.config)]
    with town.host.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as by_hand:
        wait_until("its start", town.running)
        server.deliver("v2")
        wait_until("the refusal", lambda: server.status()["last"])
        told = server.status()
        assert (told["last"]["game"]["result"], told["waiting"]) == ("locked", {"game": "v2"})
        assert town.running() == {"blue": "v1"}
        assert by_hand.wait(timeout=20) == 0
    wait_until("the deployment", server.is_idle)
    assert server.metrics()['swapper_deployments_total{result="done",service="game"}'] == 1
    assert town.running() == {"green": "v2"}


def test_a_deployment_by_webhook_under_load_loses_nothing(town: Published, server: Server) -> None:
    town.build("v1", service_ms=20)
    town.build("v2", service_ms=20, boot_ms=1000)
    server.deliver("v1")
    wait_until("the deployment", server.is_idle)
    with Load(town, seconds=6) as load:
        server.deliver("v2")
        wait_until("the deployment", server.is_idle)
        account = load.ledger()
    assert faults(account) == {}
    assert town.running() == {"green": "v2"}


def test_whatever_is_refused_or_killed_a_secret_is_never_logged(town: Published, server: Server) -> None:
    town.build("v1")
    server.deliver("v1", key="guessed")
    server.deliver("v1")
    wait_until("the deployment", server.is_idle)
    server.kill()
    written = [path for path in town.folder.rglob("*") if path.is_file() and path.name != "secret"]
    assert town.folder / "server.log" in written
    assert not [path for path in written if github_events.SECRET.encode() in path.read_bytes()]
    events = [json.loads(line)["event"] for line in (town.folder / "server.log").read_text().splitlines()[:1]]
    assert events == ["listening"]
