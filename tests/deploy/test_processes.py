"""Deployments of processes under load: what serves, what is lost, what is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from harness import records
from tests import support
from tests.deploy.deployed import SWAPPER, Deployed, Load, faults, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.deploys

SETTLE_S = 0.5


def overhead_s(receipt: Any, boot_s: float) -> float:
    """What a deployment took beyond download, boot and the time that the old one is given."""
    return float(receipt["took_s"] - receipt["steps"]["fetch"] - boot_s - SETTLE_S)


@pytest.mark.alone
def test_deployments_under_load_lose_nothing_and_leave_one_backend(town: Deployed) -> None:
    slowness = support.slowness()
    beyond_s = []
    for number in range(4):
        town.build(f"v{number}", service_ms=20, boot_ms=1000 if number else 0)
    town.deploys("v0")
    with Load(town, seconds=11) as load:
        for number in range(1, 4):
            receipt = town.deploys(f"v{number}")
            beyond_s.append(overhead_s(receipt, 1.0))
            assert (receipt["result"], receipt["release"], receipt["previous"]) == (
                "done",
                f"v{number}",
                f"v{number - 1}",
            )
            assert town.running() == {receipt["to"]: f"v{number}"}
        account = load.ledger()
    support.MEASURED.info("deployments took %s s beyond boot and settling", beyond_s)
    # Whatever else this machine does can only add.
    assert min(beyond_s) < 1.5 * max(slowness, support.slowness()), beyond_s
    assert faults(account) == {}
    assert account.to_json()["duplicate"] == 0
    assert (town.state / "services/game/current").readlink().name == "v3"
    assert town.status()["deployment"]["release"] == "v3"
    assert [one["release"] for one in town.does("history", "game")["deployments"]] == ["v3", "v2", "v1", "v0"]


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({"never_ready": 1}, "nothing listens on 127.0.0.1:1002"),
        ({"exit_at_once": 1}, "ended with exit code 7"),
        ({"mute_after_ms": 0}, "no answer from 127.0.0.1:1002"),
    ],
    ids=["never ready", "ends at once", "answers nothing"],
)
def test_a_release_that_is_not_healthy_never_serves(town: Deployed, behaviour: dict[str, int], said: str) -> None:
    town.configure(deadline_s=1.5)
    town.build("good", service_ms=20)
    town.build("bad", **behaviour)
    town.deploys("good")
    with Load(town, seconds=5) as load:
        done = town.types("deploy", "game", "bad")
        account = load.ledger()
    assert done.returncode == 3
    assert said in done.stderr
    assert "its last lines:\nbooting bad on green" in done.stderr
    assert faults(account) == {}
    assert town.running() == {"blue": "good"}
    assert town.status()["kernel"]["active"] == "blue"
    assert (town.state / "services/game/current").readlink().name == "good"
    assert town.does("history")["deployments"][0]["result"] == "failed"


def lost_between(load: Load) -> tuple[float, int]:
    """For how long, in seconds, datagrams were lost, and how many; all of them in one stretch."""
    account = load.ledger()
    lost = sorted(due for stream in account.streams for due in stream.due_ns[~stream.answered])
    assert lost
    assert account.lost == len(lost)
    return (lost[-1] - lost[0]) / 1e9, len(lost)


@pytest.mark.alone
def test_a_release_that_dies_under_traffic_gives_way_to_the_old_one(town: Deployed) -> None:
    town.configure(deploy="bake = 4")
    town.build("good", service_ms=20)
    town.build("bad", service_ms=20, crash_after_ms=1500)
    town.deploys("good")
    with Load(town, seconds=8, rate_per_s=1000) as load:
        done = town.types("deploy", "game", "bad")
        assert done.returncode == 3, done.stderr
        assert "blue serves again" in done.stderr
        assert "segmentation fault, or so" in done.stderr
        assert town.running() == {"blue": "good"}
        stretch_s, number = lost_between(load)
    # What it held (20 ms of service), then what came until its death was seen and traffic had moved back.
    support.MEASURED.info("a backend that died under traffic: %d lost, in %.3f s", number, stretch_s)
    assert stretch_s < 0.5
    assert town.does("history")["deployments"][0]["result"] == "returned"


@pytest.mark.alone
def test_a_release_that_falls_silent_under_traffic_gives_way_to_the_old_one(town: Deployed) -> None:
    town.configure(deploy="bake = 6")
    town.build("good")
    town.build("bad", mute_after_ms=1500)
    town.deploys("good")
    with Load(town, seconds=8, rate_per_s=500) as load:
        assert town.types("deploy", "game", "bad").returncode == 3
        stretch_s, _ = lost_between(load)
    assert stretch_s < 2.5  # three probes of 0.3 s in a row, then back
    assert town.running() == {"blue": "good"}


def first_seen_after(town: Deployed, port_set: str, after_ns: int) -> int:
    """When the backend of a set saw its first datagram of a stream after a moment."""
    times = []
    for path in town.logs.glob(f"{port_set}-*.log"):
        seen = records.read_seen(path)
        times += [int(at) for at in seen["recv_ns"][(seen["flags"] == 0) & (seen["recv_ns"] > after_ns)][:1]]
    return min(times)


@pytest.mark.alone
def test_rollback_to_a_backend_that_was_kept_is_at_once(town: Deployed) -> None:
    town.configure(backend="keep_old = true")
    for tag in ("v1", "v2"):
        town.build(tag, service_ms=20, boot_ms=500)
        town.deploys(tag)
    assert town.running() == {"blue": "v1", "green": "v2"}
    moved_ms = []
    with Load(town, seconds=10, rate_per_s=1000) as load:
        for back_to in ("blue", "green", "blue"):
            began_ns = time.time_ns()
            receipt = town.does("rollback", "game")
            assert (receipt["kind"], receipt["to"]) == ("rollback", back_to)
            moved_ms.append((first_seen_after(town, back_to, began_ns) - began_ns) / 1e6)
        account = load.ledger()
    assert faults(account) == {}
    support.MEASURED.info("rollback to a kept backend moved traffic %.0f ms after the command began", min(moved_ms))
    # Whatever else this machine does can only add.
    assert min(moved_ms) <= 300 * support.slowness(), moved_ms
    assert town.running() == {"blue": "v1", "green": "v2"}
    assert (town.state / "services/game/current").readlink().name == "v1"


def test_rollback_without_a_kept_backend_deploys_the_release_before(town: Deployed) -> None:
    for tag in ("v1", "v2", "v3"):
        town.build(tag)
        town.deploys(tag)
    town.types("deploy", "game", "no-such-release")
    receipt = town.does("rollback", "game")
    assert (receipt["release"], receipt["previous"], receipt["result"]) == ("v2", "v3", "done")
    assert town.running() == {receipt["to"]: "v2"}


def test_there_is_nothing_to_roll_back_to_at_first(town: Deployed) -> None:
    assert "deploy a release" in town.types("rollback", "game").stderr
    town.build("v1")
    town.deploys("v1")
    done = town.types("rollback", "game")
    assert (done.returncode, "no release before v1" in done.stderr) == (1, True)


def test_a_stranger_on_the_idle_ports_is_named_before_anything_starts(town: Deployed) -> None:
    town.build("v1")
    town.build("v2")
    town.deploys("v1")
    with town.host.entered():
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with stranger:
        stranger.bind(("127.0.0.1", 1002))
        done = town.types("deploy", "game", "v2")
        assert done.returncode == 1
        assert f"port 1002/udp of the green set is taken by process {os.getpid()}" in done.stderr
    assert town.running() == {"blue": "v1"}
    town.deploys("v2")


def test_a_program_that_cannot_be_started_is_named(town: Deployed) -> None:
    town.build("v1")
    (town.folder / "builds/v1/echo").chmod(0o644)
    (town.folder / "builds/v1/echo").write_bytes(b"not a program")
    done = town.types("deploy", "game", "v1")
    assert (done.returncode, "cannot be started" in done.stderr) == (1, True)
    assert not (town.state / "services/game/journal.json").exists()
    assert not (town.state / "services/game/backends/blue.json").exists()


def test_hooks_stand_before_and_after_each_step_and_are_told_what_happens(town: Deployed) -> None:
    steps = ("fetch", "launch", "health", "swap", "verify", "retire")
    script = town.folder / "hook"
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$SWAPPER_HOOK $SWAPPER_SERVICE $SWAPPER_RELEASE $SWAPPER_FROM $SWAPPER_TO" >> {town.folder}/told\n'
        f'[ ! -e {town.folder}/refuse-$SWAPPER_HOOK ] || {{ echo "not today"; exit 9; }}\n'
    )
    script.chmod(0o755)
    hooks = "\n".join(f'{when}_{step} = ["{script}"]' for step in steps for when in ("before", "after"))
    town.configure(more=f"[services.game.hooks]\n{hooks}")
    for tag in ("v1", "v2", "v3"):
        town.build(tag)
    town.deploys("v1")
    (town.folder / "told").unlink()
    town.deploys("v2")
    told = [line.split() for line in (town.folder / "told").read_text().splitlines()]
    assert [line[0] for line in told] == [f"{when}_{step}" for step in steps for when in ("before", "after")]
    assert told[-1][1:] == ["game", "v2", "blue", "green"]
    for step in ("launch", "health", "swap"):
        (town.folder / f"refuse-before_{step}").touch()
        done = town.types("deploy", "game", "v3")
        assert (done.returncode, "ended with 9:\nnot today" in done.stderr) == (1, True)
        assert town.running() == {"green": "v2"}
        (town.folder / f"refuse-before_{step}").unlink()
    (town.folder / "refuse-after_swap").touch()  # too late to stop anything: it is told
    done = town.types("deploy", "game", "v3")
    assert (done.returncode, "not today" in done.stderr) == (0, True)
    assert town.running() == {"blue": "v3"}


def test_traffic_is_not_swapped_to_a_set_without_a_backend(town: Deployed) -> None:
    town.build("v1")
    town.deploys("v1")
    done = town.types("swap", "game")
    assert done.returncode == 1
    assert "traffic stays on blue: there is no backend on green" in done.stderr
    assert town.status()["kernel"]["active"] == "blue"


def test_apply_starts_a_backend_again_that_should_run(town: Deployed) -> None:
    town.build("v1")
    town.deploys("v1")
    pid = json.loads((town.state / "services/game/backends/blue.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until("its end", lambda: town.running() == {})
    town.host.run(["nft", "flush", "ruleset"])
    done = town.types("apply")
    assert "started v1 again" in done.stderr
    assert town.running() == {"blue": "v1"}
    assert town.status()["in_sync"]


def test_kernel_and_state_that_disagree_are_named_with_both_ways_out(town: Deployed) -> None:
    town.build("v1")
    town.build("v2")
    town.deploys("v1")
    (town.state / "mapped.txt").write_text("game green 7\n")
    done = town.types("deploy", "game", "v2")
    assert done.returncode == 1
    assert "the kernel carries blue, the state says green" in done.stderr
    assert "swapper swap game --to blue" in done.stderr
    town.does("swap", "game", "--to", "blue")
    town.deploys("v2")


def test_an_external_backend_is_not_deployed(town: Deployed) -> None:
    text = town.config.read_text()
    town.config.write_text(text[: text.index("[services.game.backend]")])
    done = town.types("deploy", "game", "v1")
    assert (done.returncode, "backend.kind: found external" in done.stderr) == (2, True)


def test_old_releases_and_their_logs_go(town: Deployed) -> None:
    for number in range(8):
        town.build(f"v{number}")
        town.deploys(f"v{number}")
    kept = sorted(path.name for path in (town.state / "services/game/releases").iterdir())
    assert kept == [f"v{number}" for number in range(3, 8)]
    logs = {path.stem.partition("-")[2] for path in (town.state / "services/game/logs").iterdir()}
    assert logs == set(kept)


def test_a_backend_that_will_not_end_is_killed_after_its_grace(town: Deployed) -> None:
    town.build("v1", ignore_term=1)
    town.build("v2")
    town.deploys("v1")
    done = town.types("deploy", "game", "v2")
    assert "did not end within 2 s; killed" in done.stderr
    assert town.running() == {"green": "v2"}


def test_tcp_connections_are_given_until_the_deadline(town: Deployed, tmp_path: Path) -> None:
    text = town.config.read_text()
    both = '{ protocol = "tcp", public = 8080, blue = 8081, green = 8082 }]'
    town.config.write_text(text.replace("green = 1002 }]", f"green = 1002 }}, {both}"))
    town.build("v1")
    town.build("v2")
    town.deploys("v1")
    with town.host.entered():
        client = socket.create_connection(("127.0.0.1", 8080), timeout=5)
    with client, (tmp_path / "said").open("wb") as said:
        done = town.host.popen([SWAPPER, "deploy", "game", "v2", "--config", str(town.config)], stderr=said)
        wait_until("the retirement", lambda: "1 TCP connections" in (tmp_path / "said").read_text())
        client.sendall(b"\0" * 64)
        assert client.recv(64, socket.MSG_WAITALL)[3] == 1  # blue still answers
        client.close()
        assert done.wait(timeout=10) == 0
    assert "are ended with it" not in (tmp_path / "said").read_text()
    assert town.running() == {"green": "v2"}
