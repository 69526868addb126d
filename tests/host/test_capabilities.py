"""The units' commands work with no more than the units give them, and under a real systemd they do their work."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.netns import Namespace, build
from harness.topology import OUTSIDE_AND_HOST
from swapper.model import DataplaneName
from swapper.model import Engine as KernelEngine
from tests import support
from tests.deploy.deployed import SWAPPER, compiled, wait_until
from tests.deploy.test_systemd import CONFIG, Machine, booted
from tests.docker.engines import SUBNET, Bridged, Engine, deployed, short_folder

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "systemd").glob("*.service"))
SECRET = "a secret of forty characters, more or less"  # noqa: S105 - of a server that only this test knows
every_real = pytest.mark.parametrize(("name", "engine"), support.REAL, ids=support.IDS)


def bounds() -> str:
    """What the units leave, in setpriv's notation; both leave the same."""
    (line,) = {re.findall(r"^CapabilityBoundingSet=(.*)$", path.read_text(), re.MULTILINE)[0] for path in UNITS}
    return ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in line.split())])


def types(host: Namespace, bounding_set: str, *words: str) -> subprocess.CompletedProcess[str]:
    return host.run(["setpriv", f"--bounding-set={bounding_set}", SWAPPER, *words], check=False)


@pytest.fixture
def host() -> Iterator[Namespace]:
    with build(support.LONELY) as net:
        yield net["host"]


@every_real
def test_the_capabilities_of_the_units_suffice(
    host: Namespace, tmp_path: Path, name: DataplaneName, engine: KernelEngine
) -> None:
    config = support.configuration(tmp_path, name, engine, drain=True)
    for words in (("apply",), ("swap", "game"), ("apply",), ("status",), ("remove", "game")):
        done = types(host, bounds(), *words, "--config", str(config))
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dropped", ["net_admin", "net_raw"])
def test_none_of_them_is_too_much(host: Namespace, tmp_path: Path, dropped: str) -> None:
    config = support.configuration(tmp_path, DataplaneName.ZONES, KernelEngine.IPTABLES_LEGACY)
    fewer = bounds().replace(f",+{dropped}", "")
    assert fewer != bounds()
    assert types(host, fewer, "apply", "--config", str(config)).returncode == 6


