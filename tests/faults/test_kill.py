"""`kill -9` in every phase of a deployment, under load: the next command names it, and finishes or undoes it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from swapper.journal import Phase
from swapper.recipe import Step
from tests.deploy.deployed import SWAPPER, Deployed, Load, faults, wait_until
from tests.support import small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

pytestmark = pytest.mark.deploys

# How a phase is made to last, so that it can be met: a hook that waits, or a backend that behaves so.
HOOKED = {
    Phase.LAUNCHING: "before_launch",
    Phase.CHECKING: "before_health",
    Phase.SWAPPING: "before_swap",
    Phase.VERIFYING: "before_verify",
    Phase.RETIRING: "before_retire",
}
BEHAVED: dict[Phase, Mapping[str, int]] = {
    Phase.RETURNING: {"crash_after_ms": 400},
    Phase.UNDOING: {"mute_after_ms": 400, "ignore_term": 1},
}


class Killed:
    """A service on `good`, whose commands are killed."""

    def __init__(self, town: Deployed) -> None:
        self.town = town
        self.script = town.folder / "wait"
        self.script.write_text(f"#!/bin/sh\ntouch {town.folder}/met-$SWAPPER_HOOK\nexec sleep 20\n")
        self.script.chmod(0o755)
        self.journal = town.state / "services/game/journal.json"

    def at_hook(self, hook: str, *words: str) -> None:
        """Kill a command, and the hook that it waits for, while that hook runs."""
        self.town.configure(more=f'[services.game.hooks]\n{hook} = ["{self.script}"]')
        met = self.town.folder / f"met-{hook}"
        with self.command(*words) as process:
            wait_until(hook, met.exists)
            kill_all(process)
        met.unlink()
        self.town.configure()

    def at_phase(self, phase: Phase, *words: str) -> None:
        """Kill a command as soon as its journal says `phase`."""
        with self.command(*words) as process:
            wait_until(phase, lambda: self.phase() is phase)
            kill_all(process)

    def phase(self) -> Phase | None:
        try:
            return Phase(json.loads(self.journal.read_text())["phase"])
        except FileNotFoundError:
            return None

    @contextmanager
    def command(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        process = self.town.host.popen(
            [SWAPPER, *words, "--config", str(self.town.config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def settles(self) -> str:
        """What the next command says; after it, the service is whole and nothing is left of the dead one."""
        done = self.town.types("apply")
        assert done.returncode in (0, 3), done.stderr
        status = self.town.status()
        assert status["in_sync"], status
        active = status["kernel"]["active"]
        assert self.town.running() == {active: self.town.running()[active]}, "one backend, and it serves"
        assert not self.journal.exists()
        assert (self.town.state / "services/game/current").readlink().name == self.town.running()[active]
        assert leftovers(self.town.folder) == []
        return done.stderr


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the command and to the hook that it runs; never to a backend, which has a session of its own."""
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=10)
    for pid in children.split():
        if "sleep" in command_of(pid):
            os.kill(int(pid), signal.SIGKILL)


