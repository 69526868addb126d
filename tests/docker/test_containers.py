"""Deployments of containers on a real Docker Engine, under load: host network and bridge."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.deploy.deployed import Load, faults
from tests.docker.engines import Bridged, Contained, deployed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docker.engines import Engine

pytestmark = pytest.mark.deploys


@pytest.mark.alone
@pytest.mark.parametrize("kind", [Contained, Bridged])
def test_deployments_under_load_lose_nothing_and_leave_one_container(
    engine: Engine, binary: Path, kind: type[Contained]
) -> None:
    slowness = support.slowness()
    beyond_s = []
    with deployed(kind, engine, binary) as town:
        for number in range(4):
            town.build(f"v{number}", service_ms=20, boot_ms=5000 if number else 0)
        town.deploys("v0")
        with Load(town, seconds=27) as load:
            for number in range(1, 4):
                receipt = town.deploys(f"v{number}")
                beyond_s.append(receipt["took_s"] - receipt["steps"]["fetch"] - 5.0 - 0.5)
                assert engine.containers() == {f"swapper-game-{receipt['to']}": f"v{number}"}
            account = load.ledger()
    support.MEASURED.info("%s: %s s beyond download, boot and settling", kind.network, beyond_s)
    # Whatever else this machine does can only add.
    assert min(beyond_s) < 1.5 * max(slowness, support.slowness()), beyond_s
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
        "swapper.targets": "udp 1000=1001",
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
        text[:start] + '[services.game.health]\nkind = "docker"\ninterval = 0.1\ndeadline = 3\n' + text[end:]
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


@pytest.mark.alone
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
    assert min(took_s) <= 0.3 * support.slowness(), took_s
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
    with Load(contained, seconds=6, rate_per_s=1000) as load:
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