class Bound(Bridged):
    """A service of containers, whose commands run with what the units leave."""

    def types(self, *words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """The same, with less."""
        command = ["setpriv", f"--bounding-set={bounds()}", SWAPPER, *words, "--config", str(self.config)]
        return self.host.run(command, check=False, env=self.env, timeout_s=timeout_s)


def test_containers_are_deployed_with_no_more(tmp_path: Path) -> None:
    with build(OUTSIDE_AND_HOST) as net, short_folder() as folder:
        engine = Engine(net, folder)
        try:
            engine.docker("network", "create", "--subnet", SUBNET, "game")
            with deployed(Bound, engine, compiled(tmp_path)) as town:
                for tag in ("v1", "v2"):
                    town.build(tag, service_ms=20)
                    assert town.deploys(tag)["result"] == "done"
                assert engine.containers() == {"swapper-game-green": "v2"}
        finally:
            engine.stop()


def installed(machine: Machine) -> None:
    """The units, in a booted systemd."""
    for path in UNITS:
        text = path.read_text().replace("/usr/local/bin/swapper", SWAPPER)
        (machine.root / "etc/systemd/system" / path.name).write_text(text)
        drop_in = machine.root / "etc/systemd/system" / f"{path.name}.d/project.conf"
        drop_in.parent.mkdir()
        # Installed it would lie in /usr/local; this checkout may lie under /tmp, of which a unit has its own.
        drop_in.write_text(f"[Service]\nBindReadOnlyPaths={Path(SWAPPER).parents[2]}\n")
    serve = '[serve]\nsecret_file = "/run/credentials/swapper-serve.service/webhook"\n'
    webhook = '[services.game.webhook]\nrepositories = ["example/game"]\n'
    folder = machine.root / "etc/swapper"
    folder.mkdir()
    config = CONFIG.replace('state_dir = "/srv/state"\nrun_dir = "/srv/run"\n', "")
    (folder / "swapper.toml").write_text(config + webhook + serve)
    secret = folder / "webhook.secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "mask", "systemd-networkd-wait-online.service")  # it has no network to wait for


DELIVER = """
import sys, urllib.request
body, signature, tag = sys.argv[1:]
headers = {"X-GitHub-Event": "release", "X-GitHub-Delivery": tag, "X-Hub-Signature-256": signature}
print(urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:9000/hook", body.encode(), headers)).read())
"""


def deliver(machine: Machine, tag: str) -> None:
    """Announce a release, as GitHub does."""
    release = {"tag_name": tag, "draft": False, "prerelease": False}
    body = json.dumps({"action": "published", "release": release, "repository": {"full_name": "example/game"}})
    signature = "sha256=" + hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
    done = machine.run(sys.executable, "-c", DELIVER, body, signature, tag)
    assert '{"queued":["game"]}' in done.stdout, done.stderr


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A host where Swapper is installed and its units run."""
    binary = compiled(tmp_path_factory.mktemp("binary"))
    with booted() as machine:
        installed(machine)
        for tag, boot_ms in (("v1", 0), ("v2", 0), ("slow", 3000)):
            machine.build(tag, binary, boot_ms=boot_ms)
        machine.run("systemctl", "enable", "swapper-serve", "swapper-apply")
        done = machine.run("systemctl", "start", "swapper-serve", "swapper-apply")
        assert done.returncode == 0, done.stderr
        wait_until("the server", lambda: machine.run("ss", "-Htln", "sport = 9000").stdout)
        yield machine


def service(machine: Machine) -> Any:
    (one,) = json.loads(machine.run(SWAPPER, "status", "--json").stdout)["services"]
    return one


def has_deployed(machine: Machine, tag: str) -> bool:
    last = service(machine)["deployment"]
    return bool(last) and (last["release"], last["result"]) == (tag, "done")


def test_a_delivery_is_deployed_and_its_backend_outlives_the_server(machine: Machine) -> None:
    for tag in ("v1", "v2"):
        deliver(machine, tag)
        wait_until(f"the deployment of {tag}", lambda tag=tag: has_deployed(machine, tag))
    active = service(machine)["active"]
    pid = machine.unit(active, "MainPID")
    machine.run("systemctl", "restart", "swapper-serve")
    wait_until("the server", lambda: machine.run("ss", "-Htln", "sport = 9000").stdout)
    assert machine.unit(active, "MainPID") == pid


def test_a_deployment_under_way_outlives_the_server(machine: Machine) -> None:
    deliver(machine, "slow")
    wait_until("the deployment", lambda: (service(machine)["deployment"] or {}).get("phase") == "checking")
    machine.run("systemctl", "stop", "swapper-serve")
    wait_until("its end", lambda: has_deployed(machine, "slow"))
    machine.run("systemctl", "start", "swapper-serve")


def test_apply_brings_back_a_backend_that_does_not_run(machine: Machine) -> None:
    machine.swapper("deploy", "game", "v1")
    active = service(machine)["active"]
    machine.run("systemctl", "stop", f"swapper-game-{active}")
    done = machine.run("systemctl", "restart", "swapper-apply")
    assert done.returncode == 0, done.stderr
    assert machine.unit(active, "ActiveState") == "active"


@pytest.mark.parametrize("verb", ["restart", "reload"])
def test_a_firewall_that_flushes_all_rules_is_followed_by_apply(machine: Machine, verb: str) -> None:
    before = service(machine)
    assert before["in_sync"]
    done = machine.run("systemctl", verb, "nftables")
    assert done.returncode == 0, done.stderr
    wait_until("apply", lambda: service(machine)["in_sync"])
    assert service(machine)["active"] == before["active"]


def test_a_firewall_that_is_stopped_and_started_is_followed_by_apply(machine: Machine) -> None:
    machine.run("systemctl", "stop", "nftables")
    assert not service(machine)["in_sync"]
    machine.run("systemctl", "start", "nftables")
    wait_until("apply", lambda: service(machine)["in_sync"])
