"""Deployments of containers on a real Docker Engine, under load: host network and bridge."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.netns import build
from harness.topology import OUTSIDE_AND_HOST
from tests import support
from tests.deploy.deployed import Deployed, Load, archive, faults, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.netns import Net

pytestmark = pytest.mark.netns

SUBNET = "172.30.0.0/24"


class Engine:
    """A private Docker Engine in the network namespace of a host; nothing of it outlives its block.

    As in a real installation containerd is a service of its own, so containers run on when dockerd is killed.
    """

    def __init__(self, net: Net, folder: Path) -> None:
        self.net, self.folder = net, folder
        self.socket = folder / "docker.sock"
        self.env = {"DOCKER_HOST": f"unix://{self.socket}"}
        self._containerd = self._start(
            *("containerd", "--config", "/dev/null", "--address", f"{folder}/containerd.sock"),
            *("--root", f"{folder}/images", "--state", f"{folder}/run"),
        )
        wait_until("containerd", (folder / "containerd.sock").exists)
        self.start()

    def start(self) -> None:
        """Start dockerd, until it answers."""
        self._dockerd = self._start(
            *("dockerd", "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"),
            *("--containerd", f"{self.folder}/containerd.sock", "-H", f"unix://{self.socket}"),
            *("-p", f"{self.folder}/pid", "--live-restore"),
        )
        wait_until("the engine", lambda: self.docker("info", check=False).returncode == 0)

    def kill(self) -> None:
        """`kill -9` of dockerd; its containers run on."""
        self._dockerd.kill()
        self._dockerd.wait(timeout=10)

    def _start(self, *argv: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{argv[0]}.log").open("ab") as log:
            return self.net["host"].popen(argv, stdout=log, stderr=log)

    def stop(self) -> None:
        """In good order, with every container gone."""
        running = self.docker("ps", "-aq", check=False).stdout.split()
        if running:
            self.docker("rm", "-f", *running, check=False)
        for process in (self._dockerd, self._containerd):
            process.terminate()
            process.wait(timeout=30)

    def docker(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the `docker` command against it."""
        return subprocess.run(
            ["docker", "-H", f"unix://{self.socket}", *words], check=check, capture_output=True, text=True, timeout=60
        )

    def containers(self) -> dict[str, str]:
        """The image tag that each container, running or not, was made from."""
        lines = self.docker("ps", "-a", "--format", '{{.Names}} {{.Label "swapper.release"}}').stdout.splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def inspect(self, name: str) -> Any:
        """All that the engine knows of a container."""
        return json.loads(self.docker("inspect", name).stdout)[0]


class Contained(Deployed):
    """A service of containers on the host's network."""

    kind = "docker"
    network = "host"
    backend = 'command = ["/echo", "/behaviour", "/logs"]\nvolumes = ["LOGS:/logs"]\ncapabilities = ["NET_ADMIN"]'
    source = 'source = "local"\npath = "FOLDER/builds/{tag}.tar.gz"'
    healthcheck: dict[str, Any] | None = None

    def configure(self, *, backend: str = "", deploy: str = "", more: str = "", deadline_s: float = 8) -> None:
        """The same, in a network."""
        network = f'network = "{self.network}"\n{backend}'
        super().configure(backend=network, deploy=deploy, more=more, deadline_s=deadline_s)

    def build(self, tag: str, **behaviour: Any) -> str:
        """An image archive, from scratch."""
        config = behaviour.pop("config", {})
        text = "".join(f"{name} {value}\n" for name, value in behaviour.items())
        archive(self.binary, text, tag, self.folder / "builds" / f"{tag}.tar.gz", **config)
        return tag


