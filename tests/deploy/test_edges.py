"""Deployments at their edges: what went wrong before, what is left of it, and who comes at the wrong moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.deploy.deployed import SWAPPER, Deployed, Load, faults, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.deploys


def script(town: Deployed, name: str, text: str) -> Path:
    path = town.folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def hooked(town: Deployed, hook: str, text: str, *, deploy: str = "", backend: str = "") -> None:
    town.configure(
        more=f'[services.game.hooks]\n{hook} = ["{script(town, hook, text)}"]', deploy=deploy, backend=backend
    )


def edited(town: Deployed, before: str, after: str) -> None:
    text = town.config.read_text()
    assert before in text
    town.config.write_text(text.replace(before, after))


def on_record(town: Deployed, port_set: str) -> int:
    record = town.state / "services/game/backends" / f"{port_set}.json"
    return int(json.loads(record.read_text())["pid"])


@contextmanager
def under_way(town: Deployed, tag: str, phase: str) -> Iterator[subprocess.Popen[bytes]]:
    """A deployment that has come to a phase; what it says is in the file `said`."""
    journal = town.state / "services/game/journal.json"
    with (town.folder / "said").open("wb") as said:
        process = town.host.popen(
            [SWAPPER, "deploy", "game", tag, "--config", str(town.config)], stdout=subprocess.DEVNULL, stderr=said
        )
        wait_until(phase, lambda: journal.exists() and json.loads(journal.read_text())["phase"] == phase)
        with process:
            yield process


def test_an_edited_port_of_the_set_that_serves_moves_no_traffic_past_its_backend(town: Deployed) -> None:
    town.build("v1", service_ms=20)
    town.build("v2", service_ms=20, boot_ms=500)
    town.deploys("v1")
    with Load(town, seconds=6, rate_per_s=1000) as load:
        edited(town, "blue = 1001", "blue = 1005")
        for words in (("apply",), ("deploy", "game", "v2")):
            done = town.types(*words)
            assert done.returncode == 1
            assert "blue, which serves, was started for udp 1000=1001 (now 1005)" in done.stderr
        edited(town, "blue = 1005, green = 1002", "blue = 1001, green = 1006")  # the way out: the idle one first
        town.deploys("v2")
        account = load.ledger()
    assert faults(account) == {}
    edited(town, "blue = 1001", "blue = 1005")
    town.build("v3")
    town.deploys("v3")
    assert town.running() == {"blue": "v3"}


def test_what_a_hook_leaves_in_the_background_holds_nothing_up(town: Deployed) -> None:
    hooked(town, "after_launch", "sleep 12 &")
    town.build("v1")
    began_s = time.monotonic()
    town.deploys("v1")
    assert time.monotonic() - began_s < 5


def test_a_first_release_that_fails_under_traffic_is_not_called_done(town: Deployed) -> None:
    town.configure(deploy="bake = 2")
    town.build("v1", crash_after_ms=500)
    done = town.types("deploy", "game", "v1")
    assert (done.returncode, "nothing else runs to move back to" in done.stderr) == (3, True)
    assert town.does("history")["deployments"][0]["result"] == "failed"


def test_apply_starts_a_backend_again_also_when_it_failed_to_before(town: Deployed) -> None:
    town.build("v1")
    town.deploys("v1")
    os.kill(on_record(town, "blue"), signal.SIGKILL)
    wait_until("its end", lambda: town.running() == {})
    edited(town, "{files}/echo", "{files}/nope")
    assert "cannot be started" in town.types("apply").stderr
    edited(town, "{files}/nope", "{files}/echo")
    assert "started v1 again" in town.types("apply").stderr
    assert town.running() == {"blue": "v1"}


def test_recovery_from_a_bad_release_goes_on_to_the_next_one(town: Deployed) -> None:
    town.configure(deploy="bake = 3")
    town.build("good")
    town.build("bad", mute_after_ms=1000)
    town.build("v3")
    town.deploys("good")
    with under_way(town, "bad", "verifying") as process:
        process.kill()
    assert town.types("deploy", "game", "v3").returncode == 0
    assert town.running() == {"green": "v3"}


def test_what_a_dead_backend_has_started_goes_with_it(town: Deployed) -> None:
    wrapper = script(town, "wrap", '"$@" &\nwait')
    edited(town, '["{files}/echo"', f'["{wrapper}", "{{files}}/echo"')
    for tag in ("v1", "v2", "v3"):
        town.build(tag)
    town.deploys("v1")
    town.deploys("v2")
    os.kill(on_record(town, "green"), signal.SIGKILL)  # the wrapper; the server itself runs on
    town.deploys("v3")
    edited(town, f'["{wrapper}", "{{files}}/echo"', '["{files}/echo"')
    receipt = town.deploys("v1")
    assert town.running() == {receipt["to"]: "v1"}


def test_a_release_that_hangs_is_stopped_at_once(town: Deployed) -> None:
    """Probes that it never reads are nothing that it owes."""
    town.build("good")
    town.deploys("good")
    record = f"{town.state}/services/game/backends/green.json"
    hooked(town, "before_health", f"kill -STOP $(grep -o '\"pid\": [0-9]*' {record} | cut -d' ' -f2)")
    edited(town, "drain_timeout = 3", "drain_timeout = 30")
    edited(town, "deadline = 8", "deadline = 1")
    town.build("hung")
    began_s = time.monotonic()
    assert town.types("deploy", "game", "hung").returncode == 3
    assert time.monotonic() - began_s < 6
    assert town.running() == {"blue": "good"}


def test_who_finds_the_lock_held_leaves_no_receipt(town: Deployed) -> None:
    town.build("v1", boot_ms=1500)
    town.build("v2")
    with under_way(town, "v1", "checking"):
        assert town.types("deploy", "game", "v2").returncode == 5
    assert [one["release"] for one in town.does("history")["deployments"]] == ["v1"]


def test_a_deployment_after_a_removal_leaves_one_backend(town: Deployed) -> None:
    for tag in ("v1", "v2", "v3"):
        town.build(tag)
    town.deploys("v1")
    town.deploys("v2")
    assert "its backend v2 on green is left as it is" in town.types("remove", "game").stderr
    town.deploys("v3")
    assert town.running() == {"blue": "v3"}


def test_a_signal_says_who_finishes_what_is_under_way(town: Deployed) -> None:
    town.build("v1")
    town.build("v2")
    town.deploys("v1")
    town.configure(deploy="bake = 10")
    with under_way(town, "v2", "verifying") as process:
        process.terminate()
    assert process.returncode == 128 + signal.SIGTERM
    assert "finished or undone by the next command" in (town.folder / "said").read_text()
    assert town.does("history")["deployments"][0]["result"] == "interrupted"
    town.configure()
    town.types("apply")
    assert town.running() == {"green": "v2"}


def test_a_hook_that_stops_a_deployment_leaves_the_kept_backend(town: Deployed) -> None:
    town.configure(backend="keep_old = true")
    for tag in ("v1", "v2", "v3"):
        town.build(tag)
    town.deploys("v1")
    town.deploys("v2")
    hooked(town, "before_launch", "exit 1", backend="keep_old = true")
    assert town.types("deploy", "game", "v3").returncode == 1
    assert town.running() == {"blue": "v1", "green": "v2"}


def test_rollback_goes_to_another_release(town: Deployed) -> None:
    for tag in ("v1", "v2"):
        town.build(tag)
        town.deploys(tag)
    town.deploys("v2")
    assert town.does("rollback", "game")["release"] == "v1"


@pytest.mark.alone
def test_rollback_cuts_also_where_swaps_drain(town: Deployed) -> None:
    town.configure(backend="keep_old = true")
    edited(town, "drain_timeout = 3", 'drain_timeout = 3\nudp = "drain"')
    for tag in ("v1", "v2"):
        town.build(tag)
        town.deploys(tag)
    edited(town, "drain_timeout = 3", "drain_timeout = 20")
    with Load(town, seconds=3, rate_per_s=500) as load:
        began_s = time.monotonic()
        town.does("rollback", "game")
        assert time.monotonic() - began_s < 3
        account = load.ledger()
    assert faults(account) == {}


def test_programs_are_told_in_lines_of_json(town: Deployed) -> None:
    town.env["SWAPPER_LOG"] = "json"
    town.build("v1")
    done = town.types("deploy", "game", "v1")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert any("serves on blue" in line["text"] for line in lines)