def command_of(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii") as file:  # noqa: PTH123 - it may be gone at any moment
            return file.read()
    except OSError:
        return ""


def leftovers(folder: Path) -> list[str]:
    """Files that only a command under way may have."""
    return [str(path) for path in folder.rglob("*") if re.search(r"/\.(tmp|trash|.*\.new)", str(path))]


@pytest.fixture
def killed(town: Deployed) -> Killed:
    town.build("good", service_ms=20)
    town.deploys("good")
    return Killed(town)


def test_every_phase_is_met() -> None:
    assert set(HOOKED) | set(BEHAVED) == set(Phase)


def test_killed_at_every_step_the_next_command_goes_on_and_nothing_is_lost(killed: Killed) -> None:
    town = killed.town
    hooks = [f"{when}_{step}" for step in Step for when in ("before", "after")]
    met: set[Phase | None] = set()
    with Load(town, seconds=27, rate_per_s=1000) as load:
        for number, hook in enumerate(hooks):
            serving = town.status()["kernel"]["active"]
            tag = town.build(f"v{number}", service_ms=20)
            killed.at_hook(hook, "deploy", "game", tag)
            phase = killed.phase()
            met.add(phase)
            said = killed.settles()
            if phase:
                assert f"the deployment of {tag} died while {phase}" in said
            moved = town.status()["kernel"]["active"] != serving
            # After the swap there is only forward; before it, back.
            assert moved == (hooks.index(hook) >= hooks.index("after_swap")), hook
        account = load.ledger()
    assert faults(account) == {}
    assert met >= set(HOOKED)


@pytest.mark.parametrize("phase", BEHAVED)
def test_killed_while_a_bad_release_gives_way_the_old_one_serves(killed: Killed, phase: Phase) -> None:
    town = killed.town
    town.configure(deploy="bake = 5")
    town.build("bad", service_ms=20, **BEHAVED[phase])
    killed.at_phase(phase, "deploy", "game", "bad")
    said = killed.settles()
    assert f"died while {phase}" in said
    assert town.running() == {"blue": "good"}
    assert town.does("history")["deployments"][0]["result"] == "undone"


def test_killed_at_any_moment_a_deployment_can_be_finished_or_undone(killed: Killed) -> None:
    """Moments that no hook and no journal tells of, spread over the whole of a deployment."""
    town = killed.town
    began_s = time.monotonic()
    town.build("first", service_ms=20)
    town.deploys("first")
    whole_s = time.monotonic() - began_s
    with Load(town, seconds=26, rate_per_s=1000) as load:
        for number in range(16):
            town.build(f"r{number}", service_ms=20)
            with killed.command("deploy", "game", f"r{number}") as process:
                time.sleep(whole_s * (number + 0.5) / 16)
                process.kill()
                process.wait(timeout=10)
            killed.settles()
        account = load.ledger()
    assert faults(account) == {}


def test_killed_between_moving_back_and_saying_so_current_names_who_serves(killed: Killed) -> None:
    """What a kill leaves between the swap and the link: no hook and no journal tells of that moment."""
    town = killed.town
    town.build("bad")
    killed.at_hook("before_health", "deploy", "game", "bad")
    current = town.state / "services/game/current"
    current.unlink()
    current.symlink_to("releases/bad")
    killed.settles()
    assert current.readlink().name == "good"


def test_a_deployment_killed_twice_is_still_settled(killed: Killed) -> None:
    town = killed.town
    town.build("v2", service_ms=20)
    killed.at_hook("before_verify", "deploy", "game", "v2")
    killed.at_hook("before_verify", "apply")
    assert killed.phase() is Phase.VERIFYING
    killed.settles()
    assert town.running() == {"green": "v2"}


def test_the_next_deployment_settles_the_dead_one_first(killed: Killed) -> None:
    town = killed.town
    town.build("v2")
    town.build("v3")
    killed.at_hook("before_health", "deploy", "game", "v2")
    assert town.running() == {"blue": "good", "green": "v2"}
    status = town.status()
    assert (status["deployment"]["release"], status["deployment"]["phase"]) == ("v2", "checking")
    receipt = town.deploys("v3")
    assert (receipt["previous"], town.running()) == ("good", {"green": "v3"})


@pytest.mark.parametrize("phase", ["before_health", "before_verify"])
def test_the_old_backend_killed_meanwhile_does_not_stop_a_deployment(killed: Killed, phase: str) -> None:
    town = killed.town
    town.build("v2")
    kill_blue = town.folder / "kill-blue"
    record = town.state / "services/game/backends/blue.json"
    pid = json.loads(record.read_text())["pid"]
    kill_blue.write_text(f"#!/bin/sh\nkill -9 {pid}\n")
    kill_blue.chmod(0o755)
    town.configure(more=f'[services.game.hooks]\n{phase} = ["{kill_blue}"]')
    assert town.deploys("v2")["result"] == "done"
    assert town.running() == {"green": "v2"}


def test_a_full_disk_at_any_step_leaves_one_that_serves(town: Deployed) -> None:
    fill = town.folder / "fill"
    with small_disk(town.folder / "small", "6m") as disk:
        town.state = disk / "state"
        fill.write_text(f"#!/bin/sh\ndd if=/dev/zero of={disk}/full bs=4k 2>/dev/null\nexit 0\n")
        fill.chmod(0o755)
        town.configure()
        town.build("good", service_ms=20)
        town.deploys("good")
        ends = set()
        with Load(town, seconds=18, rate_per_s=1000) as load:
            for number, step in enumerate(Step):
                tag = town.build(f"v{number}", service_ms=20)
                town.configure(more=f'[services.game.hooks]\nbefore_{step} = ["{fill}"]')
                done = town.types("deploy", "game", tag)
                assert "Traceback" not in done.stderr
                assert done.returncode == 0 or "No space left on device" in done.stderr
                ends.add(done.returncode)
                (disk / "full").unlink()
                town.configure()
                Killed(town).settles()
            account = load.ledger()
        town.clean()
    assert faults(account) == {}
    assert ends <= {0, 1, 6}
    assert ends - {0}
