"""Backends under a real systemd: the same machine's files, booted in a container with a network of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.deploy.deployed import SWAPPER, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

CONFIG = """
state_dir = "/srv/state"
run_dir = "/srv/run"
[services.game]
ports = [{ protocol = "udp", public = 1000, blue = 1001, green = 1002 }]
[services.game.backend]
kind = "process"
command = ["{files}/echo", "{files}/behaviour", "/srv"]
stop_grace = 1
[services.game.release]
source = "local"
path = "/srv/builds/{tag}"
[services.game.health]
kind = "udp"
interval = 0.05
send = "ready?"
deadline = 5
[services.game.deploy]
settle = 0.1
"""


class Machine:
    """A booted systemd; `root` is its file system as this test sees it."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root, self.leader = root, leader

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program there, as a user at its console."""
        enter = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "--wd=/"]
        return subprocess.run([*enter, *argv], capture_output=True, text=True, check=False, timeout=60)

    def swapper(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(SWAPPER, *words, "--config", "/srv/swapper.toml")

    def unit(self, port_set: str, name: str) -> str:
        shown = self.run("systemctl", "show", "--value", f"--property={name}", f"swapper-game-{port_set}.service")
        return shown.stdout.strip()

    def build(self, tag: str, binary: Path, **behaviour: int) -> None:
        folder = self.root / "srv/builds" / tag
        folder.mkdir(parents=True)
        (folder / "echo").write_bytes(binary.read_bytes())
        (folder / "echo").chmod(0o755)
        (folder / "behaviour").write_text("".join(f"{name} {value}\n" for name, value in behaviour.items()))


@contextmanager
def booted() -> Iterator[Machine]:
    """Systemd as the first process of a container whose files are this machine's, with all changes in memory."""
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="swapper-")))
        subprocess.run(["mount", "-t", "tmpfs", "swapper-test", str(folder)], check=True)
        undo.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
        upper, work, root = folder / "upper", folder / "work", folder / "root"
        for path in (upper, work, root):
            path.mkdir()
        layers = f"lowerdir=/,upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "swapper-test", "-o", layers, str(root)], check=True)
        undo.callback(subprocess.run, ["umount", "-l", str(root)], check=True)
        (root / "etc/machine-id").unlink(missing_ok=True)
        project = Path(sys.executable).parents[2]
        nspawn = subprocess.Popen(
            [
                *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--console=pipe"),
                *(f"--directory={root}", "--machine=swapper-test", f"--bind-ro={project}"),
                *("--boot", "systemd.unit=basic.target"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        undo.callback(nspawn.wait, timeout=30)
        undo.callback(nspawn.kill)
        machine = Machine(root, leader_of(nspawn))
        undo.callback(os.kill, machine.leader, signal.SIGKILL)
        wait_until("systemd", lambda: "basic.target" in machine.run("systemctl", "list-units", "--no-legend").stdout)
        (root / "srv/swapper.toml").write_text(CONFIG)
        yield machine


def leader_of(nspawn: subprocess.Popen[bytes]) -> int:
    """The first process of the container."""
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")

    def booting() -> list[int]:
        # Its first child sets the container up, ends, and leaves it to the one that becomes systemd.
        return [int(pid) for pid in children.read_text().split() if comm(pid) == "systemd"]

    wait_until("the container", booting)
    return booting()[0]


def comm(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def test_backends_are_services_of_systemd_where_there_is_one(binary: Path) -> None:
    with booted() as machine:
        machine.build("v1", binary, service_ms=20)
        machine.build("v2", binary, ignore_term=1)
        machine.build("bad", binary, exit_at_once=1)
        for tag in ("v1", "v2"):
            done = machine.swapper("deploy", "game", tag)
            assert done.returncode == 0, done.stderr
        # The old one is gone, its unit with it; the new one outlived its command.
        assert (machine.unit("blue", "LoadState"), machine.unit("green", "ActiveState")) == ("not-found", "active")
        assert machine.unit("green", "Description") == "Swapper: game green v2"

        done = machine.swapper("deploy", "game", "bad")
        assert (done.returncode, "exit code 7" in done.stderr) == (3, True), done.stderr
        assert "no configuration, giving up" in done.stderr
        assert machine.unit("blue", "LoadState") == "not-found"

        # A crash: systemd starts it again, and Swapper finds the new process.
        before = machine.unit("green", "MainPID")
        machine.run("kill", "-9", before)
        wait_until("the restart", lambda: machine.unit("green", "MainPID") not in (before, "0", ""))
        status = json.loads(machine.swapper("status", "--json").stdout)["services"][0]
        assert (status["in_sync"], status["kernel"]["active"]) == (True, "green")

        # Killed after its grace time; nothing is left that would hold its name.
        machine.build("v3", binary)
        done = machine.swapper("deploy", "game", "v3")
        assert done.returncode == 0, done.stderr
        assert machine.unit("green", "LoadState") == "not-found"
        (machine.root / "srv/builds/v4").mkdir()
        (machine.root / "srv/builds/v4/echo").write_text("not a program")
        done = machine.swapper("deploy", "game", "v4")
        assert (done.returncode, "cannot be started" in done.stderr) == (1, True), done.stderr
