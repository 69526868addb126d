"""A private Docker Engine in a test's namespace, and services of containers on it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.deploy.deployed import Deployed, archive, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.netns import Net

__all__ = ["SUBNET", "Bridged", "Contained", "Engine", "deployed", "short_folder"]

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
    """A service on the engine; its rules, containers and images are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="swapper-", dir="/dev/shm") as folder:
        town = kind(engine.net, Path(folder), binary, env=engine.env)
        try:
            yield town
        finally:
            for name in engine.containers():
                engine.docker("rm", "-f", name)
            town.types("remove", "game")
            engine.docker("image", "prune", "--all", "--force")