class Bridged(Contained):
    """A service of containers behind a bridge, each at the fixed address of its set."""

    network = "game"
    public_ports = '[{ protocol = "udp", public = 1000, blue = "172.30.0.2:1001", green = "172.30.0.3:1001" }]'


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One engine for the tests of this module."""
    with build(OUTSIDE_AND_HOST) as net, short_folder() as folder:
        made = Engine(net, folder)
        try:
            made.docker("network", "create", "--subnet", SUBNET, "game")
            yield made
        finally:
            made.stop()


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose mounts are undone: the path of a socket must be short, and a killed engine leaves mounts."""
    folder = Path(tempfile.mkdtemp(prefix="swapper-"))
    try:
        yield folder
    finally:
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if line.split()[1].startswith(f"{folder}/"):
                subprocess.run(["umount", "-l", line.split()[1]], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", str(folder)], check=True)


@contextmanager
def deployed(kind: type[Contained], engine: Engine, binary: Path) -> Iterator[Contained]:
    """A service on the engine; its rules and containers are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="swapper-", dir="/dev/shm") as folder:
        town = kind(engine.net, Path(folder), binary, env=engine.env)
        try:
            yield town
        finally:
            for name in engine.containers():
                engine.docker("rm", "-f", name)
            town.types("remove", "game")


@pytest.fixture
def contained(engine: Engine, binary: Path) -> Iterator[Contained]:
    with deployed(Contained, engine, binary) as town:
        yield town


@pytest.fixture
def bridged(engine: Engine, binary: Path) -> Iterator[Contained]:
    with deployed(Bridged, engine, binary) as town:
        yield town


@pytest.mark.parametrize("kind", [Contained, Bridged])
def test_deployments_under_load_lose_nothing_and_leave_one_container(
    engine: Engine, binary: Path, kind: type[Contained]
) -> None:
    with deployed(kind, engine, binary) as town:
        for number in range(4):
            town.build(f"v{number}", service_ms=20, boot_ms=5000 if number else 0)
        town.deploys("v0")
        with Load(town, seconds=27) as load:
            for number in range(1, 4):
                receipt = town.deploys(f"v{number}")
                beyond_s = receipt["took_s"] - receipt["steps"]["fetch"] - 5.0 - 0.5
                support.MEASURED.info("%s: %.2f s beyond download, boot and settling", kind.network, beyond_s)
                assert beyond_s < 1.5
                assert engine.containers() == {f"swapper-game-{receipt['to']}": f"v{number}"}
            account = load.ledger()
    assert faults(account) == {}
    assert account.to_json()["duplicate"] == 0


def test_traffic_goes_straight_to_a_container_behind_a_bridge(engine: Engine, bridged: Contained) -> None:
    """No packet passes docker-proxy: the backend sees the client's own address."""
    bridged.build("v1")
    bridged.deploys("v1")
    rules = engine.net["host"].run(["nft", "list", "ruleset"]).stdout
    assert "172.30.0.2" in rules
    with Load(bridged, seconds=2) as load:
        account = load.ledger()
    assert faults(account) == {}
    published = engine.inspect("swapper-game-blue")["NetworkSettings"]["Ports"]["1001/udp"]
    assert [one["HostIp"] for one in published] == ["127.0.0.1"]


def test_limits_labels_and_environment_reach_the_container(engine: Engine, contained: Contained) -> None:
    contained.configure(
        backend='memory = "64m"\ncpus = 0.5\nlabels = { team = "blue" }\nstop_signal = "SIGINT"\n'
        'environment = { WHERE = "{set} {udp_1000} {tag}" }'
    )
    contained.build("v1")
    contained.deploys("v1")
    found = engine.inspect("swapper-game-blue")
    assert (found["HostConfig"]["Memory"], found["HostConfig"]["NanoCpus"]) == (64 << 20, 500_000_000)
    assert found["Config"]["Labels"] == {
        "team": "blue",
        "swapper.service": "game",
        "swapper.set": "blue",
        "swapper.release": "v1",
    }
    assert {"WHERE=blue 1001 v1", "SWAPPER_SET=blue", "SWAPPER_UDP_1000=1001", "TAG=v1"} <= set(found["Config"]["Env"])
    assert (found["Config"]["StopSignal"], found["HostConfig"]["RestartPolicy"]["Name"]) == ("SIGINT", "unless-stopped")


def test_a_container_that_ends_at_once_is_told_with_its_last_lines(engine: Engine, contained: Contained) -> None:
    contained.build("good")
    contained.build("bad", exit_at_once=1)
    contained.deploys("good")
    done = contained.types("deploy", "game", "bad")
    assert done.returncode == 3
    assert "exited with code 7" in done.stderr
    assert "no configuration, giving up" in done.stderr
    assert engine.containers() == {"swapper-game-blue": "good"}


def test_a_missing_network_is_named_with_the_command_that_makes_it(engine: Engine, bridged: Contained) -> None:
    bridged.config.write_text(bridged.config.read_text().replace('network = "game"', 'network = "nowhere"'))
    bridged.build("v1")
    done = bridged.types("deploy", "game", "v1")
    assert done.returncode == 1
    assert "docker network create --subnet 172.30.0.0/24 nowhere" in done.stderr
    assert engine.containers() == {}


def test_an_engine_that_is_not_there_is_named(contained: Contained) -> None:
    contained.build("v1")
    contained.env["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
    done = contained.types("deploy", "game", "v1")
    assert (done.returncode, "no Docker Engine answers" in done.stderr) == (6, True)


def test_the_image_s_own_healthcheck_decides(engine: Engine, contained: Contained) -> None:
    text = contained.config.read_text()
    start = text.index("[services.game.health]")
    end = text.index("[services.game.deploy]")
    contained.config.write_text(
        text[:start] + '[services.game.health]\nkind = "docker"\ninterval = 0.1\ndeadline = 6\n' + text[end:]
    )
    second = 1_000_000_000
    # The check runs the same binary: `/echo` with one argument too few ends with 2, with both it would serve.
    good = {"Healthcheck": {"Test": ["CMD", "/echo", "/behaviour", "/logs"], "Interval": second, "Timeout": second}}
    contained.build("none")
    assert "has no HEALTHCHECK" in contained.types("deploy", "game", "none").stderr
    contained.build("sick", config={"Healthcheck": {**good["Healthcheck"], "Test": ["CMD", "/echo"], "Retries": 1}})
    done = contained.types("deploy", "game", "sick")
    assert (done.returncode, "HEALTHCHECK says" in done.stderr) == (3, True)
    assert engine.containers() == {}


def test_rollback_to_a_kept_container_is_at_once(engine: Engine, contained: Contained) -> None:
    contained.configure(backend="keep_old = true")
    for tag in ("v1", "v2"):
        contained.build(tag, service_ms=20)
        contained.deploys(tag)
    assert engine.containers() == {"swapper-game-blue": "v1", "swapper-game-green": "v2"}
    took_s = []
    with Load(contained, seconds=6) as load:
        for _ in range(3):
            began_s = time.monotonic()
            contained.does("rollback", "game")
            took_s.append(time.monotonic() - began_s)
        account = load.ledger()
    assert faults(account) == {}
    support.MEASURED.info("rollback to a kept container took %.0f ms, the whole command", min(took_s) * 1000)
    assert min(took_s) <= 0.3, took_s
    assert contained.status()["kernel"]["active"] == "blue"


def test_the_engine_killed_and_started_again_loses_nothing(engine: Engine, bridged: Contained) -> None:
    """Docker puts its rules in again above others'; traffic goes on, and the next deployment works."""
    for tag in ("v1", "v2"):
        bridged.build(tag, service_ms=20)
    bridged.deploys("v1")
    with Load(bridged, seconds=12) as load:
        engine.kill()
        assert bridged.types("deploy", "game", "v2").returncode == 6
        engine.start()
        assert bridged.status()["in_sync"]
        assert bridged.does("apply")["services"][0]["changed"] is False
        bridged.deploys("v2")
        account = load.ledger()
    assert faults(account) == {}
    assert engine.containers() == {"swapper-game-green": "v2"}


@pytest.mark.parametrize("hook", ["before_launch", "before_health", "before_swap", "before_verify", "before_retire"])
def test_the_engine_killed_in_the_middle_of_a_deployment(engine: Engine, contained: Contained, hook: str) -> None:
    """The command fails or is done; with the engine back, `apply` settles it: one container, no journal."""
    script = contained.folder / "kill-engine"
    script.write_text(f"#!/bin/sh\nkill -9 $(cat {engine.folder}/pid)\n")
    script.chmod(0o755)
    contained.configure(more=f'[services.game.hooks]\n{hook} = ["{script}"]')
    for tag in ("v1", "v2"):
        contained.build(tag, service_ms=20)
    contained.config.write_text(
        contained.config.read_text().replace(hook, "after_fetch").replace("kill-engine", "true")
    )
    (contained.folder / "true").symlink_to("/bin/true")
    contained.deploys("v1")
    contained.configure(more=f'[services.game.hooks]\n{hook} = ["{script}"]')
    with Load(contained, seconds=7, rate_per_s=1000) as load:
        done = contained.types("deploy", "game", "v2")
        assert "Traceback" not in done.stderr
        engine.kill()
        engine.start()
        contained.configure()
        settled = contained.types("apply")
        assert settled.returncode == 0, settled.stderr
        active = contained.status()["kernel"]["active"]
        assert list(engine.containers()) == [f"swapper-game-{active}"], done.stderr
        assert not (contained.state / "services/game/journal.json").exists()
        account = load.ledger()
    assert faults(account) == {}
